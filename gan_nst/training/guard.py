"""What becomes of the steps whose losses or gradients were not finite: the run ends, or they are left out and told."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gan_nst.core.errors import TrainingError, counted
from gan_nst.training import checkpoint, distributed
from gan_nst.training.settings import TrainingSettings

log = logging.getLogger(__name__)


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
        distributed.all_reduce_max(self.closed)
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


ImagesOf = Callable[[int], Mapping[str, Sequence[Path]]]
"""The files of this process's images at a step, by stream."""

_TOLD_STEPS, _TOLD_FILES = 3, 3  # in a message, the files for each stream
_FEWEST, _TOO_MANY = 10, 0.5  # of so many steps or more, at most this share may be left out


@dataclass(frozen=True)
class _Told:
    """A failure as its process tells it: step, values, and the files by stream."""

    failure: Failure
    images: dict[str, list[str]]

    @property
    def in_a_loss(self) -> bool:
        return not self.failure.terms[0].startswith("gradient_norm/")


class NonFinite:
    """Reads the guard when the run logs or saves, and says which values went wrong, when, and with which images.

    images_of: recomputes them from the sampler. checkpoints: the run's folder of them.
    """

    def __init__(
        self,
        guard: Guard,
        settings: TrainingSettings,
        checkpoints: Path,
        images_of: ImagesOf | None,
        precision: str,
    ) -> None:
        self._guard = guard
        self._stops = settings.on_nonfinite == "stop"
        self._clips = settings.gradient_clip is not None
        self._checkpoints = checkpoints
        self._images_of = images_of
        self._precision = precision
        self._recent = (0, 0)  # steps, and how many of them were left out
        self._example: _Told | None = None  # of those

    def raise_if_stopped(self) -> None:
        """Raises TrainingError where a value that is not finite ends the run; it waits for the device."""
        if self._stops:
            self._read()

    def report(self, steps: int) -> dict[str, float]:
        """Scalars to log about the steps since the last report, so many; it waits for the device.

        Warns of those left out. Raises TrainingError where they end the run, or when there were too many.
        """
        skipped, failures = self._read()
        if self._stops:
            return {}
        if skipped:
            log.warning(
                f"{counted(skipped, 'step')} left out, as a value was not finite: {_list(failures, skipped)}"
            )
            self._example = failures[-1]
        self._recent = (self._recent[0] + steps, self._recent[1] + skipped)
        if self._recent[0] >= _FEWEST:
            self._refuse_too_many()
            self._recent = (0, 0)
        return {"skipped/steps": float(skipped)}

    def _read(self) -> tuple[int, list[_Told]]:
        skipped, met = self._guard.take()
        if not skipped:  # in every process alike
            return 0, []
        told = [_Told(failure, self._images(failure.step)) for failure in met[:_TOLD_STEPS]]
        failures = _together([one for those in distributed.gather(told) for one in those])
        if not self._stops:
            return skipped, failures
        first = failures[0]
        raise TrainingError(f"step {_one(first)}; it never reached the weights. {self._advice()}")

    def _images(self, step: int) -> dict[str, list[str]]:
        files = {} if self._images_of is None else self._images_of(step)
        return {stream: [str(path) for path in paths] for stream, paths in files.items()}

    def _refuse_too_many(self) -> None:
        steps, skipped = self._recent
        if skipped <= _TOO_MANY * steps or self._example is None:
            return
        raise TrainingError(
            f"{skipped} of the last {steps} steps were left out for a value that was not finite, as in step "
            f"{_one(self._example)}; going on would learn next to nothing. {self._advice()}"
        )

    def _advice(self) -> str:
        """Where to go on from, and with what. Images are always finite: what grew is the weights or a gradient."""
        run = self._checkpoints.parent
        changes = ["a lower learning rate"]
        changes += [] if self._clips else ["training.gradient_clip=1"]
        changes += ["precision=float32"] if self._precision != "float32" else []
        newest = next(iter(checkpoint.newest_first(self._checkpoints)), None)
        before = f"{newest} is from before: " if newest else ""
        leave = (
            f"gan-nst train --resume {run} training.on_nonfinite=skip leaves such steps out; or "
            if self._stops
            else ""
        )
        return f"{before}{leave}start a new run with training.init_from={run} and {_listed(changes, 'or')}"


def _together(told: Iterable[_Told]) -> list[_Told]:
    """One a step. Where a process met it in a loss, the others, which met it in the average of the gradients, have
    nothing to do with it.
    """
    by_step: dict[int, list[_Told]] = {}
    for one in told:
        by_step.setdefault(one.failure.step, []).append(one)
    found = []
    for step, those in sorted(by_step.items()):
        those = [one for one in those if one.in_a_loss] or those
        terms = tuple(dict.fromkeys(term for one in those for term in one.failure.terms))
        streams = dict.fromkeys(stream for one in those for stream in one.images)
        images = {
            stream: [file for one in those for file in one.images.get(stream, [])] for stream in streams
        }
        found.append(_Told(Failure(step, terms), images))
    return found


def _list(failures: Sequence[_Told], skipped: int) -> str:
    told = failures[:_TOLD_STEPS]
    more = f"; and {counted(skipped - len(told), 'more step')}" if skipped > len(told) else ""
    return "; ".join(f"step {_one(failure)}" for failure in told) + more


def _one(told: _Told) -> str:
    """ "14: generator/cycle_a and generator/cycle_b not finite, with the images x.png, y.png"."""
    terms = told.failure.terms
    if told.in_a_loss:  # of which the gradient is a consequence
        terms = tuple(term for term in terms if not term.startswith("gradient_norm/"))
    files = dict.fromkeys(_shortened(files) for files in told.images.values())
    images = f", with the images {', '.join(files)}" if files else ""
    return f"{told.failure.step + 1}: {_listed(terms, 'and')} not finite{images}"


def _listed(words: Sequence[str], word: str) -> str:
    *others, last = words
    return f"{', '.join(others)} {word} {last}" if others else last


def _shortened(files: Sequence[str]) -> str:
    more = len(files) - _TOLD_FILES
    return ", ".join(files[:_TOLD_FILES]) + (f" and {more} more" if more > 0 else "")
