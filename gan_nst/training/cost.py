"""What a step costs, known before the first one is taken."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gan_nst.methods.base import Batch, Method


def step_operations(method: Method, step: int, sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Floating-point operations of the convolutions and matrix products of one micro-batch's step, forward and
    backward.

    sizes: of every tensor in the batch, (n, 3, h, w). It runs on torch's meta device, without data: it takes neither
    memory nor, but for milliseconds, time. Raises RuntimeError or ValueError when the networks cannot take the sizes.
    """
    trial = copy.deepcopy(method).to("meta")
    roles = trial.roles()
    trial.requires_grad_(False)
    batch: Batch = {key: torch.zeros(size, device="meta") for key, size in sizes.items()}
    with FlopCounterMode(display=False) as counter:
        for update in trial.updates(step):
            networks = roles[update.role].networks
            networks.requires_grad_(True)
            losses: list[Tensor] = [x for x in update.losses(batch).values() if x.requires_grad]
            if losses:
                torch.stack(losses).sum().backward()
            networks.requires_grad_(False)
    return int(counter.get_total_flops())
