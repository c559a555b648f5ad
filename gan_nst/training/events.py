"""TensorBoard's events of a run, as far as they can be written."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gan_nst.images import Picture
from gan_nst.training.best_effort import BestEffort

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Events:
    """Writes events into a run's folder; where it cannot, it says so and tries again, ever less often.

    start: the step the run goes on from; events of later steps, from before it was stopped, are dropped.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder = folder
        self._purge = start + 1 if start else None
        self._writer: SummaryWriter | None = None
        self._effort = BestEffort(folder / "events.out.tfevents")
        self._failures = self._left_out = 0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers, grouped by the part of their names before the slash."""

        def add(writer: "SummaryWriter") -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        self._write(add)

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Adds a picture, RGB uint8 (h, w, 3)."""
        self._write(lambda writer: writer.add_image(name, picture, step, dataformats="HWC"))

    def text(self, name: str, text: str) -> None:
        """Adds text, shown as it is."""
        self._write(lambda writer: writer.add_text(name, "    " + text.replace("\n", "\n    ")))

    def close(self) -> None:
        """Finishes the file."""
        if self._writer is not None:
            with self._effort.attempt():
                self._writer.close()

    def _write(self, action: "Callable[[SummaryWriter], None]") -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._left_out:
            self._left_out -= 1
            return
        with self._effort.attempt():
            if self._writer is None:
                self._writer = SummaryWriter(str(self._folder), purge_step=self._purge)
            action(self._writer)
            self._failures = 0
        if self._effort.failing:  # its thread has ended with the failure: another writer begins another file
            if self._writer is not None:
                with suppress(OSError):
                    self._writer.close()
            self._writer = None
            self._failures += 1
            self._left_out = 2**self._failures
