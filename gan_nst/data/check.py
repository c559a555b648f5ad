"""Checks the images of a data set before a training: what is wrong, and what could be better, in lines for the user.

Wrong is what training refuses, and what makes its scores untrue: unreadable folders and files, images smaller
than the crop, test or validation images that are trained on, the same image in both domains. The rest is advice.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, counted, listed
from gan_nst.core.terminal import track
from gan_nst.core.threads import cpus
from gan_nst.data.domains import DOMAINS, Folder
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


Key = tuple[str, str]
"""A part of a data set: the split, "training" for example, and the domain. A plain folder is ("images", "")."""
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The facts about one file. problem: why it cannot be read, in one line; then the later facts are empty.

    digest: of the pixels. mean: RGB, 0 to 255. spread: the standard deviation of the gray values. outside: reached
    through a link that leads out of its folder. flat: of a single colour, or nearly. gray: and not flat. elongated: a
    square crop shows a small part. too_small: training refuses it.
    """

    key: Key
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
    elongated: bool = False
    too_small: bool = False


@dataclass(frozen=True)
class Checked:
    """The facts of a data set.

    folders: all that were searched. images: of those with files, sorted by name. duplicates: groups of two or more
    images that show the same, or nearly. given: the validation and test splits that were not held out.
    """

    folders: Mapping[Key, Folder]
    images: Mapping[Key, list[ImageFacts]]
    duplicates: list[list[ImageFacts]]
    given: Sequence[str]

    @property
    def names(self) -> dict[str, list[set[str]]]:
        """The images' names by domain, of each split that was given."""
        return {split: [set(self.folders[split, domain].names) for domain in DOMAINS] for split in self.given}


def check_images(folders: Mapping[Key, Folder], smallest: int, given: Sequence[str] = ()) -> Checked:
    """Opens every image. smallest: the shorter side, in pixels, below which training refuses an image."""
    images = {
        key: _examine_all(key, folder, 0 if key[0] == "test" else smallest)  # test images are always enlarged
        for key, folder in folders.items()
        if folder.files
    }
    return Checked(folders, images, _find_duplicates(images), given)


def part_name(key: Key) -> str:
    """How lines for the user name a part."""
    split, domain = key
    return f"domain {domain}, {split}" if domain else split


def readable(images: Sequence[ImageFacts]) -> list[ImageFacts]:
    """The images without a problem."""
    return [image for image in images if image.problem is None]


def gray_share(images: Sequence[ImageFacts]) -> float:
    """The share of the readable images that are gray; 0 when there are none."""
    return sum(image.gray for image in images) / max(1, len(readable(images)))


def _examine_all(key: Key, folder: Folder, smallest: int) -> list[ImageFacts]:
    pool = ThreadPoolExecutor(min(8, cpus()))  # Pillow lets several threads decode at once
    try:
        facts = pool.map(partial(_examine, key, os.path.realpath(folder.root), smallest), folder.files)
        files = track(folder.files, f"checking {part_name(key)}")
        return [image for _, image in zip(files, facts, strict=True)]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C, for example


def _examine(key: Key, root: str, smallest: int, file: Path) -> ImageFacts:
    outside = os.path.commonpath([root, os.path.realpath(file)]) != root
    try:
        image, file_format = read_with_format(file)
    except DataError as error:
        return ImageFacts(key, file, outside, str(error))
    height, width = image.shape[:2]
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (1, 99), axis=(0, 1))
    red, green, blue = small.reshape(-1, 3).mean(0).tolist()
    flat = bool((high - low).max() < _FLAT)
    return ImageFacts(
        key,
        file,
        outside,
        format=file_format,
        width=width,
        height=height,
        digest=hashlib.blake2b(image.tobytes(), digest_size=16, key=b"%d" % width).digest(),
        hash=perceptual_hash(image),
        thumbnail=thumbnail(image).tobytes(),
        mean=(red, green, blue),
        spread=float(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).std()),
        gray=not flat and bool(np.ptp(small, axis=2).mean() < _GRAY),
        flat=flat,
        elongated=max(width, height) > _ELONGATED * min(width, height),
        too_small=min(width, height) < smallest,
    )


def _find_duplicates(parts: Mapping[Key, list[ImageFacts]]) -> list[list[ImageFacts]]:
    """Groups of images with the same pixels, or nearly; flat images must have the same pixels."""
    images = [image for part in parts.values() for image in readable(part)]
    firsts = {image.digest: image for image in reversed(images)}
    clear = [image for image in firsts.values() if not image.flat]
    hashes = np.array([image.hash for image in clear], np.uint64)
    thumbnails = np.frombuffer(b"".join(image.thumbnail for image in clear), np.uint8).reshape(-1, 64, 3)
    labels = group_duplicates(hashes, thumbnails).tolist()
    group_of = {image.digest: clear[label].digest for image, label in zip(clear, labels, strict=True)}
    groups: dict[bytes, list[ImageFacts]] = {}
    for image in images:
        groups.setdefault(group_of.get(image.digest, image.digest), []).append(image)
    return [group for group in groups.values() if len(group) > 1]


# Of single images: the fact, what they are called, and what is said of them.
_WRONG = (
    ("problem", "broken file", ""),
    (
        "too_small",
        "image",
        "smaller than the crop of {} pixels (set data.upscale=true to enlarge them, or lower data.crop_size)",
    ),
)
_ADVICE = (
    ("flat", "image", "of a single colour, or nearly"),
    ("elongated", "image", "so elongated that a square crop shows little"),
    ("outside", "link", "to files outside the folder"),
)
_LEAKS = (("test", "training"), ("test", "validation"), ("validation", "training"))


def find_problems(checked: Checked, crop_size: int) -> tuple[list[str], list[str]]:
    """The problems of a data set for training on square crops, and advice.

    One line each, the most severe first. crop_size: in pixels.
    """
    wrong = [line for folder in checked.folders.values() for line in folder.missed.closed]
    for fact, thing, text in _WRONG:
        wrong += _with_fact(checked, fact, thing, text.format(crop_size))
    for domain in DOMAINS:
        for split, earlier in _LEAKS:
            leaks = []
            for group in checked.duplicates:
                used, scored = _within(group, earlier, domain), _within(group, split, domain)
                leaks += [_pair(image, used[0]) for image in scored if used]
            text = f"leak: {counted(len(leaks), f'{split} image')} of domain {domain} also in {earlier}"
            wrong += _listed(f"{text}; remove one of each pair", leaks)
    wrong += _in_both_domains(checked)
    advice = [*_training_images(checked), *_almost_paired(checked), *_repeated(checked)]
    for fact, thing, text in _ADVICE:
        advice += _with_fact(checked, fact, thing, text)
    for folder in checked.folders.values():
        if found := count_skipped(folder):  # photographs of an unsupported format may be among them
            shown = [f"{extension or 'none'} {number}" for extension, number in found.items()]
            text = f"{counted(sum(found.values()), 'file')} skipped, by file extension"
            advice.append(f"{folder.root}: {text}: {listed(shown, _MAX_EXTENSIONS)}")
    return wrong, advice


def count_skipped(folder: Folder) -> dict[str, int]:
    """The number of files without an image extension, by extension, the most frequent first."""
    others = folder.missed.others.items()
    return dict(sorted(others, key=lambda item: (-item[1], not item[0], item[0])))


def _with_fact(checked: Checked, fact: str, thing: str, text: str) -> list[str]:
    """A line for each part that has images with this fact."""
    lines = []
    for key, images in checked.images.items():
        found = [image for image in images if getattr(image, fact)]
        shown = [image.problem or str(image.path) for image in found]
        if fact in ("too_small", "elongated"):
            shown = [f"{image.path} ({image.width} x {image.height})" for image in found]
        lines += _listed(f"{part_name(key)}: {counted(len(found), thing)} {text}".rstrip(), shown)
    return lines


def _within(group: Sequence[ImageFacts], split: str, domain: str) -> list[ImageFacts]:
    return [image for image in group if image.key == (split, domain)]


def _in_both_domains(checked: Checked) -> list[str]:
    both = []
    for group in checked.duplicates:
        of_b = {image.digest: image for image in reversed(group) if image.key[1] == "b"}
        equal = [image for image in group if image.key[1] == "a" and image.digest in of_b]
        both += [_pair(image, of_b[image.digest]) for image in equal[:1]]
    return _listed(f"{counted(len(both), 'image')} in both domains, equal pixel by pixel", both)


def _training_images(checked: Checked) -> list[str]:
    """Findings about the numbers and colours of the training images."""
    lines = []
    training = {key[1]: readable(images) for key, images in checked.images.items() if key[0] == "training"}
    counts = {domain: len(images) for domain, images in training.items()}
    for domain, number in counts.items():
        if number < FEW:
            text = f"domain {domain}: only {counted(number, 'training image')}; add more, or try "
            lines.append(f"{text}method.differentiable_augmentation=[colour,translation,cutout]")
    if len(counts) == 2 and max(counts.values()) > _UNBALANCED * max(1, min(counts.values())):
        text = f"unbalanced: {counts['a']} training images of a, {counts['b']} of b"
        lines.append(f"{text}; those of the smaller domain are repeated more often")
    shares = {gray_share(images): domain for domain, images in training.items() if images}
    if shares and max(shares) > 0.9 and min(shares) < 0.5:
        text = f"domain {shares[max(shares)]} is gray, the other is in colour"
        lines.append(f"{text}: translating back has to invent the colours")
    for key, images in checked.images.items():
        if 0.05 < (share := gray_share(images)) < 0.5:
            lines.append(f"{part_name(key)}: {share:.0%} of the images are gray, the others are in colour")
    return lines


def _almost_paired(checked: Checked) -> list[str]:
    """Splits that look paired but are not, so that the error against the counterparts is not measured."""
    lines = []
    for split, (a, b) in checked.names.items():
        if len(a & b) > min(len(a), len(b)) / 2:
            text = f"{split}: {counted(len(a ^ b), 'name')} in one domain only, so the split is not paired"
            lines += _listed(text, sorted(a ^ b))
    return lines


def _repeated(checked: Checked) -> list[str]:
    lines, across = [], []
    for key in checked.images:
        groups = [_within(group, *key) for group in checked.duplicates]
        groups = [group for group in groups if len(group) > 1]
        text = f"{part_name(key)}: {sum(map(len, groups))} images are duplicates"
        lines += _listed(
            f"{text}, in {counted(len(groups), 'group')}", [_pair(*group[:2]) for group in groups]
        )
    for group in checked.duplicates:
        a, b = (_within(group, "training", domain) for domain in DOMAINS)
        all_differ = len({image.digest for image in group}) == len(group)
        if a and b and all_differ:
            across.append(_pair(a[0], b[0]))
    return lines + _listed(
        f"training: {counted(len(across), 'image')} of a with a near-duplicate in b", across
    )


def _pair(one: ImageFacts, other: ImageFacts) -> str:
    return f"{one.path} {'=' if one.digest == other.digest else '~'} {other.path}"


def _listed(text: str, names: list[str]) -> list[str]:
    """The line that lists the names, if there are any."""
    return [f"{text}: {listed(names, _MAX_LISTED, '; ')}"] if names else []
