"""Keeps a loss or gradient that is not finite from ever reaching the weights, without asking the device each
step.
"""

import torch
from torch import Tensor

from gan_nst.errors import TrainingError
from gan_nst.training import distributed


class Guard:
    """A sticky flag on the device: once a value is not finite, every later optimizer step is skipped.

    `closed` is 0.0 or 1.0 on the device, in the form that fused optimizers take as `found_inf`. The host
    reads it only in `raise_if_closed`.
    """

    def __init__(self, device: torch.device) -> None:
        self.closed = torch.zeros((), device=device)
        self._first: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}

    def check(self, step: int, names: tuple[str, ...], values: Tensor) -> None:
        """Closes when one of the values, as many as there are names, is not finite, and remembers which and when."""
        bad = ~torch.isfinite(values)
        if names not in self._first:
            self._first[names] = (
                torch.zeros_like(bad),
                torch.zeros((), dtype=torch.int64, device=bad.device),
            )
        terms, when = self._first[names]
        opened = bad.any() & (self.closed == 0)
        terms.logical_or_(bad & opened)
        when.copy_(torch.where(opened, step, when))
        self.closed = torch.maximum(self.closed, bad.any().float())
        distributed.maximum(self.closed)

    def raise_if_closed(self) -> None:
        """Raises TrainingError naming the terms and the step; it waits for the device."""
        if not self.closed.item():
            return
        found = [
            (int(when), name)
            for names, (terms, when) in self._first.items()
            for name, bad in zip(names, terms.tolist(), strict=True)
            if bad
        ]
        step = min(found, default=(0, ""))[0]
        terms_text = ", ".join(name for _, name in found) or "a value in another process"
        raise TrainingError(
            f"step {step + 1}: {terms_text} not finite; the last checkpoint is from before. Start a new run from it "
            "with training.init_from=RUN and a lower learning rate, training.gradient_clip=1 or precision=float32"
        )
