"""Means of what the steps compute, kept on the device until they are asked for."""

import torch
from torch import Tensor


class Means:
    """Sums values by name; a step adds them together, in one tensor, so that nothing waits for the device."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}  # the last place of each counts

    def add(self, names: tuple[str, ...], values: Tensor, skipped: Tensor | None = None) -> None:
        """Adds as many values as there are names; where `skipped` is 1.0 none of them."""
        counted = torch.cat([values, values.new_ones(1)])
        if skipped is not None:
            counted = torch.where(skipped > 0, torch.zeros_like(counted), counted)
        before = self._sums.get(names)
        self._sums[names] = counted if before is None else before + counted

    def take(self) -> dict[str, float]:
        """The mean of each since they were last taken; it waits for the device."""
        pooled: dict[str, tuple[float, float]] = {}
        for names, sums in self._sums.items():
            *totals, added = sums.tolist()
            # One name may stand beside others in a warm-up than after it.
            for name, total in zip(names, totals, strict=True):
                before, counted = pooled.get(name, (0.0, 0.0))
                pooled[name] = (before + total, counted + added)
        self._sums = {}
        return {name: total / count for name, (total, count) in pooled.items() if count}
