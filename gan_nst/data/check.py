"""Checks the images of a data set before a training: what is wrong, and what could be better, in lines for the user.

Wrong is what training refuses, and what makes its scores untrue: unreadable folders and files, images smaller
than the crop, test or validation images that are trained on, the same image in both domains. The rest is advice.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, counted, listed
from gan_nst.core.terminal import track
from gan_nst.core.threads import cpus
from gan_nst.data.domains import DOMAINS, DataSet, Folder
from gan_nst.images.arrays import ImageArray
from gan_nst.images.files import read_with_format

FEW = 200  # images per domain, below which discriminators memorize them
_UNBALANCED = 3  # times as many images in one domain as in the other
_ELONGATED = 2.5  # long side divided by short side
_GRAY = 4  # levels between a pixel's channels, on average, below which an image is gray
_FLAT = 8  # levels between the darkest and the lightest hundredth, below which an image shows nothing

MAX_DISTANCE = 12  # differing bits of 64
MIN_CORRELATION = 0.9
_PAIRS_AT_ONCE = 1 << 22
_FILES_AT_ONCE = 512
_MAX_LISTED = 10
_MAX_EXTENSIONS = 5


def perceptual_hash(image: ImageArray) -> int:
    """64 bits: which of the lowest frequencies of the image's gray values are above their median."""
    gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(gray.astype(np.float32))
    lowest = np.append(waves[:8, :8].ravel()[1:], waves[8, 0])  # without the first, the brightness
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes())


def thumbnail(image: ImageArray) -> ImageArray:
    """The image at 8 x 8 pixels."""
    return np.asarray(cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA), np.uint8)


def group_duplicates(hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each image the index of the first one of its group, of shape (n,).

    Two images are near-duplicates when their hashes differ in at most `MAX_DISTANCE` bits and their thumbnails
    (n, pixels, 3) correlate; a group holds everything such pairs connect. Compares each image with each, in blocks:
    50,000 images take seconds.
    """
    shapes = thumbnails - thumbnails.mean(1, keepdims=True, dtype=np.float32)
    shapes = shapes.reshape(len(hashes), np.prod(shapes.shape[1:], dtype=int))
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True) + 1e-6
    groups = np.arange(len(hashes))
    step = max(1, _PAIRS_AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), step):
        rows = slice(start, start + step)
        near = np.triu(np.bitwise_count(hashes[rows, None] ^ hashes[start:]) <= MAX_DISTANCE)
        columns = np.flatnonzero(near.any(0))
        alike = near[:, columns] & (shapes[rows] @ shapes[start + columns].T >= MIN_CORRELATION)
        for row in np.flatnonzero(alike.any(1)):
            merged = np.unique(groups[start + columns[alike[row]]])
            if len(merged) > 1:
                groups[np.isin(groups, merged)] = merged[0]
    return groups


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of one file. problem: why it cannot be read, in one line; then the other facts are empty.

    digest: of the pixels. mean: RGB, 0 to 255. spread: the standard deviation of the gray values. outside: reached
    through a link that leads out of its folder. gray: and not flat.
    """

    path: Path
    outside: bool
    problem: str | None = None
    format: str = ""
    width: int = 0
    height: int = 0
    digest: bytes = b""
    hash: int = 0
    thumbnail: bytes = b""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread: float = 0.0
    gray: bool = False
    flat: bool = False

    @property
    def side(self) -> int:
        """The shorter side, in pixels."""
        return min(self.width, self.height)


@dataclass(frozen=True)
class Part:
    """One domain's images of one split, sorted by name. domain: empty for a plain folder."""

    split: str
    domain: str
    folder: Folder
    images: tuple[ImageFacts, ...]

    @property
    def name(self) -> str:
        return _part_name(self.split, self.domain)

    @property
    def readable(self) -> list[ImageFacts]:
        return [image for image in self.images if image.problem is None]

    @property
    def flat(self) -> list[ImageFacts]:
        return [image for image in self.readable if image.flat]

    @property
    def elongated(self) -> list[ImageFacts]:
        """The images of which a square crop shows a small part."""
        return [image for image in self.readable if max(image.width, image.height) > _ELONGATED * image.side]

    @property
    def outside(self) -> list[ImageFacts]:
        return [image for image in self.images if image.outside]

    @property
    def gray_share(self) -> float:
        """The share of the readable images that are gray."""
        return float(np.mean([image.gray for image in self.readable]))

    def too_small(self, crop_size: int, upscale: bool) -> list[ImageFacts]:
        """The images that training refuses for their size; test images are always enlarged."""
        if upscale or self.split == "test":
            return []
        return [image for image in self.readable if image.side < crop_size]


@dataclass(frozen=True)
class Duplicate:
    """One of several files that show the same. same_pixels: as another of them, pixel by pixel."""

    part: Part
    image: ImageFacts
    same_pixels: bool


@dataclass(frozen=True)
class Checked:
    """The facts of a data set.

    duplicates: groups of two or more files that show the same, or nearly. folders: all that were searched, including
    those without images. held_out: the splits that were held out from the training images as none was given.
    """

    parts: tuple[Part, ...]
    duplicates: tuple[tuple[Duplicate, ...], ...]
    folders: tuple[Folder, ...]
    held_out: frozenset[str] = frozenset()

    def part(self, split: str, domain: str) -> Part | None:
        return next((part for part in self.parts if (part.split, part.domain) == (split, domain)), None)

    @property
    def paired(self) -> list[str]:
        """The splits whose every image has a counterpart of the same name in the other domain."""
        return [split for split, a, b in _given(self) if set(a.folder.names) == set(b.folder.names)]


def check_data_set(data_set: DataSet) -> Checked:
    """Opens every image of a data set."""
    splits = {"training": data_set.training, "validation": data_set.validation, "test": data_set.test}
    searched = {(split, domain): splits[split][domain] for split in splits for domain in DOMAINS}
    parts = [_examine_part(*key, folder) for key, folder in searched.items() if folder.files]
    return Checked(tuple(parts), _find_duplicates(parts), tuple(searched.values()), data_set.held_out)


def check_folder(folder: Folder) -> Checked:
    """Opens every image of a plain folder."""
    parts = [_examine_part("images", "", folder)]
    return Checked(tuple(parts), _find_duplicates(parts), (folder,))


def _part_name(split: str, domain: str) -> str:
    return f"domain {domain}, {split}" if domain else split


def _examine_part(split: str, domain: str, folder: Folder) -> Part:
    files = track(folder.files, f"checking {_part_name(split, domain)}")
    examined = _examine_all(folder.files, os.path.realpath(folder.root))
    return Part(split, domain, folder, tuple(image for _, image in zip(files, examined, strict=True)))


def _examine_all(files: Sequence[Path], root: str) -> Iterator[ImageFacts]:
    """Each file's facts, in order; Pillow lets several threads decode at once."""
    with ThreadPoolExecutor(min(8, cpus())) as pool:
        try:
            for start in range(0, len(files), _FILES_AT_ONCE):
                yield from pool.map(lambda file: _examine(file, root), files[start : start + _FILES_AT_ONCE])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C, for example


def _examine(file: Path, root: str) -> ImageFacts:
    outside = os.path.commonpath([root, os.path.realpath(file)]) != root
    try:
        image, file_format = read_with_format(file)
    except DataError as error:
        return ImageFacts(file, outside, str(error))
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (1, 99), axis=(0, 1))
    red, green, blue = small.reshape(-1, 3).mean(0).tolist()
    flat = bool((high - low).max() < _FLAT)
    return ImageFacts(
        file,
        outside,
        format=file_format,
        width=image.shape[1],
        height=image.shape[0],
        digest=hashlib.blake2b(image.tobytes(), digest_size=16, key=b"%d" % image.shape[1]).digest(),
        hash=perceptual_hash(image),
        thumbnail=thumbnail(image).tobytes(),
        mean=(red, green, blue),
        spread=float(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).std()),
        gray=not flat and bool(np.ptp(small, axis=2).mean() < _GRAY),
        flat=flat,
    )


def _find_duplicates(parts: Sequence[Part]) -> tuple[tuple[Duplicate, ...], ...]:
    """Groups of files with the same pixels, or nearly; flat images must have the same pixels."""
    found = [(part, image) for part in parts for image in part.readable]
    by_pixels: dict[bytes, list[int]] = {}
    for index, (_, image) in enumerate(found):
        by_pixels.setdefault(image.digest, []).append(index)
    firsts = [same[0] for same in by_pixels.values() if not found[same[0]][1].flat]
    hashes = np.array([found[index][1].hash for index in firsts], np.uint64)
    small = np.frombuffer(b"".join(found[index][1].thumbnail for index in firsts), np.uint8)
    group_of = dict(zip(firsts, group_duplicates(hashes, small.reshape(-1, 64, 3)).tolist(), strict=True))
    groups: dict[int, list[int]] = {}
    for same in by_pixels.values():
        first = firsts[group_of[same[0]]] if same[0] in group_of else same[0]
        groups.setdefault(first, []).extend(same)
    return tuple(
        tuple(Duplicate(*found[i], same_pixels=len(by_pixels[found[i][1].digest]) > 1) for i in sorted(group))
        for group in sorted(groups.values())
        if len(group) > 1
    )


@dataclass(frozen=True)
class Findings:
    """wrong, advice: one line each, the most severe first."""

    wrong: tuple[str, ...]
    advice: tuple[str, ...]


def find_problems(checked: Checked, crop_size: int, upscale: bool) -> Findings:
    """What to report about a data set that is trained on in square crops.

    crop_size: in pixels. upscale: smaller images are enlarged.
    """
    wrong = [
        *(line for folder in checked.folders for line in folder.missed.closed),
        *_broken(checked),
        *(line for part in checked.parts for line in _too_small(part, crop_size, upscale)),
        *_leaks(checked),
        *_in_both_domains(checked),
    ]
    advice = [*_numbers(checked), *_colours(checked), *_almost_paired(checked), *_repeated(checked)]
    advice += [line for part in checked.parts for line in _odd(part)]
    advice += [line for folder in checked.folders for line in _skipped(folder)]
    return Findings(tuple(wrong), tuple(advice))


def count_skipped(folder: Folder) -> dict[str, int]:
    """The number of files without an image extension, by extension, the most frequent first."""
    others = folder.missed.others.items()
    return dict(sorted(others, key=lambda item: (-item[1], not item[0], item[0])))


def _broken(checked: Checked) -> Iterator[str]:
    for part in checked.parts:
        broken = [image.problem for image in part.images if image.problem is not None]
        if broken:
            yield _listed(f"{part.name}: {counted(len(broken), 'broken file')}", broken)
        if broken and len(broken) == len(part.images):
            yield f"{part.name}: none of the files can be read"


def _too_small(part: Part, crop_size: int, upscale: bool) -> Iterator[str]:
    if small := part.too_small(crop_size, upscale):
        text = f"{part.name}: {counted(len(small), 'image')} smaller than the crop of {crop_size} pixels"
        advice = "set data.upscale=true to enlarge them, or lower data.crop_size"
        yield _listed(f"{text} ({advice})", [_with_size(image) for image in small])


def _leaks(checked: Checked) -> Iterator[str]:
    """Images of a split that scores are computed on, in a split that is trained on or chosen by."""
    for domain in DOMAINS:
        for split, earlier in (("test", "training"), ("test", "validation"), ("validation", "training")):
            leaks = []
            for group in checked.duplicates:
                used = [one for one in group if (one.part.split, one.part.domain) == (earlier, domain)]
                scored = [one for one in group if (one.part.split, one.part.domain) == (split, domain)]
                leaks += [_shown(one, used[0]) for one in scored if used]
            if leaks:
                text = f"leak: {counted(len(leaks), f'{split} image')} of domain {domain} also in {earlier}"
                yield _listed(f"{text}; remove one of each pair", leaks)


def _in_both_domains(checked: Checked) -> Iterator[str]:
    both = []
    for group in checked.duplicates:
        a, b = ([one for one in group if one.part.domain == d and one.same_pixels] for d in DOMAINS)
        both += [_shown(one, two) for one in a for two in b if one.image.digest == two.image.digest][:1]
    if both:
        fewest = min(len(part.images) for part in checked.parts if part.split == "training")
        text = f"{counted(len(both), 'image')} in both domains, equal pixel by pixel"
        copied = "; is one domain a copy of the other?" if len(both) > fewest / 2 else ""
        yield _listed(text + copied, both)


def _numbers(checked: Checked) -> Iterator[str]:
    counts = {d: len(p.readable) for d in DOMAINS if (p := checked.part("training", d)) is not None}
    for domain, number in counts.items():
        if number < FEW:
            yield (
                f"domain {domain}: only {counted(number, 'training image')}; add more, or try "
                "method.differentiable_augmentation=[colour,translation,cutout]"
            )
    if len(counts) == 2 and max(counts.values()) > _UNBALANCED * max(1, min(counts.values())):
        text = f"unbalanced: {counts['a']} training images of a, {counts['b']} of b"
        yield f"{text}; those of the smaller domain are repeated more often"


def _colours(checked: Checked) -> Iterator[str]:
    shares = {d: p.gray_share for d in DOMAINS if (p := checked.part("training", d)) and p.readable}
    if len(shares) == 2 and max(shares.values()) > 0.9 and min(shares.values()) < 0.5:
        gray = max(shares, key=lambda domain: shares[domain])
        yield f"domain {gray} is gray, the other is in colour: translating back has to invent the colours"
    for part in checked.parts:
        if part.readable and 0.05 < part.gray_share < 0.5:
            yield f"{part.name}: {part.gray_share:.0%} of the images are gray, the others are in colour"


def _given(checked: Checked) -> Iterator[tuple[str, Part, Part]]:
    """The validation and test splits that were given for both domains."""
    for split in ("validation", "test"):
        a, b = checked.part(split, "a"), checked.part(split, "b")
        if a is not None and b is not None and split not in checked.held_out:
            yield split, a, b


def _almost_paired(checked: Checked) -> Iterator[str]:
    """Splits that look paired but are not, so that the error against the counterparts is not measured."""
    for split, a, b in _given(checked):
        names_a, names_b = set(a.folder.names), set(b.folder.names)
        alone = sorted(names_a ^ names_b)
        if alone and len(names_a & names_b) > min(len(names_a), len(names_b)) / 2:
            text = f"{split}: {counted(len(alone), 'name')} in one domain only, so the split is not paired"
            yield _listed(text, alone)


def _repeated(checked: Checked) -> Iterator[str]:
    for part in checked.parts:
        groups = [[one for one in group if one.part is part] for group in checked.duplicates]
        groups = [group for group in groups if len(group) > 1]
        if groups:
            number = sum(map(len, groups))
            text = f"{part.name}: {number} images are duplicates, in {counted(len(groups), 'group')}"
            yield _listed(text, [_shown(group[0], group[1]) for group in groups])
    across = []
    for group in checked.duplicates:
        training = {one.part.domain: one for one in reversed(group) if one.part.split == "training"}
        if len(training) == 2 and not any(one.same_pixels for one in group):
            across.append(_shown(training["a"], training["b"]))
    if across:
        yield _listed(f"training: {counted(len(across), 'image')} of a with a near-duplicate in b", across)


def _odd(part: Part) -> Iterator[str]:
    if flat := [str(image.path) for image in part.flat]:
        yield _listed(f"{part.name}: {counted(len(flat), 'image')} of a single colour, or nearly", flat)
    if long := [_with_size(image) for image in part.elongated]:
        text = f"{part.name}: {counted(len(long), 'image')} so elongated that a square crop shows little"
        yield _listed(text, long)
    if outside := [str(image.path) for image in part.outside]:
        yield _listed(f"{part.name}: {counted(len(outside), 'link')} to files outside the folder", outside)


def _skipped(folder: Folder) -> Iterator[str]:
    """Photographs of an unsupported format may be among them."""
    if found := count_skipped(folder):
        extensions = [
            f"{extension or 'none'} {number}" for extension, number in [*found.items()][:_MAX_EXTENSIONS]
        ]
        if rest := sum([*found.values()][_MAX_EXTENSIONS:]):
            extensions.append(f"others {rest}")
        text = f"{counted(sum(found.values()), 'file')} skipped, by file extension"
        yield f"{folder.root}: {text}: {', '.join(extensions)}"


def _with_size(image: ImageFacts) -> str:
    return f"{image.path} ({image.width} x {image.height})"


def _shown(one: Duplicate, other: Duplicate) -> str:
    sign = "=" if one.image.digest == other.image.digest else "~"
    return f"{one.image.path} {sign} {other.image.path}"


def _listed(text: str, names: list[str]) -> str:
    return f"{text}: {listed(names, _MAX_LISTED, '; ')}"
