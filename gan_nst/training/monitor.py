"""What a run reports while it trains: metrics.jsonl, TensorBoard events, and a progress line."""

import io
import json
import logging
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_nst.core.errors import format_duration
from gan_nst.core.files import OptionalOutput, append_atomically, atomic_write
from gan_nst.core.terminal import progress_shown
from gan_nst.images.arrays import ImageArray

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger(__name__)

_ALL_UP_TO = 64  # the first ones are all selected, after them half as many of every doubling


class Monitor:
    """Writes a run's metrics into its folder and shows its progress.

    `metrics.jsonl` and TensorBoard get the same scalars. A resumed run continues both: what was written after its
    checkpoint is dropped. What cannot be written is skipped with a warning.

    Not torch's SummaryWriter: that one writes in a thread, which a full disk ends without a word to the training.

    folder: the run's. start: the step it resumes from. until: the last step of this session.
    """

    def __init__(self, folder: Path, start: int, until: int) -> None:
        from torch.utils.tensorboard import summary  # takes a second

        self._summary = summary
        self._events = (
            folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        )
        self._events_output = OptionalOutput(self._events)
        self._begun = False
        self._metrics = folder / "metrics.jsonl"
        self._metrics_output = OptionalOutput(self._metrics)
        with self._metrics_output.attempt():
            _drop_after(self._metrics, start)
        self._start, self._until = start, until
        self._timed_from = (start, time.perf_counter())
        self._bar: tuple[Progress, TaskID] | None = _bar(start, until) if progress_shown() else None
        self._losses = ""

    def advance(self, step: int) -> None:
        """Moves the progress line."""
        if self._timed_from[0] == self._start:  # the first step may compile the networks: it is not typical
            self._timed_from = (step, time.perf_counter())
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, completed=step, losses=self._losses)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes scalars, which the part of their names before the slash groups."""
        line = json.dumps({"step": step, **{name: _json_number(value) for name, value in scalars.items()}})
        self._add(step, [self._summary.scalar(name, value) for name, value in scalars.items()])
        with self._metrics_output.attempt():
            append_atomically(self._metrics, f"{line}\n".encode())
        self._losses = _sums_by_role(scalars)
        if self._bar is None:
            first, since = self._timed_from
            left = (time.perf_counter() - since) / max(step - first, 1) * max(self._until - step, 0)
            speed = scalars.get("speed/images_per_second", 0.0)
            log.info(
                f"step {step}/{self._until}  {format_duration(round(left))} left  {speed:.1f} images/s  {self._losses}"
            )
        self.advance(step)

    def image(self, step: int, name: str, image: ImageArray) -> None:
        """Adds an image, RGB uint8 (h, w, 3), to TensorBoard."""
        self._add(step, [self._summary.image(name, image, dataformats="HWC")])

    def text(self, name: str, text: str) -> None:
        """Adds preformatted text to TensorBoard."""
        self._add(0, [self._summary.text(name, "    " + text.replace("\n", "\n    "))])

    def close(self) -> None:
        """Ends the progress line."""
        if self._bar is not None:
            self._bar[0].stop()

    def _add(self, step: int, summaries: Sequence[Any]) -> None:
        """Writes TensorBoard events; TensorBoard drops earlier files' events of steps after the start."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        now, events = time.time(), []
        if not self._begun:
            events.append(Event(wall_time=now, file_version="brain.Event:2"))
            if self._start:
                restart = SessionLog(status=SessionLog.START)
                events.append(Event(wall_time=now, step=self._start + 1, session_log=restart))
        events += [Event(wall_time=now, step=step, summary=summary) for summary in summaries]
        content = io.BytesIO()
        writer = RecordWriter(content)
        for event in events:
            writer.write(event.SerializeToString())
        with self._events_output.attempt():
            append_atomically(self._events, content.getvalue())
            self._begun = True


def is_selected(number: int) -> bool:
    """Whether to include that one of many repeated outputs, counted from 0, so that reading all of them is quick."""
    return number % (1 << max(0, number.bit_length() - _ALL_UP_TO.bit_length() + 1)) == 0


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


def _sums_by_role(scalars: Mapping[str, float]) -> str:
    """Returns the sum of each role's terms, "generator 2.31  discriminator 0.42". Roles have a learning rate."""
    roles = {name.partition("/")[2] for name in scalars if name.startswith("learning_rate/")}
    sums: dict[str, float] = {}
    for name, value in scalars.items():
        role, _, term = name.partition("/")
        if role in roles and term:
            sums[role] = sums.get(role, 0.0) + value
    return "  ".join(f"{role} {value:.3f}" for role, value in sums.items())


def _drop_after(path: Path, step: int) -> None:
    """Removes the lines of later steps, and a line that a crash left incomplete."""
    if not path.is_file():
        return
    with open(path, "rb") as lines, atomic_write(path) as temporary, open(temporary, "wb") as kept:
        kept.writelines(line for line in lines if _is_until(line, step))


def _is_until(line: bytes, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step) and line.endswith(b"\n")
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
