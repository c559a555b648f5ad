"""Keeps a loss or gradient that is not finite from ever reaching the weights, without asking the device each
step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_nst.training import distributed

_REMEMBERED = 8  # failures of each update between two readings; more are counted


@dataclass(frozen=True)
class Failure:
    """A step, from 0, that went wrong in this process, and the values that were not finite, in the order of the
    losses; the gradient's norm is the last.
    """

    step: int
    terms: tuple[str, ...]


class Guard:
    """A flag on the device: from the update whose value is not finite on, optimizer steps are skipped.

    `closed` is 0.0 or 1.0 on the device, in the form that fused optimizers take as `found_inf`. The host
    reads it only in `take`.

    lasting: skipped are all steps to come; else the updates that are left of that step alone.
    """

    def __init__(self, device: torch.device, lasting: bool = True) -> None:
        self.closed = torch.zeros((), device=device)
        self._lasting = lasting
        self._skipped = torch.zeros((), device=device)
        self._rows = torch.arange(_REMEMBERED, device=device)
        self._found: dict[tuple[str, ...], tuple[Tensor, Tensor, Tensor]] = {}

    def begin(self) -> None:
        """Opens it for a new step, unless it lasts."""
        if not self._lasting:
            self.closed = torch.zeros_like(self.closed)

    def check(self, step: int, names: tuple[str, ...], values: Tensor) -> None:
        """Closes when one of the values, as many as there are names, is not finite, and remembers which and when."""
        bad = ~torch.isfinite(values)
        if names not in self._found:
            self._found[names] = (
                torch.zeros_like(self._rows),
                torch.zeros((_REMEMBERED, len(names)), dtype=torch.bool, device=bad.device),
                torch.zeros((), dtype=torch.int64, device=bad.device),
            )
        steps, terms, count = self._found[names]
        first = bad.any() & (self.closed == 0)
        row = (self._rows == count) & first
        steps.copy_(torch.where(row, step, steps))
        terms.logical_or_(row[:, None] & bad)
        count.add_(first)
        before = self.closed
        self.closed = torch.maximum(before, bad.any().float())
        distributed.maximum(self.closed)
        self._skipped = self._skipped + self.closed - before

    def take_back(self, tensors: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """Gives tensors the values they had before, where it is closed."""
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(torch.where(self.closed > 0, value, tensor))

    def take(self) -> tuple[int, list[Failure]]:
        """How many steps were skipped in all processes since the last time, or whether it closed for good, and the
        first of the failures that this process met, by step; it waits for the device.
        """
        skipped = int(self._skipped.item())
        if not skipped:
            return 0, []
        failures = [
            Failure(step, tuple(name for name, bad in zip(names, row, strict=True) if bad))
            for names, (steps, terms, _) in self._found.items()
            for step, row in zip(steps.tolist(), terms.tolist(), strict=True)
            if any(row)
        ]
        self._found = {}
        self._skipped = torch.zeros_like(self._skipped)
        return skipped, sorted(failures, key=lambda failure: failure.step)
