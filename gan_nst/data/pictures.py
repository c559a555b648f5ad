"""Training pictures by index, and the file that holds them decoded."""

import logging
import os
import weakref
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gan_nst.core.errors import DataError
from gan_nst.data.index import lengths
from gan_nst.images.files import Picture

log = logging.getLogger(__name__)


class Pictures(Protocol):
    """Training pictures by index: RGB uint8 of shape (h, w, 3), at load size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Picture: ...

    def file(self, index: int) -> Path:
        """The file that a picture was read from."""


class CachedPictures:
    """Pictures from the file that holds them decoded; processes that read it share its memory, which is the system's.

    It is read, not mapped: a file cut short under a mapping kills its reader. A picture whose checksum differs from the
    one it was written with is decoded anew.

    rows: (n,) of `index.ROW`. decoded: the same pictures from the files they are of.
    """

    def __init__(self, path: Path, rows: NDArray[Any], decoded: Pictures) -> None:
        self._path, self._rows, self._decoded = path, rows, decoded
        self._warned = False
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Picture:
        row = self._rows[index]
        content = _read(self._file, int(lengths(row)), int(row["offset"]))
        if zlib.crc32(content) != row["checksum"]:
            if not self._warned:
                log.warning(
                    f"{self._path}: damaged, the picture of {self.file(index)} first; what is damaged is decoded anew "
                    "every time; delete the file and resume to have it written anew"
                )
            self._warned = True
            return self._decoded[index]
        return np.frombuffer(content, np.uint8).reshape(row["height"], row["width"], 3)

    def file(self, index: int) -> Path:
        """The file that a picture was read from."""
        return self._decoded.file(index)

    def __reduce__(self) -> tuple[object, ...]:  # a process that is no fork of this one opens the file itself
        return _reopen, (self._path, self._rows, self._decoded)


def _reopen(path: Path, rows: NDArray[Any], decoded: Pictures) -> CachedPictures:
    try:
        return CachedPictures(path, rows, decoded)
    except FileNotFoundError:
        raise DataError(f"{path}: the cache was begun anew by another run; start again") from None


def _read(file: int, length: int, offset: int) -> bytearray:
    """So many bytes from there on; fewer where the file is shorter or cannot be read."""
    content = bytearray(length)
    view, done = memoryview(content), 0
    try:
        while done < length and (count := os.preadv(file, [view[done:]], offset + done)):
            done += count
    except OSError:
        pass
    view.release()
    del content[done:]
    return content
