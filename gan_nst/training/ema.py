"""The exponential moving average of the generators' weights: what is sampled, exported and translated with."""

import copy

import torch
from torch import Tensor, nn


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
