"""Files written whole or not at all, and what a training can do without when a disk is full."""

import contextlib
import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gan_nst.core.errors import CheckpointError, DataError, SettingsError, unwritten

log = logging.getLogger(__name__)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write into, which takes its place at the end of the context, or is removed when
    something goes wrong. Folders are made. A failure becomes a DataError, one line with the system's reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            yield unfinished
    except DataError:
        raise
    except Exception as error:
        raise DataError(unwritten(path, error)) from None


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A hidden file beside `path`, which takes its place at the end of the context, or is removed when anything, Ctrl-C
    too, goes wrong. sync: only once it is on the disk. Raises whatever went wrong.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.unlink(missing_ok=True)  # a link there could lead anywhere
        yield unfinished
        if sync:
            with open(unfinished, "rb") as file:
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


class BestEffort:
    """Writing one thing, a grid or the metrics, again and again; a failure is told once, and so is its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.failing = False

    @contextlib.contextmanager
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
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def refuse_unwritable(json: Path | str | None) -> None:
    """Raises SettingsError where a file cannot be written, before a command works for it."""
    if json is None:
        return
    path = Path(json)
    try:
        if not path.absolute().parent.is_dir():
            raise SettingsError(f"{json}: no such folder to write it into")
        if path.exists() and not path.is_file():  # a device would be replaced
            raise SettingsError(f"{json}: not a file (- is standard output)")
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise SettingsError(unwritten(path, error)) from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, in place of what was there. Raises CheckpointError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise CheckpointError(unwritten(path, error)) from None
