"""TensorBoard's events of a run, as far as they can be written.

torch's SummaryWriter writes in a thread of its own, which a full disk ends with a traceback and for good. Here every
record is appended when it is made, whole or not at all.
"""

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_nst.core.best_effort import BestEffort, append_whole
from gan_nst.images.files import Picture


class Events:
    """Writes events into a run's folder; where it cannot, it says so once and leaves them out.

    start: the step the run goes on from; events of later steps, from before it was stopped, are dropped.
    """

    def __init__(self, folder: Path, start: int) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = folder / name
        self._start = start
        self._begun = False
        self._effort = BestEffort(self._file)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers, grouped by the part of their names before the slash."""
        from torch.utils.tensorboard.summary import scalar

        self._add(step, [scalar(name, value) for name, value in values.items()])

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Adds a picture, RGB uint8 (h, w, 3)."""
        from torch.utils.tensorboard.summary import image

        self._add(step, [image(name, picture, dataformats="HWC")])

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
            append_whole(self._file, content.getvalue())
            self._begun = True

    def _beginning(self) -> list[Any]:
        """What a file of events begins with, and what drops those of later steps in earlier files."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        begins = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if self._start:
            log = SessionLog(status=SessionLog.START)
            begins.append(Event(wall_time=time.time(), step=self._start + 1, session_log=log))
        return begins
