"""Names and paths by the million in little memory."""

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from gan_nst.images.files import Missed, picture_names


class Names(Sequence[str]):
    """Texts in one piece of memory, which take 16 bytes each beside their letters; a `str` is made when one is taken.

    A list of a million paths takes 300 MB, and every loader process comes to hold a copy of it. Texts may hold bytes
    of file names that are no text, as Python reads them. `select` shares the letters.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        letters, ends = bytearray(), array("q")
        for text in texts:
            letters += _bytes(text)
            ends.append(len(letters))
        self._set(bytes(letters), np.array(ends, np.int64))

    @classmethod
    def of_letters(cls, letters: bytes, ends: NDArray[np.int64]) -> "Names":
        """Texts that follow each other in `letters`, each up to its end (n,). Raises ValueError for ends that do not
        rise to the letters' end.
        """
        if np.diff(ends, prepend=0).min(initial=0) < 0 or ends[-1:].sum() != len(letters):
            raise ValueError("the ends do not fit the letters")
        names = cls.__new__(cls)
        names._set(letters, ends)
        return names

    def _set(self, letters: bytes, ends: NDArray[np.int64]) -> None:
        self._letters, self._ends = letters, ends
        self._starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Names": ...
    def __getitem__(self, index: int | slice) -> "str | Names":
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return self._letters[self._starts[index] : self._ends[index]].decode(errors="surrogateescape")

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Names) and len(self) == len(other)
        return same and all(mine == theirs for mine, theirs in zip(self, other, strict=True))  # type: ignore[call-overload]

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Names":
        """Some of the texts, by a mask or by their indices."""
        names = Names.__new__(Names)
        names._letters, names._starts, names._ends = self._letters, self._starts[which], self._ends[which]
        return names

    def joined(self) -> tuple[bytes, NDArray[np.int64]]:
        """What `of_letters` takes."""
        letters = b"".join(map(_bytes, self))
        return letters, np.cumsum(self._ends - self._starts)

    def find(self, others: "Names") -> NDArray[np.int64]:
        """The index here of each of the others (m,); -1 where it is not here."""
        mine, theirs = (np.fromiter(map(hash, names), np.int64, len(names)) for names in (self, others))
        if not len(self):
            return np.full(len(others), -1)
        order = np.argsort(mine, kind="stable")
        places = order[np.minimum(np.searchsorted(mine, theirs, sorter=order), len(order) - 1)]
        same = (self[place] == other for place, other in zip(places, others, strict=True))
        return np.where(np.fromiter(same, bool, len(others)), places, -1)


class Files(Sequence[Path]):
    """The paths of files below one folder, by their `names`; a Path is made when one is taken."""

    def __init__(self, root: Path, names: Names) -> None:
        self.root = root
        self.names = names

    @classmethod
    def found(cls, root: Path, missed: Missed | None = None) -> "Files":
        """The pictures under a folder, sorted, as `images.picture_names` finds them."""
        return cls(root, Names(picture_names(root, missed)))

    @classmethod
    def of(cls, root: Path, files: Iterable[Path]) -> "Files":
        """Files that are known already."""
        return cls(root, Names(file.relative_to(root).as_posix() for file in files))

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "Files": ...
    def __getitem__(self, index: int | slice) -> "Path | Files":
        if isinstance(index, slice):
            return Files(self.root, self.names[index])
        return Path(self.root, self.names[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Files) and self.root == other.root and self.names == other.names

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Files":
        """Some of the files, by a mask or by their indices."""
        return Files(self.root, self.names.select(which))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
