"""The exponential moving average of the generators' weights: what is sampled, exported and translated with."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gan_nst.methods.base import Role


def make_optimizer(role: Role) -> torch.optim.Adam:
    """The role's Adam; its learning rate is set anew at every step."""
    return torch.optim.Adam(
        role.networks.parameters(),
        role.learning_rate(0),
        role.betas,
        weight_decay=role.weight_decay,
        fused=True,
    )


def restore_optimizer(optimizer: torch.optim.Adam, state: dict[str, Any]) -> None:
    """Loads the saved moments, each in the layout of its weight; betas and the like stay the settings' own.

    A fused step pairs them by their places in memory, and a checkpoint of another device or an older version may have
    them otherwise. Raises an Exception when the state is of other weights, or none.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in state["param_groups"]] != [group["params"] for group in groups]:
        raise ValueError("an optimizer's weights are others")
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        shapes = {name: tuple(value.shape) for name, value in moments.items()}
        if shapes != {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}:
            raise ValueError("an optimizer's moments are of other weights")
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])


class Ema:
    """Follows `source`; `networks` is the averaged copy, frozen.

    decay: of the average, reached gradually: at step t it is at most (1 + t) / (10 + t), so that the
    untrained weights are soon forgotten.
    """

    def __init__(self, source: nn.ModuleDict, decay: float) -> None:
        self.networks = copy.deepcopy(source).requires_grad_(False).eval()
        self._decay = decay
        self._averaged: list[Tensor] = list(self.networks.parameters())
        self._followed: list[Tensor] = list(source.parameters())
        self._buffers = list(zip(self.networks.buffers(), source.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int, closed: Tensor) -> None:
        """Moves the average towards the source; where `closed` is 1.0 it stays."""
        weight = (1 - min(self._decay, (1 + step) / (10 + step))) * (1 - closed)
        differences = torch._foreach_sub(self._followed, self._averaged)
        torch._foreach_mul_(differences, weight)
        torch._foreach_add_(self._averaged, list(differences))
        for averaged, followed in self._buffers:
            averaged.copy_(followed)
