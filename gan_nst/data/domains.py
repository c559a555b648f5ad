"""Finds a data set's images in the layouts people have, and cuts the splits that are not given."""

import hashlib
import logging
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from gan_nst.core.errors import DataError, one_line
from gan_nst.core.options import Resize
from gan_nst.core.settings import Section
from gan_nst.images.files import LOOKED_FOR, Missed, image_names

log = logging.getLogger(__name__)


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
        """The images under a folder, sorted, as `images.image_names` finds them."""
        return cls(root, Names(image_names(root, missed)))

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


class DataSettings(Section):
    """Where the images are and how they become training crops."""

    domain: str = Field(
        "photo2cartoon", min_length=1, description="name of the folder under data.root, and of the runs"
    )
    root: Path = Field(Path("datasets"), description="folder of the data sets, and of the cache")
    a: Path | None = Field(
        None, description="folder of domain a's training images, instead of data.root/data.domain"
    )
    b: Path | None = Field(None, description="folder of domain b's training images")
    test_a: Path | None = Field(None, description="folder of domain a's test images, beside data.a")
    test_b: Path | None = Field(None, description="folder of domain b's test images, beside data.b")
    held_out: float = Field(
        0.05, ge=0, lt=0.5, description="share cut from training for a test or validation split not given"
    )
    load_size: int = Field(286, ge=8, description="shorter side, in pixels, that images are resized to")
    crop_size: int = Field(256, ge=8, description="side of the random training crop")
    resize: Resize = Field(
        "short_side",
        description="short_side keeps the aspect; squash makes a square, as published; none keeps the size",
    )
    upscale: bool = Field(False, description="accept images whose shorter side is under the crop size")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    augmentations: list[dict[str, Any]] = Field(
        [], description="further albumentations transforms: [{name: ColorJitter, p: 0.5}]"
    )
    workers: int | Literal["auto"] = Field(
        "auto", description="loader processes; auto: none on CPU, up to 4 for a GPU"
    )
    timeout: float = Field(
        300.0, ge=0, description="seconds that a batch may take, after which its images are named; 0: any"
    )
    cache: str = Field(
        "auto", description="auto: in data.root/.cache when the disk has room; never; or a folder"
    )
    skip_broken: bool = Field(False, description="leave broken images out instead of stopping")

    @field_validator("domain")
    @classmethod
    def _is_a_name(cls, domain: str) -> str:
        """Runs and data sets are written to folders that are called by it, and to none elsewhere."""
        path = PurePath(domain)
        if path.is_absolute() or ".." in path.parts or not path.name or one_line(domain) != domain:
            raise ValueError("expected a folder's name, without .. and control characters")
        return domain

    @model_validator(mode="after")
    def _fits(self) -> "DataSettings":
        if (self.a is None) != (self.b is None):
            raise ValueError("a and b go together: give both folders, or none to use data.root/data.domain")
        if (self.test_a or self.test_b) and self.a is None:
            raise ValueError("test_a and test_b go with a and b")
        if self.resize != "none" and self.crop_size > self.load_size:
            raise ValueError(
                f"crop_size: {self.crop_size} is larger than load_size, {self.load_size}; lower it or raise load_size"
            )
        if isinstance(self.workers, int) and self.workers < 0:
            raise ValueError(f"workers: expected 0 or more, got {self.workers}")
        return self


DOMAINS = ("a", "b")


@dataclass(frozen=True)
class Folder:
    """Images under one root, sorted; `names` are their paths below it, without the suffix."""

    root: Path
    files: Files
    missed: Missed = field(default_factory=Missed, compare=False)

    @property
    def names(self) -> list[str]:
        return list(self.each_name())

    def each_name(self) -> Iterator[str]:
        """The names one after the other, as a list of a million takes 100 MB."""
        return (os.path.splitext(name)[0] for name in self.files.names)


@dataclass(frozen=True)
class DataSet:
    """The folders of a data set by domain; validation and test may be empty.

    cut: of "validation" and "test" those that were cut from the training images, because none was given.
    """

    training: dict[str, Folder]
    validation: dict[str, Folder]
    test: dict[str, Folder]
    cut: frozenset[str] = frozenset()

    def pairs(self, split: Literal["validation", "test"]) -> list[tuple[Path, Path]]:
        """A split's images of the same name in both domains, when every one has its counterpart; else nothing.

        Only of a split that was given: two folders numbered alike would be cut into false pairs.
        """
        return [] if split in self.cut else pairs(self.validation if split == "validation" else self.test)


def pairs(folders: Mapping[str, Folder]) -> list[tuple[Path, Path]]:
    """The images of the same name in both domains, when every one has its counterpart; else nothing."""
    a, b = (dict(zip(folders[d].names, folders[d].files, strict=True)) for d in DOMAINS)
    return [(a[name], b[name]) for name in sorted(a)] if a.keys() == b.keys() else []


def has_images(settings: DataSettings) -> bool:
    """Whether the data set's own folder holds any image."""
    return any(image_names(settings.root / settings.domain))


def has_training(folder: Path) -> bool:
    """Whether a folder has training images in one of the layouts, of one domain at least."""
    return any(_in_layouts(folder, "train", domain) is not None for domain in DOMAINS)


def all_images(folder: Path) -> Folder:
    """Every image under a folder, whatever the layout, but for what lies in folders that cannot be searched. Raises
    DataError when there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    found = _folder(folder)
    if found is None or not found.files:
        raise DataError(_no_images(folder, found))
    return found


def locate(settings: DataSettings, base: Path | None = None, *, all_of_it: bool = True) -> DataSet:
    """The data set that the settings point to.

    base: its folder, of any name, instead of data.root/data.domain. all_of_it: else what lies in folders that cannot be
    searched may be missing, as long as any training image is found. Raises DataError when a folder is missing or has
    no images, or cannot be searched.
    """
    base = settings.root / settings.domain if base is None else base
    given = {split: _find_split(settings, base, split) for split in ("train", "val", "test")}
    there = [folder for folders in given.values() for folder in folders.values() if folder is not None]
    closed = [line for folder in there for line in folder.missed.closed]
    if closed and (all_of_it or not any(folder and folder.files for folder in given["train"].values())):
        raise DataError(closed[0])
    training = {}
    for domain in DOMAINS:
        folder = given["train"][domain]
        if folder is None:
            raise DataError(_nothing_found(base, domain))
        if not folder.files and not folder.missed.closed:
            raise DataError(_no_images(folder.root, folder))
        training[domain] = folder
    held: dict[str, dict[str, Folder]] = {}
    for number, (split, word) in enumerate((("test", "test"), ("val", "validation"))):
        held[split] = {}
        for domain in DOMAINS:
            folder = given[split][domain]
            if folder is None:
                training[domain], folder = _cut(training[domain], settings.held_out, number)
                if folder.files:
                    whole = len(training[domain].files) + len(folder.files)
                    log.info(
                        f"{training[domain].root}: no {word} split; {len(folder.files)} of {whole} images cut by name"
                    )
            held[split][domain] = folder
    cut = {word for split, word in (("val", "validation"), ("test", "test")) if None in given[split].values()}
    return DataSet(training, held["val"], held["test"], frozenset(cut))


def locate_test(folder: Path) -> dict[str, Folder]:
    """The test images of a data set's folder, by domain. Raises DataError when there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = {}
    for domain in DOMAINS:
        given = _in_layouts(folder, "test", domain)
        if given is not None and given.missed.closed:
            raise DataError(given.missed.closed[0])
        if given is None or not given.files:
            looked = ", ".join(layouts("test", domain))
            raise DataError(f"{folder}: no test images of domain {domain} (looked for {looked})")
        found[domain] = given
    return found


def layouts(split: str, domain: str) -> tuple[str, ...]:
    """Where a split's images of a domain may lie below a data set's folder; the first that exists counts."""
    letter = domain.upper()
    return f"{split}{letter}", f"{split}/{letter}", f"{split}/{domain}", f"{split}_{letter}"


def fingerprint(data_set: DataSet) -> str:
    """Changes when the training images' names change; the same data at another path has the same."""
    digest = hashlib.sha256()
    for domain in DOMAINS:
        digest.update(domain.encode())
        for name in data_set.training[domain].each_name():
            digest.update(f"\n{name}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _find_split(settings: DataSettings, base: Path, split: str) -> dict[str, Folder | None]:
    if settings.a is not None and settings.b is not None:
        own = {"train": (settings.a, settings.b), "test": (settings.test_a, settings.test_b)}.get(
            split, (None, None)
        )
        folders = {}
        for domain, path in zip(DOMAINS, own, strict=True):
            folders[domain] = None if path is None else _folder(path)
            if path is not None and folders[domain] is None:
                name = domain if split == "train" else f"test_{domain}"
                raise DataError(f"{path}: no such folder (data.{name})")
        return folders
    return {domain: _in_layouts(base, split, domain) for domain in DOMAINS}


def _in_layouts(base: Path, split: str, domain: str) -> Folder | None:
    found = (_folder(base / place) for place in layouts(split, domain))
    return next((folder for folder in found if folder is not None), None)


def _folder(path: Path) -> Folder | None:
    """What can be found in a folder, if there is one."""
    with suppress(OSError):  # where that cannot be told, it cannot be searched either
        if not path.is_dir():
            return None
    missed = Missed()
    return Folder(path, Files.found(path, missed), missed)


def _no_images(folder: Path, found: Folder | None) -> str:
    closed = [] if found is None else found.missed.closed
    return closed[0] if closed else f"{folder}: no images (looked for {LOOKED_FOR})"


def _nothing_found(base: Path, domain: str) -> str:
    missing = (
        f"{base}: no such folder" if not base.is_dir() else f"{base}: no training images of domain {domain}"
    )
    return f"{missing}; put images into {base / 'trainA'} and {base / 'trainB'}, or give data.a=FOLDER data.b=FOLDER"


def _cut(folder: Folder, share: float, number: int) -> tuple[Folder, Folder]:
    """Parts a folder by the hash of each name, so that adding images moves none from one part to the other."""
    places = np.fromiter((_place(number, name) for name in folder.each_name()), np.float64, len(folder.files))
    cut = places < share
    if cut.all():  # of very few images the last stays for training
        cut = ~cut
    kept = Folder(folder.root, folder.files.select(~cut), folder.missed)
    return kept, Folder(folder.root, folder.files.select(cut))


def _place(number: int, name: str) -> float:
    """Where a name's hash lies between 0 and 1."""
    digest = hashlib.sha256(f"{number}/{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8]) / 2**64
