"""What a training can do without: it goes on when that cannot be written, and says so."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gan_nst.core.errors import DataError, unwritten

log = logging.getLogger(__name__)


class BestEffort:
    """Writing one thing, a grid or the metrics, again and again; a failure is told once, and so is its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.failing = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Within the context a failing write, a full disk above all, becomes a warning."""
        try:
            yield
        except (OSError, DataError) as error:
            if not self.failing:
                told = str(error) if isinstance(error, DataError) else unwritten(self._path, error)
                log.warning(f"{told}; the training goes on without it")
            self.failing = True
        else:
            if self.failing:
                log.info(f"{self._path}: can be written again")
            self.failing = False


def append_whole(path: Path, content: bytes) -> None:
    """Adds to a file, whole or not at all, so that what is added next continues nothing torn. Raises OSError."""
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise
