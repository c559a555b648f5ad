"""Finds a data set's images in the layouts people have, and holds out the splits that are not given."""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gan_nst.core.errors import DataError, one_line
from gan_nst.core.options import Resize
from gan_nst.core.settings import Section
from gan_nst.images.files import LOOKED_FOR, Missed, image_names

log = logging.getLogger(__name__)


class DataSettings(Section):
    """Where the images are and how they become training crops."""

    domain: str = Field(
        "photo2cartoon",
        min_length=1,
        description="the data set's folder under data.root, and the runs' folder",
    )
    root: Path = Field(Path("datasets"), description="folder of the data sets and the cache")
    a: Path | None = Field(
        None, description="folder of domain a's training images, instead of data.root/data.domain"
    )
    b: Path | None = Field(None, description="folder of domain b's training images")
    test_a: Path | None = Field(None, description="folder of domain a's test images, with data.a")
    test_b: Path | None = Field(None, description="folder of domain b's test images, with data.b")
    held_out: float = Field(
        0.05,
        ge=0,
        lt=0.5,
        description="share of training images held out for each missing test or validation split",
    )
    load_size: int = Field(286, ge=8, description="shorter side, in pixels, to which images are resized")
    crop_size: int = Field(256, ge=8, description="side of the random training crop")
    resize: Resize = Field(
        "short_side",
        description="short_side keeps the aspect; squash makes a square, as published; none keeps the size",
    )
    upscale: bool = Field(False, description="accept images whose shorter side is under the crop size")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    augmentations: list[dict[str, Any]] = Field(
        [], description="more albumentations transforms: [{name: ColorJitter, p: 0.5}]"
    )
    workers: int | Literal["auto"] = Field(
        "auto", description="loader processes; auto: none on CPU, up to 4 for a GPU"
    )
    timeout: float = Field(
        300.0,
        ge=0,
        description="seconds to wait for the loader processes before their images are reported; 0: no limit",
    )
    cache: str = Field(
        "auto",
        description="cache of decoded images: auto (data.root/.cache if the disk has room), never, or a folder",
    )
    skip_broken: bool = Field(False, description="skip broken images instead of stopping")

    @field_validator("domain")
    @classmethod
    def _check_name(cls, domain: str) -> str:
        """Data sets and runs are written to folders of this name, which must not lead outside."""
        path = PurePath(domain)
        if path.is_absolute() or ".." in path.parts or not path.name or one_line(domain) != domain:
            raise ValueError("expected a folder name without .. or control characters")
        return domain

    @model_validator(mode="after")
    def _check_combination(self) -> "DataSettings":
        if (self.a is None) != (self.b is None):
            raise ValueError(
                "a and b go together: give both folders, or neither to use data.root/data.domain"
            )
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
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Folder:
    """Images under one root, sorted. paths: below the root, with / between folders."""

    root: Path
    paths: tuple[str, ...]
    missed: Missed = field(default_factory=Missed, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """The images' paths including the root."""
        return tuple(Path(self.root, path) for path in self.paths)

    @property
    def names(self) -> list[str]:
        """The paths below the root without their suffix: what the two images of a pair have in common."""
        return [os.path.splitext(path)[0] for path in self.paths]

    def select(self, wanted: Iterable[bool]) -> "Folder":
        """The folder with only those images for which `wanted` is true."""
        return replace(self, paths=tuple(compress(self.paths, wanted)))


@dataclass(frozen=True)
class DataSet:
    """The folders of a data set by domain; validation and test may be empty.

    held_out: those of "validation" and "test" that were taken from the training images, because none was given.
    """

    training: dict[str, Folder]
    validation: dict[str, Folder]
    test: dict[str, Folder]
    held_out: frozenset[str] = frozenset()

    def pairs(self, split: Literal["validation", "test"]) -> list[tuple[Path, Path]]:
        """A split's images of the same name in both domains if every image has a counterpart, otherwise nothing.

        A split held out from training has no pairs: two folders with the same numbering would give false ones.
        """
        return (
            [] if split in self.held_out else pairs(self.validation if split == "validation" else self.test)
        )


@dataclass(frozen=True)
class Stream:
    """One input of a method, as plain data.

    domain: "a" or "b".
    view: "image" for the image itself, else a view of it: "smoothed", for example.
    tied_to: the batch key of a stream whose image, crop and flip it shares.
    """

    domain: str
    view: str = "image"
    tied_to: str | None = None


def pairs(folders: Mapping[str, Folder]) -> list[tuple[Path, Path]]:
    """The images of the same name in both domains if every image has a counterpart, otherwise nothing."""
    a, b = (dict(zip(folders[d].names, folders[d].files, strict=True)) for d in DOMAINS)
    return [(a[name], b[name]) for name in sorted(a)] if a.keys() == b.keys() else []


def has_images(settings: DataSettings) -> bool:
    """Whether the data set's own folder has any image."""
    return any(image_names(settings.root / settings.domain))


def has_training(folder: Path) -> bool:
    """Whether a folder has training images in one of the layouts, of at least one domain."""
    return any(_in_layouts(folder, "train", domain) is not None for domain in DOMAINS)


def all_images(folder: Path) -> Folder:
    """Every image under a folder, in any layout, except in subfolders that cannot be searched. Raises DataError when
    there is none.
    """
    found = _folder(folder)
    if found is None:
        raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    return _with_images(found)


def locate(settings: DataSettings, base: Path | None = None, *, complete: bool = True) -> DataSet:
    """The data set that the settings point to.

    base: its folder, under any name, instead of data.root/data.domain. complete: every subfolder must be searchable;
    otherwise one training image is enough. Raises DataError when a folder is missing, has no images or cannot be
    searched.
    """
    base = settings.root / settings.domain if base is None else base
    given = {(split, domain): _find(settings, base, split, domain) for split in _SPLITS for domain in DOMAINS}
    closed = [line for folder in given.values() if folder is not None for line in folder.missed.closed]
    if closed and (complete or not any(folder.paths for d in DOMAINS if (folder := given["train", d]))):
        raise DataError(closed[0])
    training = {}
    for domain in DOMAINS:
        folder = given["train", domain]
        if folder is None:
            where = (
                f"{base}: no training images of domain {domain}"
                if base.is_dir()
                else f"{base}: no such folder"
            )
            raise DataError(
                f"{where}; put images into {base / 'trainA'} and {base / 'trainB'}, or give data.a=FOLDER data.b=FOLDER"
            )
        training[domain] = folder if folder.missed.closed else _with_images(folder)
    others: dict[str, dict[str, Folder]] = {"test": {}, "validation": {}}
    held_out = set()
    for number, (split, word) in enumerate((("test", "test"), ("val", "validation"))):
        for domain in DOMAINS:
            folder = given[split, domain]
            if folder is None:
                held_out.add(word)
                count = len(training[domain].paths)
                training[domain], folder = _hold_out(training[domain], settings.held_out, number)
                if folder.paths:
                    log.info(
                        f"{folder.root}: no {word} split found; holding out {len(folder.paths)} of {count} images"
                    )
            others[word][domain] = folder
    return DataSet(training, others["validation"], others["test"], frozenset(held_out))


def locate_test(folder: Path) -> dict[str, Folder]:
    """The test images of a data set's folder, by domain. Raises DataError when there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found = {}
    for domain in DOMAINS:
        given = _in_layouts(folder, "test", domain)
        if given is not None and given.missed.closed:
            raise DataError(given.missed.closed[0])
        if given is None or not given.paths:
            looked = ", ".join(layouts("test", domain))
            raise DataError(f"{folder}: no test images of domain {domain} (looked for {looked})")
        found[domain] = given
    return found


def layouts(split: str, domain: str) -> tuple[str, ...]:
    """The folders, below a data set's own, that may hold a split's images of a domain; the first that exists counts."""
    letter = domain.upper()
    return f"{split}{letter}", f"{split}/{letter}", f"{split}/{domain}", f"{split}_{letter}"


def fingerprint(data_set: DataSet) -> str:
    """Changes when the training images' names change, but not with the data set's location."""
    digest = hashlib.sha256()
    for domain in DOMAINS:
        digest.update(domain.encode())
        for name in data_set.training[domain].names:
            digest.update(f"\n{name}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _find(settings: DataSettings, base: Path, split: str, domain: str) -> Folder | None:
    """The folder of a split's images of a domain: the one that the settings name, or else in one of the layouts."""
    if settings.a is None:
        return _in_layouts(base, split, domain)
    name = {"train": domain, "test": f"test_{domain}", "val": ""}[split]
    path = getattr(settings, name) if name else None
    folder = None if path is None else _folder(path)
    if path is not None and folder is None:
        raise DataError(f"{path}: no such folder (data.{name})")
    return folder


def _in_layouts(base: Path, split: str, domain: str) -> Folder | None:
    found = (_folder(base / place) for place in layouts(split, domain))
    return next((folder for folder in found if folder is not None), None)


def _folder(path: Path) -> Folder | None:
    """The images found in a folder; None where there is no folder."""
    with suppress(OSError):  # what cannot be examined cannot be searched either, which is reported below
        if not path.is_dir():
            return None
    missed = Missed()
    return Folder(path, tuple(image_names(path, missed)), missed)


def _with_images(folder: Folder) -> Folder:
    """The folder, if it has images; otherwise raises DataError, which says why."""
    if not folder.paths:
        raise DataError(
            next(iter(folder.missed.closed), f"{folder.root}: no images (looked for {LOOKED_FOR})")
        )
    return folder


def _hold_out(folder: Folder, share: float, number: int) -> tuple[Folder, Folder]:
    """Splits a folder by the hash of each name, so that adding images moves none from one part to the other."""
    held_out = [_position(number, name) < share for name in folder.names]
    if all(held_out):  # the last of very few images is kept for training
        held_out = [False] * len(held_out)
    return folder.select(not out for out in held_out), replace(folder.select(held_out), missed=Missed())


def _position(number: int, name: str) -> float:
    """A name's hash as a fraction between 0 and 1."""
    digest = hashlib.sha256(f"{number}/{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8]) / 2**64
