"""Finds a data set's pictures in the layouts people have, and cuts the splits that are not given."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gan_nst.data.settings import DataSettings
from gan_nst.errors import DataError
from gan_nst.images import LOOKED_FOR, find_pictures

log = logging.getLogger(__name__)

DOMAINS = ("a", "b")


@dataclass(frozen=True)
class Folder:
    """Pictures under one root, sorted; `names` are their paths below it, without the suffix."""

    root: Path
    files: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        return [file.relative_to(self.root).with_suffix("").as_posix() for file in self.files]


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
    return bool(find_pictures(settings.root / settings.domain))


def has_training(folder: Path) -> bool:
    """Whether a folder has training pictures in one of the layouts, of one domain at least."""
    return any(_in_layouts(folder, "train", domain) is not None for domain in DOMAINS)


def all_pictures(folder: Path) -> Folder:
    """Every picture under a folder, whatever the layout. Raises DataError when there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = _folder(folder)
    if found is None or not found.files:
        raise DataError(f"{folder}: no pictures (looked for {LOOKED_FOR})")
    return found


def locate(settings: DataSettings) -> DataSet:
    """The data set that the settings point to.

    Raises DataError when a folder is missing or has no pictures.
    """
    given = {split: _find_split(settings, split) for split in ("train", "val", "test")}
    training = {}
    for domain in DOMAINS:
        folder = given["train"][domain]
        if folder is None:
            raise DataError(_nothing_found(settings, domain))
        if not folder.files:
            raise DataError(f"{folder.root}: no pictures (looked for {LOOKED_FOR})")
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
        if given is None or not given.files:
            letter = domain.upper()
            layouts = f"test{letter}, test/{letter}, test/{domain}, test_{letter}"
            raise DataError(f"{folder}: no test pictures of domain {domain} (looked for {layouts})")
        found[domain] = given
    return found


def fingerprint(data_set: DataSet) -> str:
    """Changes when the training pictures' names change; the same data at another path has the same."""
    digest = hashlib.sha256()
    for domain in DOMAINS:
        digest.update("\n".join([domain, *data_set.training[domain].names]).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _find_split(settings: DataSettings, split: str) -> dict[str, Folder | None]:
    if settings.a is not None and settings.b is not None:
        own = {"train": (settings.a, settings.b), "test": (settings.test_a, settings.test_b)}.get(
            split, (None, None)
        )
        for domain, path in zip(DOMAINS, own, strict=True):
            if path is not None and not path.is_dir():
                name = domain if split == "train" else f"test_{domain}"
                raise DataError(f"{path}: no such folder (data.{name})")
        return {domain: _folder(path) for domain, path in zip(DOMAINS, own, strict=True)}
    return {domain: _in_layouts(settings.root / settings.domain, split, domain) for domain in DOMAINS}


def _in_layouts(base: Path, split: str, domain: str) -> Folder | None:
    letter = domain.upper()
    layouts = [
        base / f"{split}{letter}",
        base / split / letter,
        base / split / domain,
        base / f"{split}_{letter}",
    ]
    return _folder(next((path for path in layouts if path.is_dir()), None))


def _folder(path: Path | None) -> Folder | None:
    return None if path is None else Folder(path, tuple(find_pictures(path)))


def _nothing_found(settings: DataSettings, domain: str) -> str:
    base = settings.root / settings.domain
    missing = (
        f"{base}: no such folder" if not base.is_dir() else f"{base}: no training pictures of domain {domain}"
    )
    return f"{missing}; put pictures into {base / 'trainA'} and {base / 'trainB'}, or give data.a=FOLDER data.b=FOLDER"


def _cut(folder: Folder, share: float, number: int) -> tuple[Folder, Folder]:
    """Parts a folder by the hash of each name, so that adding pictures moves none from one part to the other."""
    kept: list[Path] = []
    cut: list[Path] = []
    for file, name in zip(folder.files, folder.names, strict=True):
        place = (
            int.from_bytes(hashlib.sha256(f"{number}/{name}".encode(errors="surrogateescape")).digest()[:8])
            / 2**64
        )
        (cut if place < share else kept).append(file)
    if not kept:  # of very few pictures the last stays for training
        kept, cut = cut, kept
    return Folder(folder.root, tuple(kept)), Folder(folder.root, tuple(cut))
