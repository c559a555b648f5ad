"""SIGINT and SIGTERM: the step is finished and saved first."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TextIO, TypeVar

from gan_nst.core.errors import one_line


class _Output(logging.StreamHandler[TextIO]):
    """Standard output, until its reader has gone (`| head`); the work goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            logging.getLogger("gan_nst").removeHandler(self)
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it when it exits)
        else:
            super().handleError(record)


class _OneLine(logging.Formatter):
    """One message, one line, whatever the file names in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return one_line(super().formatMessage(record))


class _Lines(logging.Formatter):
    """Messages of one line or of a table's lines, with nothing that would move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return "\n".join(map(one_line, super().formatMessage(record).split("\n")))


def configure_logging(quiet: bool) -> None:
    """Progress goes to standard output as it is; warnings and errors to standard error, named."""
    out, err = _Output(sys.stdout), logging.StreamHandler(sys.stderr)
    out.addFilter(lambda record: record.levelno < logging.WARNING)
    out.setFormatter(_Lines())
    err.setLevel(logging.WARNING)
    err.setFormatter(_OneLine("%(levelname)s: %(message)s"))
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    root = logging.getLogger("gan_nst")
    root.handlers = [out, err]
    root.setLevel(logging.WARNING if quiet else logging.INFO)


T = TypeVar("T")

_shown = False
_drawn = False


def show_progress(shown: bool = True) -> None:
    """Switches progress bars on or off for this process; the command line switches them on."""
    global _shown
    _shown = shown


def progress_shown() -> bool:
    """Whether bars are wanted and there is a terminal to draw them on."""
    return _shown and sys.stderr.isatty()


def track(items: Sequence[T], description: str) -> Iterator[T]:
    """Yields the items, drawing a bar on standard error where one is wanted."""
    if not progress_shown():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(
        items, description=_shown_as(description), console=Console(stderr=True), transient=True
    )


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[float], None] | None]:
    """A bar on standard error, where one is wanted: within the context, call it with the share that is done, 0 to 1.

    It says the time left. Within another one there is none.
    """
    global _drawn
    if not progress_shown() or _drawn:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    _drawn = True
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(_shown_as(description), total=1.0)

            def report(share: float) -> None:
                progress.update(task, completed=share)

            yield report
    finally:
        _drawn = False


def _shown_as(description: str) -> str:
    """The description without what rich, or the terminal, would take for more than text."""
    from rich.markup import escape

    return str(escape(one_line(description)))


class StopRequest:
    """Remembers that somebody asked the run to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the context the first SIGINT or SIGTERM is remembered; a second one acts as usual."""
    request = StopRequest()
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python delivers signals to the main thread alone
        yield request
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def remember(number: int, frame: FrameType | None) -> None:
        request.signal = number
        restore()

    for number in previous:
        signal.signal(number, remember)
    try:
        yield request
    finally:
        restore()
