"""Adam, and the moving average of the generators, which is what samples, exports and translations use."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gan_nst.methods.base import Role


def make_optimizer(role: Role) -> torch.optim.Adam:
    """Returns the role's Adam. The trainer sets its learning rate at every step."""
    return torch.optim.Adam(
        role.networks.parameters(),
        role.learning_rate(0),
        role.betas,
        weight_decay=role.weight_decay,
        fused=True,
    )


def restore_optimizer(optimizer: torch.optim.Adam, state: dict[str, Any]) -> None:
    """Loads the saved moments, each in its weight's layout. Betas and the like remain those of the settings.

    A fused step pairs moments and weights by their order in memory, which may differ in a checkpoint of another device
    or an older version. Raises an exception if the state does not belong to the weights.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in state["param_groups"]] != [group["params"] for group in groups]:
        raise ValueError("the state of an optimizer belongs to other weights")
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        shapes = {name: tuple(value.shape) for name, value in moments.items()}
        if shapes != {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}:
            raise ValueError("the moments of an optimizer belong to other weights")
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])


class Ema:
    """An exponential moving average of `source`: `networks` is the averaged copy, frozen.

    decay: at step t at most (1 + t) / (10 + t), so that the untrained weights are soon forgotten.
    """

    def __init__(self, source: nn.ModuleDict, decay: float) -> None:
        self.networks = copy.deepcopy(source).requires_grad_(False).eval()
        self._decay = decay
        self._averaged: list[Tensor] = list(self.networks.parameters())
        self._followed: list[Tensor] = list(source.parameters())
        self._buffers = list(zip(self.networks.buffers(), source.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int, closed: Tensor) -> None:
        """Moves the average towards the source, unless `closed` is 1.0."""
        weight = (1 - min(self._decay, (1 + step) / (10 + step))) * (1 - closed)
        differences = torch._foreach_sub(self._followed, self._averaged)
        torch._foreach_mul_(differences, weight)
        torch._foreach_add_(self._averaged, list(differences))
        for averaged, followed in self._buffers:
            averaged.copy_(followed)
