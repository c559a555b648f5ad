"""Looks at every picture of a data set once, before a training does: what is broken, what it looks like, what is twice.

Of each picture a few hundred bytes are kept, so that memory grows slowly with their number.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gan_nst.core.errors import DataError
from gan_nst.core.progress import track
from gan_nst.data.domains import DOMAINS, DataSet, Folder
from gan_nst.data.duplicates import find_alike, group, hash_picture, thumbnail
from gan_nst.images.files import read_with_format

_AT_ONCE = 512  # files that are handed to the threads together
_GRAY = 4  # levels between a pixel's channels, on average, below which a picture is gray
_FLAT = 8  # levels between the darkest and the lightest hundredth, below which a picture shows nothing


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of one file. problem: why it cannot be read, in one line; then the rest says nothing.

    digest: of the pixels. mean: RGB, 0 to 255. spread: the standard deviation of the gray values. leads_out: it lies,
    by a link, outside its folder.
    """

    path: Path
    leads_out: bool
    problem: str | None = None
    format: str = ""
    width: int = 0
    height: int = 0
    digest: bytes = b""
    hash: int = 0
    thumbnail: bytes = b""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread: float = 0.0
    gray: bool = False  # and not flat
    flat: bool = False

    @property
    def side(self) -> int:
        """The shorter one, in pixels."""
        return min(self.width, self.height)


@dataclass(frozen=True)
class Part:
    """One domain's pictures of one split, in the order of their names. domain: empty for a plain folder."""

    split: str
    domain: str
    folder: Folder
    looks: tuple[Look, ...]

    @property
    def name(self) -> str:
        return f"domain {self.domain}, {self.split}" if self.domain else self.split

    @property
    def readable(self) -> list[Look]:
        return [look for look in self.looks if look.problem is None]


@dataclass(frozen=True)
class Twin:
    """One of several files that show the same. same: its pixels are those of another of them."""

    part: Part
    look: Look
    same: bool


@dataclass(frozen=True)
class Checked:
    """A data set, looked at.

    twins: groups of two and more files that show the same or nearly. folders: all that were searched, also those
    without pictures. cut: the splits that were not given, but cut from the training pictures.
    """

    parts: tuple[Part, ...]
    twins: tuple[tuple[Twin, ...], ...]
    folders: tuple[Folder, ...]
    cut: frozenset[str] = frozenset()

    def part(self, split: str, domain: str) -> Part | None:
        return next((part for part in self.parts if (part.split, part.domain) == (split, domain)), None)


def check_data_set(data_set: DataSet) -> Checked:
    """Looks at every picture of a data set."""
    splits = {"training": data_set.training, "validation": data_set.validation, "test": data_set.test}
    parts = [
        _look_through(split, domain, folders[domain])
        for split, folders in splits.items()
        for domain in DOMAINS
        if folders[domain].files
    ]
    searched = tuple(folders[domain] for folders in splits.values() for domain in DOMAINS)
    return Checked(tuple(parts), _twins(parts), searched, data_set.cut)


def check_folder(folder: Folder) -> Checked:
    """Looks at every picture of a plain folder."""
    parts = [_look_through("pictures", "", folder)]
    return Checked(tuple(parts), _twins(parts), (folder,))


def _look_through(split: str, domain: str, folder: Folder) -> Part:
    part = Part(split, domain, folder, ())
    looks = _looks(folder.files, os.path.realpath(folder.root))
    return Part(
        split,
        domain,
        folder,
        tuple(look for _, look in zip(track(folder.files, f"checking {part.name}"), looks, strict=True)),
    )


def _looks(files: Sequence[Path], root: str) -> Iterator[Look]:
    """A look at each file, in order; Pillow lets several threads decode at once."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for start in range(0, len(files), _AT_ONCE):
                yield from pool.map(lambda file: _look_at(file, root), files[start : start + _AT_ONCE])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C, for example


def _look_at(file: Path, root: str) -> Look:
    leads_out = os.path.commonpath([root, os.path.realpath(file)]) != root
    try:
        picture, file_format = read_with_format(file)
    except DataError as error:
        return Look(file, leads_out, str(error))
    small = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (1, 99), axis=(0, 1))
    red, green, blue = small.reshape(-1, 3).mean(0).tolist()
    flat = bool((high - low).max() < _FLAT)
    return Look(
        file,
        leads_out,
        format=file_format,
        width=picture.shape[1],
        height=picture.shape[0],
        digest=hashlib.blake2b(picture.tobytes(), digest_size=16, key=b"%d" % picture.shape[1]).digest(),
        hash=hash_picture(picture),
        thumbnail=thumbnail(picture).tobytes(),
        mean=(red, green, blue),
        spread=float(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).std()),
        gray=not flat and bool(np.ptp(small, axis=2).mean() < _GRAY),
        flat=flat,
    )


def _twins(parts: Sequence[Part]) -> tuple[tuple[Twin, ...], ...]:
    """Groups of files of the same pixels, or of those alike; flat pictures are alike only when they are the same."""
    found = [(part, look) for part in parts for look in part.readable]
    by_pixels: dict[bytes, list[int]] = {}
    for index, (_, look) in enumerate(found):
        by_pixels.setdefault(look.digest, []).append(index)
    firsts = [same[0] for same in by_pixels.values() if not found[same[0]][1].flat]
    hashes = np.array([found[index][1].hash for index in firsts], np.uint64)
    small = np.frombuffer(b"".join(found[index][1].thumbnail for index in firsts), np.uint8)
    near = np.array(firsts, np.int64)[find_alike(hashes, small.reshape(len(firsts), -1, 3))]
    same = [(same[0], other) for same in by_pixels.values() for other in same[1:]]
    pairs = np.concatenate([near.reshape(-1, 2), np.array(same, np.int64).reshape(-1, 2)])
    return tuple(
        tuple(Twin(*found[index], same=len(by_pixels[found[index][1].digest]) > 1) for index in members)
        for members in group(len(found), pairs)
    )
