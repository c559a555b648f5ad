"""Files that are written completely or not at all, and output that training can do without on a full disk."""

import contextlib
import errno
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

from gan_nst.core.errors import DataError, SettingsError, cannot_write, writing

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part", re.DOTALL)


def temporary_path(path: Path) -> Path:
    """A hidden name next to `path`, different at every call."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def remove_temporaries(folder: Path, names: Container[str] | None = None) -> None:
    """Removes temporary files that killed processes left in a folder.

    names: only temporary files of files with these names.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            match = _TEMPORARY.fullmatch(path.name)
            if match and (names is None or match["name"] in names):
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def atomic_write(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` when the context ends.

    If anything goes wrong, Ctrl-C included, the temporary file is removed and the error is raised. Processes that
    write the same file at the same time do not disturb each other: the last one wins.

    sync: flush the file to the disk before it is renamed.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """`atomic_write` for a user's output: makes the folder, and raises DataError for every failure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            yield temporary
    except DataError:
        raise
    except Exception as error:
        raise DataError(cannot_write(path, error)) from None


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file atomically and makes its folder. Raises CheckpointError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def append_atomically(path: Path, content: bytes) -> None:
    """Appends all of `content` to a file, or nothing of it, so that no torn record precedes the next one.

    Raises OSError.
    """
    with open(path, "ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise


class OptionalOutput:
    """An output that is written repeatedly and that training can do without: sample grids, metrics."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.failing = False

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Turns a failing write within the context into a warning: only the first of several in a row."""
        try:
            yield
        except (OSError, DataError) as error:
            if not self.failing:
                message = str(error) if isinstance(error, DataError) else cannot_write(self._path, error)
                log.warning(f"{message}; training continues without it")
            self.failing = True
        else:
            if self.failing:
                log.info(f"{self._path}: can be written again")
            self.failing = False


def check_writable(file: Path | str | None) -> None:
    """Raises SettingsError if a file cannot be written, before a command spends time on its content."""
    if file is None:
        return
    path = Path(file)
    try:
        if not path.absolute().parent.is_dir():
            raise SettingsError(f"{file}: its folder does not exist; create it first")
        if path.exists() and not path.is_file():  # a device would be replaced
            raise SettingsError(f"{file}: not a regular file (- is standard output)")
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise SettingsError(cannot_write(path, error)) from None
