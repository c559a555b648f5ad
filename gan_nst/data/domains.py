"""Finds a data set's pictures in the layouts people have, and cuts the splits that are not given."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from gan_nst.core.errors import DataError
from gan_nst.data.files import Files
from gan_nst.data.settings import DataSettings
from gan_nst.images.files import LOOKED_FOR, Missed, picture_names

log = logging.getLogger(__name__)

DOMAINS = ("a", "b")


@dataclass(frozen=True)
class Folder:
    """Pictures under one root, sorted; `names` are their paths below it, without the suffix."""

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

    cut: of "validation" and "test" those that were cut from the training pictures, because none was given.
    """

    training: dict[str, Folder]
    validation: dict[str, Folder]
    test: dict[str, Folder]
    cut: frozenset[str] = frozenset()

    def pairs(self, split: Literal["validation", "test"]) -> list[tuple[Path, Path]]:
        """A split's pictures of the same name in both domains, when every one has its counterpart; else nothing.

        Only of a split that was given: two folders numbered alike would be cut into false pairs.
        """
        return [] if split in self.cut else pairs(self.validation if split == "validation" else self.test)


def pairs(folders: Mapping[str, Folder]) -> list[tuple[Path, Path]]:
    """The pictures of the same name in both domains, when every one has its counterpart; else nothing."""
    a, b = (dict(zip(folders[d].names, folders[d].files, strict=True)) for d in DOMAINS)
    return [(a[name], b[name]) for name in sorted(a)] if a.keys() == b.keys() else []


def has_pictures(settings: DataSettings) -> bool:
    """Whether the data set's own folder holds any picture."""
    return any(picture_names(settings.root / settings.domain))


def has_training(folder: Path) -> bool:
    """Whether a folder has training pictures in one of the layouts, of one domain at least."""
    return any(_in_layouts(folder, "train", domain) is not None for domain in DOMAINS)


def all_pictures(folder: Path) -> Folder:
    """Every picture under a folder, whatever the layout, but for what lies in folders that cannot be searched. Raises
    DataError when there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    found = _folder(folder)
    if found is None or not found.files:
        raise DataError(_no_pictures(folder, found))
    return found


def locate(settings: DataSettings, base: Path | None = None, *, all_of_it: bool = True) -> DataSet:
    """The data set that the settings point to.

    base: its folder, of any name, instead of data.root/data.domain. all_of_it: else what lies in folders that cannot be
    searched may be missing, as long as any training picture is found. Raises DataError when a folder is missing or has
    no pictures, or cannot be searched.
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
            raise DataError(_no_pictures(folder.root, folder))
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
                        f"{training[domain].root}: no {word} split; {len(folder.files)} of {whole} pictures cut by name"
                    )
            held[split][domain] = folder
    cut = {word for split, word in (("val", "validation"), ("test", "test")) if None in given[split].values()}
    return DataSet(training, held["val"], held["test"], frozenset(cut))


def locate_test(folder: Path) -> dict[str, Folder]:
    """The test pictures of a data set's folder, by domain. Raises DataError when there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = {}
    for domain in DOMAINS:
        given = _in_layouts(folder, "test", domain)
        if given is not None and given.missed.closed:
            raise DataError(given.missed.closed[0])
        if given is None or not given.files:
            looked = ", ".join(layouts("test", domain))
            raise DataError(f"{folder}: no test pictures of domain {domain} (looked for {looked})")
        found[domain] = given
    return found


def layouts(split: str, domain: str) -> tuple[str, ...]:
    """Where a split's pictures of a domain may lie below a data set's folder; the first that exists counts."""
    letter = domain.upper()
    return f"{split}{letter}", f"{split}/{letter}", f"{split}/{domain}", f"{split}_{letter}"


def fingerprint(data_set: DataSet) -> str:
    """Changes when the training pictures' names change; the same data at another path has the same."""
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


def _no_pictures(folder: Path, found: Folder | None) -> str:
    closed = [] if found is None else found.missed.closed
    return closed[0] if closed else f"{folder}: no pictures (looked for {LOOKED_FOR})"


def _nothing_found(base: Path, domain: str) -> str:
    missing = (
        f"{base}: no such folder" if not base.is_dir() else f"{base}: no training pictures of domain {domain}"
    )
    return f"{missing}; put pictures into {base / 'trainA'} and {base / 'trainB'}, or give data.a=FOLDER data.b=FOLDER"


def _cut(folder: Folder, share: float, number: int) -> tuple[Folder, Folder]:
    """Parts a folder by the hash of each name, so that adding pictures moves none from one part to the other."""
    places = np.fromiter((_place(number, name) for name in folder.each_name()), np.float64, len(folder.files))
    cut = places < share
    if cut.all():  # of very few pictures the last stays for training
        cut = ~cut
    kept = Folder(folder.root, folder.files.select(~cut), folder.missed)
    return kept, Folder(folder.root, folder.files.select(cut))


def _place(number: int, name: str) -> float:
    """Where a name's hash lies between 0 and 1."""
    digest = hashlib.sha256(f"{number}/{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8]) / 2**64
