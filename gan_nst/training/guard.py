"""Losses and gradients that are not finite: kept from the weights, and reported with the images that caused them."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from gan_nst.core.errors import TrainingError, counted, listed
from gan_nst.training import checkpoint, distributed
from gan_nst.training.settings import TrainingSettings

log = logging.getLogger(__name__)

_REMEMBERED = 8  # failures of each update between two readings; the others are only counted
_REPORTED_STEPS, _REPORTED_FILES = 3, 3  # in a message; files of each stream
_FEWEST_STEPS, _LARGEST_SHARE = 10, 0.5  # of at least so many steps, at most this share may be skipped


@dataclass(frozen=True)
class Failure:
    """A step, from 0, with values that were not finite.

    terms: names of the values, in the order of the losses; the gradient's norm comes last.
    images: the step's files by stream.
    """

    step: int
    terms: tuple[str, ...]
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def losses(self) -> tuple[str, ...]:
        """The terms that are losses."""
        return tuple(term for term in self.terms if not term.startswith("gradient_norm/"))

    def __str__(self) -> str:
        # If a loss is not finite, the gradient is not either.
        terms = _listed(self.losses or self.terms, "and")
        files = dict.fromkeys(listed(files, _REPORTED_FILES) for files in self.images.values())
        return f"step {self.step + 1}: {terms} not finite" + (
            f", with the images {', '.join(files)}" if files else ""
        )


class Guard:
    """A flag on the device that is closed by a value that is not finite: optimizer steps are then skipped.

    `closed` is 0.0 or 1.0 on the device, in the form that fused optimizers take as `found_inf`. Nothing waits for
    the device but `take`.

    lasting: whether it stays closed; if not, the next step opens it.
    """

    def __init__(self, device: torch.device, lasting: bool = True) -> None:
        self.closed = torch.zeros((), device=device)
        self._lasting = lasting
        self._skipped = torch.zeros((), device=device)
        self._rows = torch.arange(_REMEMBERED, device=device)
        self._failures: dict[tuple[str, ...], tuple[Tensor, Tensor, Tensor]] = {}  # steps, terms, count

    def begin(self) -> None:
        """Starts a step."""
        if not self._lasting:
            self.closed = torch.zeros_like(self.closed)

    def check(self, step: int, names: tuple[str, ...], values: Tensor) -> None:
        """Closes if one of the values is not finite, and remembers which and when."""
        bad = ~torch.isfinite(values)
        if names not in self._failures:
            self._failures[names] = (
                torch.zeros_like(self._rows),
                torch.zeros((_REMEMBERED, len(names)), dtype=torch.bool, device=bad.device),
                torch.zeros((), dtype=torch.int64, device=bad.device),
            )
        steps, terms, count = self._failures[names]
        first = bad.any() & (self.closed == 0)
        row = (self._rows == count) & first
        steps.copy_(torch.where(row, step, steps))
        terms.logical_or_(row[:, None] & bad)
        count.add_(first)
        before = self.closed
        self.closed = torch.maximum(before, bad.any().float())
        distributed.all_reduce_max(self.closed)
        self._skipped = self._skipped + self.closed - before

    def undo(self, tensors: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """Gives tensors their earlier values if it is closed."""
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(torch.where(self.closed > 0, value, tensor))

    def take(self) -> tuple[int, list[Failure]]:
        """Returns how many steps all processes skipped since the last call (1 if it closed for good), and the first
        failures of this process by step. Waits for the device.
        """
        skipped = int(self._skipped.item())
        if not skipped:
            return 0, []
        failures = [
            Failure(step, tuple(name for name, bad in zip(names, row, strict=True) if bad))
            for names, (steps, terms, _) in self._failures.items()
            for step, row in zip(steps.tolist(), terms.tolist(), strict=True)
            if any(row)
        ]
        self._failures = {}
        self._skipped = torch.zeros_like(self._skipped)
        return skipped, sorted(failures, key=lambda failure: failure.step)


ImagesOf = Callable[[int], Mapping[str, Sequence[Path]]]
"""Returns the files of this process's images at a step, by stream."""


class FailureReporter:
    """Reads the guard when the run logs or saves: ends the run, or warns of the skipped steps.

    checkpoints: the run's folder of them. images_of: finds a step's images again.
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
        self._recent = (0, 0)  # steps, and how many of them were skipped
        self._latest: Failure | None = None

    def raise_if_stopped(self) -> None:
        """Raises TrainingError if a value was not finite and that ends the run. Waits for the device."""
        if self._stops:
            self._read()

    def report(self, steps: int) -> dict[str, float]:
        """Returns scalars to log, and warns of steps that were skipped. Waits for the device.

        steps: how many there were since the last report. Raises TrainingError if the run ends here, or if too many
        steps were skipped.
        """
        skipped, failures = self._read()
        if self._stops:
            return {}
        if skipped:
            reported = failures[:_REPORTED_STEPS]
            rest = skipped - len(reported)
            more = [f"and {counted(rest, 'more step')}"] if rest else []
            log.warning(f"{counted(skipped, 'step')} skipped: {'; '.join([*map(str, reported), *more])}")
            self._latest = failures[-1]
        total, bad = self._recent[0] + steps, self._recent[1] + skipped
        if total >= _FEWEST_STEPS and bad > _LARGEST_SHARE * total:
            raise TrainingError(
                f"{bad} of the last {total} steps were skipped, the latest at {self._latest}; training on would "
                f"achieve next to nothing. {self._advice()}"
            )
        self._recent = (0, 0) if total >= _FEWEST_STEPS else (total, bad)
        return {"skipped/steps": float(skipped)}

    def _read(self) -> tuple[int, list[Failure]]:
        """Returns how many steps were skipped, and the first failures of all processes. Raises if the run stops."""
        skipped, failures = self._guard.take()
        if not skipped:  # in all processes alike
            return 0, []
        own = [replace(failure, images=self._files(failure.step)) for failure in failures[:_REPORTED_STEPS]]
        failures = _merged(failure for rank in distributed.gather(own) for failure in rank)
        if self._stops:
            raise TrainingError(f"{failures[0]}; it never reached the weights. {self._advice()}")
        return skipped, failures

    def _files(self, step: int) -> dict[str, list[str]]:
        images = {} if self._images_of is None else self._images_of(step)
        return {stream: [str(path) for path in paths] for stream, paths in images.items()}

    def _advice(self) -> str:
        """From which checkpoint to resume, and what to change. Images are finite; weights or gradients grew."""
        run = self._checkpoints.parent
        changes = ["a lower learning rate"]
        changes += [] if self._clips else ["training.gradient_clip=1"]
        changes += ["precision=float32"] if self._precision != "float32" else []
        newest = next(iter(checkpoint.newest_first(self._checkpoints)), None)
        intact = f"{newest} is from before. " if newest else ""
        skip = (
            f"To skip such steps: gan-nst train --resume {run} training.on_nonfinite=skip; or"
            if self._stops
            else "To"
        )
        return f"{intact}{skip} start a new run with training.init_from={run} and {_listed(changes, 'or')}"


def _merged(failures: Iterable[Failure]) -> list[Failure]:
    """Returns the failures of all processes, one a step. If some met it in a loss, the others only met it in the
    averaged gradient, and their images have nothing to do with it.
    """
    by_step: dict[int, list[Failure]] = {}
    for failure in failures:
        by_step.setdefault(failure.step, []).append(failure)
    merged = []
    for step, same in sorted(by_step.items()):
        causes = [failure for failure in same if failure.losses] or same
        images: dict[str, list[str]] = {}
        for failure in causes:
            for stream, files in failure.images.items():
                images.setdefault(stream, []).extend(files)
        terms = dict.fromkeys(term for failure in causes for term in failure.terms)
        merged.append(Failure(step, tuple(terms), images))
    return merged


def _listed(words: Sequence[str], word: str) -> str:
    *others, last = words
    return f"{', '.join(others)} {word} {last}" if others else last
