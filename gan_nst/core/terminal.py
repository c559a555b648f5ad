"""Terminal input and output: log messages, progress bars, and the signals that stop a run."""

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

T = TypeVar("T")


class _Output(logging.StreamHandler[TextIO]):
    """Standard output. The work continues when its reader has gone (`| head`)."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            logging.getLogger("gan_nst").removeHandler(self)
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it when it exits)
        else:
            super().handleError(record)


class _OneLine(logging.Formatter):
    """Escapes everything that would move the cursor, line breaks included."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return one_line(super().formatMessage(record))


class _Lines(logging.Formatter):
    """Keeps the lines of tables and escapes the rest."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return "\n".join(map(one_line, super().formatMessage(record).split("\n")))


def configure_logging(quiet: bool) -> None:
    """Sends progress to standard output as it is, warnings and errors to standard error with their level."""
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


_enabled = False
_active = False


def show_progress(enabled: bool = True) -> None:
    """Switches progress bars on or off for this process. The command line switches them on."""
    global _enabled
    _enabled = enabled


def progress_shown() -> bool:
    """Whether progress bars are on and there is a terminal to draw them on."""
    return _enabled and sys.stderr.isatty()


def track(items: Sequence[T], description: str) -> Iterator[T]:
    """Yields the items, with a progress bar on standard error if bars are shown."""
    with progress_bar(description) as report:
        for number, item in enumerate(items, 1):
            yield item
            if report is not None:
                report(number / len(items))


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[float], None] | None]:
    """Shows a bar with the time left on standard error. Yields a function to call with the share done, 0 to 1, or
    None if bars are disabled or another one is active.
    """
    global _active
    if not progress_shown() or _active:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    _active = True
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(_escaped(description), total=1.0)

            def report(share: float) -> None:
                progress.update(task, completed=share)

            yield report
    finally:
        _active = False


def _escaped(description: str) -> str:
    """Returns the description without what rich or the terminal would interpret."""
    from rich.markup import escape

    return str(escape(one_line(description)))


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Yields a list, to which the first SIGINT or SIGTERM within the context is added; a second one acts as usual."""
    received: list[int] = []
    # Python delivers signals to the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    for number in previous:
        signal.signal(number, remember)
    try:
        yield received
    finally:
        restore()
