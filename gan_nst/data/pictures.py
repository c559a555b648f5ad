"""Training pictures by index, and the memory-mapped file that holds them decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gan_nst.errors import DataError
from gan_nst.images import Picture


class Pictures(Protocol):
    """Training pictures by index: RGB uint8 of shape (h, w, 3), at load size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Picture: ...


@dataclass(frozen=True)
class Entry:
    """One file as it was when decoded: its size and time tell a change; `side` is its shorter side before
    resizing. A file that could not be decoded has a `problem` and no pixels.
    """

    path: str
    bytes: int
    time: int
    side: int
    offset: int
    height: int
    width: int
    problem: str | None = None

    @property
    def length(self) -> int:
        return self.height * self.width * 3

    def lies_in(self, size: int) -> bool:
        """Whether a data file of `size` bytes can hold this: an index may have been written by anybody."""
        numbers = (self.bytes, self.time, self.side, self.offset, self.height, self.width)
        if not isinstance(self.path, str) or any(type(number) is not int for number in numbers):
            return False
        if self.problem is not None:
            return isinstance(self.problem, str) and self.length == 0
        return min(self.side, self.height, self.width) > 0 <= self.offset <= size - self.length


class CachedPictures:
    """Pictures from the memory-mapped file; processes that read it share its memory."""

    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        self._path = path
        self._places = np.array([(e.offset, e.height, e.width) for e in entries], np.int64).reshape(-1, 3)
        self._data = np.memmap(path, np.uint8, "r") if len(entries) else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Picture:
        offset, height, width = self._places[index].tolist()
        return np.array(self._data[offset : offset + height * width * 3]).reshape(height, width, 3)

    def __reduce__(self) -> tuple[object, ...]:  # a process that does not share memory maps the file itself
        return _reopen, (self._path, self._places)


def _reopen(path: Path, places: np.ndarray) -> CachedPictures:
    if not path.exists():
        raise DataError(f"{path}: the cache was rebuilt by another run; start again")
    return CachedPictures(path, [Entry("", 0, 0, 0, *place) for place in places.tolist()])
