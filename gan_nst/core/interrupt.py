"""SIGINT and SIGTERM: the step is finished and saved first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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
