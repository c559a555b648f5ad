"""What a run shows while it goes: TensorBoard events, metrics.jsonl, and a progress line."""

import io
import json
import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_nst.core import terminal as progress
from gan_nst.core.files import OptionalOutput, append_atomically, atomic_write
from gan_nst.images.arrays import ImageArray

log = logging.getLogger(__name__)


class Events:
    """Writes events into a run's folder; where it cannot, it says so once and leaves them out.

    start: the step the run goes on from; events of later steps, from before it was stopped, are dropped.
    """

    def __init__(self, folder: Path, start: int) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = folder / name
        self._start = start
        self._begun = False
        self._effort = OptionalOutput(self._file)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers, grouped by the part of their names before the slash."""
        from torch.utils.tensorboard.summary import scalar

        self._add(step, [scalar(name, value) for name, value in values.items()])

    def image(self, step: int, name: str, image: ImageArray) -> None:
        """Adds an image, RGB uint8 (h, w, 3)."""
        from torch.utils.tensorboard.summary import image as image_summary

        self._add(step, [image_summary(name, image, dataformats="HWC")])

    def text(self, name: str, text: str) -> None:
        """Adds text, shown as it is."""
        from torch.utils.tensorboard.summary import text as summary

        self._add(0, [summary(name, "    " + text.replace("\n", "\n    "))])

    def _add(self, step: int, summaries: list[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        events = [] if self._begun else self._beginning()
        events += [Event(wall_time=time.time(), step=step, summary=summary) for summary in summaries]
        content = io.BytesIO()
        writer = RecordWriter(content)
        for event in events:
            writer.write(event.SerializeToString())
        with self._effort.attempt():
            append_atomically(self._file, content.getvalue())
            self._begun = True

    def _beginning(self) -> list[Any]:
        """What a file of events begins with, and what drops those of later steps in earlier files."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        begins = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if self._start:
            log = SessionLog(status=SessionLog.START)
            begins.append(Event(wall_time=time.time(), step=self._start + 1, session_log=log))
        return begins


if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


_EACH = 64  # so many grids are all among the events, and half as many of every doubling after them


class Monitor:
    """Writes a run's metrics into its folder and shows how far it is.

    The scalars of `metrics.jsonl` and of TensorBoard are the same. A run that is resumed continues both: what
    was written after its checkpoint is dropped. What cannot be written is told and left out.

    folder: of the run. start: the step it goes on from. until: the step this session ends at.
    """

    def __init__(self, folder: Path, start: int, until: int) -> None:
        self._metrics = folder / "metrics.jsonl"
        self._effort = OptionalOutput(self._metrics)
        with self._effort.attempt():
            _drop_after(self._metrics, start)
        self._events = Events(folder, start)
        self._start, self._until = start, until
        self._began = (start, time.perf_counter())
        self._bar: tuple[Progress, TaskID] | None = _bar(start, until) if progress.progress_shown() else None
        self._losses = ""

    def advance(self, step: int) -> None:
        """Moves the progress line."""
        if self._began[0] == self._start:
            # The first step, which may compile the networks, says nothing of the others.
            self._began = (step, time.perf_counter())
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, completed=step, losses=self._losses)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars, grouped by the part of their names before the slash."""
        line = json.dumps({"step": step, **{name: _json_number(value) for name, value in scalars.items()}})
        self._events.scalars(step, scalars)
        with self._effort.attempt():
            append_atomically(self._metrics, f"{line}\n".encode())
        self._losses = _main_losses(scalars)
        if self._bar is None:
            speed = scalars.get("speed/images_per_second", 0.0)
            log.info(
                f"step {step}/{self._until}  {self._time_left(step)} left  {speed:.1f} images/s  {self._losses}"
            )
        self.advance(step)

    def image(self, step: int, name: str, image: ImageArray, number: int) -> None:
        """Adds an image, RGB uint8 (h, w, 3), to TensorBoard. number: how many there were before; of many, fewer and
        fewer are added, so that the events of a long run can still be read.
        """
        if number % max(1, 2 ** (number.bit_length() - _EACH.bit_length() + 1)) == 0:
            self._events.image(step, name, image)

    def text(self, name: str, text: str) -> None:
        """Adds text to TensorBoard, shown as it is."""
        self._events.text(name, text)

    def close(self) -> None:
        """Finishes the progress line."""
        if self._bar is not None:
            self._bar[0].stop()

    def _time_left(self, step: int) -> str:
        first, since = self._began
        seconds = round((time.perf_counter() - since) / max(step - first, 1) * max(self._until - step, 0))
        hours, minutes = seconds // 3600, seconds % 3600 // 60
        return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds % 60:02d}s"


def _bar(start: int, until: int) -> "tuple[Progress, TaskID]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    bar.start()
    return bar, bar.add_task("training", total=until, completed=start, losses="")


def _main_losses(scalars: Mapping[str, float]) -> str:
    """The sum of each role's terms, "generator 2.31  discriminator 0.42"; a role is what has a learning rate."""
    roles = {name.partition("/")[2] for name in scalars if name.startswith("learning_rate/")}
    sums: dict[str, float] = {}
    for name, value in scalars.items():
        role, _, term = name.partition("/")
        if role in roles and term:
            sums[role] = sums.get(role, 0.0) + value
    return "  ".join(f"{role} {value:.3f}" for role, value in sums.items())


def _drop_after(path: Path, step: int) -> None:
    """Removes the lines of steps after `step`, and a line that a crash left unfinished."""
    if not path.is_file():
        return
    with open(path, "rb") as lines, atomic_write(path) as unfinished, open(unfinished, "wb") as kept:
        kept.writelines(line for line in lines if _is_until(line, step))


def _is_until(line: bytes, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step) and line.endswith(b"\n")
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
