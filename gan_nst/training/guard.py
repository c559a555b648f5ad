"""Losses and gradients that are not finite: kept from the weights, and reported with the images that caused them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gan_nst.core.errors import TrainingError, counted, listed
from gan_nst.training import checkpoint, distributed

log = logging.getLogger(__name__)

_REPORTED_FILES = 3  # of each stream
_FEWEST_STEPS, _LARGEST_SHARE = 10, 0.5  # of at least so many steps, at most this share may be skipped

ImagesOf = Callable[[int], Mapping[str, Sequence[Path]]]
"""Returns the files of this process's images at a step, by stream."""


@dataclass(frozen=True)
class Failure:
    """A step, from 0, with values that were not finite.

    terms: the losses, or, if all of them are finite, the gradient's norm. images: the step's files, a text per stream.
    """

    step: int
    terms: tuple[str, ...]
    images: tuple[str, ...] = ()

    def __str__(self) -> str:
        images = f", with the images {', '.join(dict.fromkeys(self.images))}" if self.images else ""
        return f"step {self.step + 1}: {', '.join(self.terms)} not finite{images}"


class Guard:
    """A flag on the device that is closed by a value that is not finite: optimizer steps are then skipped.

    `closed` is 0.0 or 1.0 on the device, in the form that fused optimizers take as `found_inf`. Nothing waits for
    the device but `raise_if_stopped`, `report` and `take`.

    stops: whether it stays closed, which ends the run when it is read; if not, the next step opens it. checkpoints: the
    run's folder of them. images_of: finds a step's images again. remedies: what a new run could change.
    """

    def __init__(
        self,
        device: torch.device,
        stops: bool,
        checkpoints: Path,
        images_of: ImagesOf | None = None,
        remedies: Sequence[str] = ("a lower learning rate",),
    ) -> None:
        self.closed = torch.zeros((), device=device)
        self._stops = stops
        self._checkpoints = checkpoints
        self._images_of = images_of
        self._remedies = remedies
        self._skipped = torch.zeros((), device=device)
        # By the names of values, the first time that some of them were not finite: the step, from 1, and which.
        self._first: dict[tuple[str, ...], Tensor] = {}
        self._recent = (0, 0)  # steps, and how many of them were skipped

    def begin(self) -> None:
        """Starts a step."""
        if not self._stops:
            self.closed = torch.zeros_like(self.closed)

    def check(self, step: int, names: tuple[str, ...], values: Tensor) -> None:
        """Closes if one of the values is not finite, and remembers which and when."""
        bad = ~torch.isfinite(values)
        now = torch.cat([torch.full((1,), step + 1, device=bad.device), bad.long()])
        first = self._first.setdefault(names, torch.zeros_like(now))
        is_first = bad.any() & (self.closed == 0) & (first[0] == 0)
        self._first[names] = torch.where(is_first, now, first)
        before = self.closed
        self.closed = torch.maximum(before, bad.any().float())
        distributed.all_reduce_max(self.closed)
        self._skipped = self._skipped + self.closed - before

    def undo(self, tensors: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """Gives tensors their earlier values if it is closed."""
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(torch.where(self.closed > 0, value, tensor))

    def raise_if_stopped(self) -> None:
        """Raises TrainingError if a value was not finite and that ends the run. Waits for the device."""
        if self._stops:
            self._read()

    def report(self, steps: int) -> dict[str, float]:
        """Returns scalars to log, and warns of steps that were skipped. Waits for the device.

        steps: how many there were since the last report. Raises TrainingError if the run ends here, or if too many
        steps were skipped.
        """
        skipped, failure = self._read()
        if self._stops:
            return {}
        if skipped:
            log.warning(f"{counted(skipped, 'step')} skipped, first at {failure}")
        total, bad = self._recent[0] + steps, self._recent[1] + skipped
        if total >= _FEWEST_STEPS and bad > _LARGEST_SHARE * total:
            raise TrainingError(
                f"{bad} of the last {total} steps were skipped; training on would achieve next to nothing. "
                f"Instead, {self._new_run()}"
            )
        self._recent = (0, 0) if total >= _FEWEST_STEPS else (total, bad)
        return {"skipped/steps": float(skipped)}

    def take(self) -> tuple[int, Failure | None]:
        """Returns how many steps all processes skipped since the last call (1 if it closed for good), and this
        process's first failure, if it had one. Waits for the device.
        """
        skipped = int(self._skipped.item())
        if not skipped:
            return 0, None
        failures = []
        for names, first in self._first.items():
            step, *bad = first.tolist()
            terms = tuple(name for name, is_bad in zip(names, bad, strict=True) if is_bad)
            losses = tuple(name for name in terms if not name.startswith("gradient_norm/"))
            if terms:  # if a loss is not finite, the gradient is not either
                failures.append(Failure(step - 1, losses or terms))
        self._first = {}
        self._skipped = torch.zeros_like(self._skipped)
        return skipped, min(failures, key=lambda failure: failure.step, default=None)

    def _read(self) -> tuple[int, Failure | None]:
        """Returns how many steps were skipped, and the first failure of all processes. Raises if the run stops."""
        skipped, own = self.take()
        if not skipped:  # in all processes
            return 0, None
        if own and self._images_of:
            streams = self._images_of(own.step).values()
            own = replace(own, images=tuple(listed([*map(str, paths)], _REPORTED_FILES) for paths in streams))
        failure = _merged([found for found in distributed.gather(own) if found])
        if self._stops:
            resume = f"gan-nst train --resume {self._checkpoints.parent} training.on_nonfinite=skip"
            newest = checkpoint.newest_first(self._checkpoints)
            before = f"{newest[0]} is from before. " if newest else ""
            raise TrainingError(
                f"{failure}; it never reached the weights. {before}To skip such steps: {resume}; or {self._new_run()}"
            )
        return skipped, failure

    def _new_run(self) -> str:
        return f"start a new run with training.init_from={self._checkpoints.parent} and {' or '.join(self._remedies)}"


def _merged(failures: Sequence[Failure]) -> Failure:
    """Returns the first failure of all processes. If some met it in a loss, the others only met it in the averaged
    gradient, and their images have nothing to do with it.
    """
    step = min(failure.step for failure in failures)
    same = [failure for failure in failures if failure.step == step]
    causes = [failure for failure in same if not failure.terms[0].startswith("gradient_norm/")] or same
    terms = dict.fromkeys(term for failure in causes for term in failure.terms)
    return Failure(step, tuple(terms), tuple(images for failure in causes for images in failure.images))
