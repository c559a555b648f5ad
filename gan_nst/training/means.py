"""Means of what the steps compute, kept on the device until they are asked for."""

import torch
from torch import Tensor


class Means:
    """Sums values by name; a step adds them together, in one tensor, so that nothing waits for the device."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def add(self, names: tuple[str, ...], values: Tensor) -> None:
        """Adds as many values as there are names."""
        total, count = self._sums.get(names, (torch.zeros_like(values), 0))
        self._sums[names] = (total + values, count + 1)

    def take(self) -> dict[str, float]:
        """The mean of each since they were last taken; it waits for the device."""
        pooled: dict[str, tuple[float, int]] = {}
        for names, (totals, count) in self._sums.items():
            # One name may stand beside others in a warm-up than after it.
            for name, total in zip(names, totals.tolist(), strict=True):
                before, counted = pooled.get(name, (0.0, 0))
                pooled[name] = (before + total, counted + count)
        self._sums = {}
        return {name: total / count for name, (total, count) in pooled.items()}
