"""A download that has not ended: what has arrived of it, and from where."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from gan_nst.core.errors import DataError, unwritten
from gan_nst.core.pretrained import digest
from gan_nst.images.files import replacing


@dataclass(frozen=True)
class Origin:
    """Where a file comes from. mark: by which the server tells one version from another. size: in bytes, if told."""

    address: str = ""
    mark: str = ""
    size: int | None = None


class Partial:
    """The beginning of `target`, in `NAME.part`, with its origin in `NAME.json`; both outlive the process."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.json")
        self.origin = Origin()
        self.size = self.path.stat().st_size if self.path.exists() else 0
        with suppress(OSError, ValueError, TypeError):
            self.origin = Origin(**json.loads(self._note.read_text()))

    def begin(self, origin: Origin) -> None:
        """Starts anew, with a file from there."""
        with _writing(self.path):
            self.path.write_bytes(b"")  # first: what was here must not pass for a part of the new file
            self.size, self.origin = 0, origin
            with replacing(self._note) as unfinished:
                unfinished.write_text(json.dumps(asdict(origin)))

    @contextmanager
    def adding(self) -> Iterator[Callable[[bytes], None]]:
        """Within the context, call it with what has arrived. Raises DataError when it cannot be written."""
        with open(self.path, "ab", buffering=0) as file:

            def add(piece: bytes) -> None:
                rest = memoryview(piece)
                with _writing(self.path):
                    while rest:
                        written = file.write(rest)
                        self.size += written
                        rest = rest[written:]

            yield add

    def finish(self) -> str:
        """Makes it the target, if that is not there yet; returns the target's SHA-256."""
        if not self._target.exists():
            with _writing(self.path):
                with open(self.path, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(self.path, self._target)
        self.size = 0
        return digest(self._target)

    def discard(self) -> None:
        """Removes it, and the target."""
        for path in (self.path, self._target, self._note):
            path.unlink(missing_ok=True)
        self.size, self.origin = 0, Origin()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{unwritten(path, error)}; then the same command goes on") from None
