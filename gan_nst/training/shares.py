"""Which loss moves the generators how much: each term's share of the gradient."""

import copy
import math

import torch

from gan_nst.core.device import autocast
from gan_nst.methods.base import Batch, Method


def gradient_shares(
    method: Method, step: int, batch: Batch, precision: str, device: torch.device
) -> dict[str, float]:
    """For every role that moves the generators, "gradient_share/<role>/<term>": the norm of that term's gradient over
    the sum of all terms' norms.

    It costs one forward pass and a backward pass a term, on a copy of the method, so that nothing of a run is
    touched: neither gradients nor replay buffers nor random states.
    """
    trial = copy.deepcopy(method)
    generators = set(trial.generators.parameters())
    roles = trial.roles()
    shares: dict[str, float] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for update in trial.updates(step):
            networks = roles[update.role].networks
            parameters = list(networks.parameters())
            if generators.isdisjoint(parameters):
                continue
            networks.requires_grad_(True)
            with autocast(precision, device):
                losses = update.losses(dict(batch))
            norms = dict.fromkeys(losses, 0.0)
            for name, loss in losses.items():
                if not loss.requires_grad:  # a constant moves nothing
                    continue
                gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
                norms[name] = torch.nn.utils.get_total_norm([g for g in gradients if g is not None]).item()
            networks.requires_grad_(False)
            total = sum(norms.values())
            if not math.isfinite(total):
                continue
            shares |= {
                f"gradient_share/{update.role}/{name}": norm / total if total > 0 else 0.0
                for name, norm in norms.items()
            }
    return shares
