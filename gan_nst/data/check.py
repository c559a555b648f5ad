"""What is wrong with a data set that was looked at, and what could be better, in lines for the user.

Wrong is what a training refuses or what makes its scores untrue: folders and files that cannot be read, images
smaller than the crop, test or validation images that were trained on, the same image in both domains. All else is
advice.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, counted
from gan_nst.core.terminal import track
from gan_nst.data.domains import DOMAINS, DataSet, Folder
from gan_nst.images.arrays import ImageArray
from gan_nst.images.files import read_with_format

REACH = 12
ALIKE = 0.9

Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]  # (n, 2), the smaller index first

_PARTS = (13, 13, 13, 13, 12)  # bits; of 12 differing bits, one part has two at most
_HASHED_AT_ONCE = 1 << 21  # pairs


def hash_image(image: ImageArray) -> int:
    """64 bits: which of the lowest frequencies of the image's gray values are above their median."""
    gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(gray.astype(np.float32))
    lowest = np.append(waves[:8, :8].ravel()[1:], waves[8, 0])  # without the first, the brightness
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes())


def thumbnail(image: ImageArray) -> ImageArray:
    """The image at 8 x 8 pixels."""
    return np.asarray(cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA), np.uint8)


def find_alike(hashes: Hashes, thumbnails: NDArray[np.uint8]) -> Pairs:
    """Pairs of images that are nearly the same, sorted: as many as connect them all, not every pair, for of n alike
    there are n * n / 2. thumbnails: of shape (n, pixels, 3).

    Memory grows with the number of images alone; time with its square where many have near hashes, but are not alike.
    """
    if not len(hashes):
        return np.empty((0, 2), np.int64)
    small = thumbnails.astype(np.float32)
    small -= small.mean(1, keepdims=True)
    shapes = small.reshape(len(small), -1)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True) + 1e-6
    firsts = np.arange(len(hashes))
    kept = [np.empty((0, 2), np.int64)]
    for pairs in _candidates(hashes, firsts):
        for part in _portions(pairs):
            part = part[firsts[part[:, 0]] != firsts[part[:, 1]]]
            part = part[(shapes[part[:, 0]] * shapes[part[:, 1]]).sum(1) >= ALIKE]
            if len(part):
                firsts[:], joining = _joined(firsts, part)
                kept.append(part[joining])
    return np.unique(np.concatenate(kept), axis=0)


def group(count: int, pairs: Pairs) -> list[list[int]]:
    """The indices below `count` that pairs connect, in groups of two and more, sorted."""
    firsts, _ = _joined(np.arange(count), pairs)
    groups: dict[int, list[int]] = {}
    for index in np.unique(pairs).tolist():
        groups.setdefault(int(firsts[index]), []).append(index)
    return list(groups.values())


def _joined(firsts: NDArray[np.int64], pairs: Pairs) -> tuple[NDArray[np.int64], list[int]]:
    """The first of each index's group when pairs have joined the groups, and which of the pairs joined two."""
    parent, joining = firsts.tolist(), []

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for place, (one, other) in enumerate(pairs.tolist()):
        first, second = sorted((root(one), root(other)))
        if first != second:
            parent[second] = first
            joining.append(place)
    return np.array([root(index) for index in range(len(parent))], np.int64), joining


def _candidates(hashes: Hashes, firsts: NDArray[np.int64]) -> Iterator[Pairs]:
    """The pairs whose hashes differ in `REACH` bits at most, each once, but for neighbours in their order.

    Hashes that near have a part that differs in two bits at most; so each is looked for among those that have its
    part, or its part with one or two bits turned. firsts: the first of each one's group, which may change meanwhile:
    pairs within a group may be left out. Neighbours in the order of the hashes come before the others, so that most
    of what is alike is a group by then.
    """
    count = len(hashes)
    order = np.argsort(hashes, kind="stable")
    yield _near(hashes, order[:-1], order[1:], [])
    shift = 0
    earlier: list[np.uint64] = []
    for bits in _PARTS:
        part = np.uint64((1 << bits) - 1) << np.uint64(shift)
        keys = ((hashes & part) >> np.uint64(shift)).astype(np.int64)
        shift += bits
        group_of = firsts.copy()
        places = keys * count + group_of
        order = np.argsort(places, kind="stable")
        places = places[order]
        first = np.searchsorted(places, np.arange((1 << bits) + 1) * count)
        turned = [
            0,
            *(1 << n for n in range(bits)),
            *(1 << n | 1 << m for n, m in combinations(range(bits), 2)),
        ]
        for mask in turned:
            sought = keys ^ mask
            starts, ends = first[sought], first[sought + 1]
            some = np.flatnonzero(starts < ends)
            # of each pair the one of the earlier group finds the other
            starts[some] = np.searchsorted(places, sought[some] * count + group_of[some], side="right")
            for ones, found in _ranges(starts, ends):
                yield _near(hashes, ones, order[found], earlier)
        earlier.append(part)


def _near(
    hashes: Hashes, ones: NDArray[np.int64], others: NDArray[np.int64], earlier: list[np.uint64]
) -> Pairs:
    """Those of the pairs whose hashes differ in `REACH` bits at most, and in more than two of each earlier part."""
    differing = hashes[ones] ^ hashes[others]
    near = np.flatnonzero(np.bitwise_count(differing) <= REACH)
    for part in earlier:
        near = near[np.bitwise_count(differing[near] & part) > 2]
    return np.sort(np.stack([ones[near], others[near]], 1), axis=1)


def _ranges(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Every (index, place) with starts[index] <= place < ends[index], some `_HASHED_AT_ONCE` at once."""
    totals = np.cumsum(ends - starts)
    begin = 0
    while begin < len(starts):
        before = totals[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(totals, before + _HASHED_AT_ONCE, side="right")))
        counts = (ends - starts)[begin:end]
        indices = np.repeat(np.arange(begin, end), counts)
        within = np.arange(len(indices)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield indices, starts[indices] + within
        begin = end


def _portions(pairs: Pairs) -> Iterator[Pairs]:
    return (
        pairs[start : start + _HASHED_AT_ONCE // 16] for start in range(0, len(pairs), _HASHED_AT_ONCE // 16)
    )


_AT_ONCE = 512  # files that are handed to the threads together
_GRAY = 4  # levels between a pixel's channels, on average, below which an image is gray
_FLAT = 8  # levels between the darkest and the lightest hundredth, below which an image shows nothing


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
    """One domain's images of one split, in the order of their names. domain: empty for a plain folder."""

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
    without images. cut: the splits that were not given, but cut from the training images.
    """

    parts: tuple[Part, ...]
    twins: tuple[tuple[Twin, ...], ...]
    folders: tuple[Folder, ...]
    cut: frozenset[str] = frozenset()

    def part(self, split: str, domain: str) -> Part | None:
        return next((part for part in self.parts if (part.split, part.domain) == (split, domain)), None)


def check_data_set(data_set: DataSet) -> Checked:
    """Looks at every image of a data set."""
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
    """Looks at every image of a plain folder."""
    parts = [_look_through("images", "", folder)]
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
        image, file_format = read_with_format(file)
    except DataError as error:
        return Look(file, leads_out, str(error))
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (1, 99), axis=(0, 1))
    red, green, blue = small.reshape(-1, 3).mean(0).tolist()
    flat = bool((high - low).max() < _FLAT)
    return Look(
        file,
        leads_out,
        format=file_format,
        width=image.shape[1],
        height=image.shape[0],
        digest=hashlib.blake2b(image.tobytes(), digest_size=16, key=b"%d" % image.shape[1]).digest(),
        hash=hash_image(image),
        thumbnail=thumbnail(image).tobytes(),
        mean=(red, green, blue),
        spread=float(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).std()),
        gray=not flat and bool(np.ptp(small, axis=2).mean() < _GRAY),
        flat=flat,
    )


def _twins(parts: Sequence[Part]) -> tuple[tuple[Twin, ...], ...]:
    """Groups of files of the same pixels, or of those alike; flat images are alike only when they are the same."""
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


FEW = 200  # images a side, under which discriminators learn them by heart
UNBALANCED = 3  # times as many on one side as on the other
ODD = 2.5  # times as long as high, or as high as long
_SHOWN = 10
_ENDINGS = 5


@dataclass(frozen=True)
class Findings:
    """wrong, advice: one line each, the most severe first."""

    wrong: tuple[str, ...]
    advice: tuple[str, ...]


def find(checked: Checked, crop_size: int, upscale: bool) -> Findings:
    """What is to be said of a data set whose training takes crops of so many pixels.

    upscale: smaller images are enlarged, as test images always are.
    """
    wrong = [
        *(line for folder in checked.folders for line in folder.missed.closed),
        *_broken(checked),
        *(line for part in checked.parts for line in _too_small(part, crop_size, upscale)),
        *_leaks(checked),
        *_in_both_domains(checked),
    ]
    advice = [*_numbers(checked), *_colours(checked), *_pairs(checked), *_alike(checked)]
    advice += [line for part in checked.parts for line in _odd(part)]
    advice += [line for folder in checked.folders for line in _left_out(folder)]
    return Findings(tuple(wrong), tuple(advice))


def too_small(part: Part, crop_size: int, upscale: bool) -> list[Look]:
    """The images that are refused for their size."""
    if upscale or part.split == "test":
        return []
    return [look for look in part.readable if look.side < crop_size]


def odd(part: Part) -> list[Look]:
    """The images of which a square crop shows a small part."""
    return [look for look in part.readable if max(look.width, look.height) > ODD * look.side]


def left_out(folder: Folder) -> dict[str, int]:
    """How many files are no images by their names, by the ending, the most frequent first."""
    others = folder.missed.others.items()
    return dict(sorted(others, key=lambda item: (-item[1], not item[0], item[0])))


def _broken(checked: Checked) -> Iterator[str]:
    for part in checked.parts:
        broken = [look.problem for look in part.looks if look.problem is not None]
        if broken:
            yield _listed(f"{part.name}: {counted(len(broken), 'broken file')}", broken)
        if broken and len(broken) == len(part.looks):
            yield f"{part.name}: no file can be read"


def _too_small(part: Part, crop_size: int, upscale: bool) -> Iterator[str]:
    if small := too_small(part, crop_size, upscale):
        text = f"{part.name}: {counted(len(small), 'image')} smaller than the crop of {crop_size} pixels"
        names = [f"{look.path} ({look.width} x {look.height})" for look in small]
        yield _listed(f"{text} (data.upscale=true enlarges them, or lower data.crop_size)", names)


def _leaks(checked: Checked) -> Iterator[str]:
    """Images of a split that are judged by, in a split that is learned or chosen from."""
    for domain in DOMAINS:
        for split, before in (("test", ("training", "validation")), ("validation", ("training",))):
            for other in before:
                leaks = [
                    (twin, next(t for t in twins if (t.part.split, t.part.domain) == (other, domain)))
                    for twins in checked.twins
                    if any((t.part.split, t.part.domain) == (other, domain) for t in twins)
                    for twin in twins
                    if (twin.part.split, twin.part.domain) == (split, domain)
                ]
                if leaks:
                    text = f"leak: {counted(len(leaks), f'{split} image')} of domain {domain} in {other} too"
                    yield _listed(f"{text}; take one of each out", [_shown(*leak) for leak in leaks])


def _in_both_domains(checked: Checked) -> Iterator[str]:
    both = []
    for twins in checked.twins:
        a, b = ([t for t in twins if t.part.domain == domain and t.same] for domain in DOMAINS)
        both += [(one, other) for one in a for other in b if one.look.digest == other.look.digest][:1]
    if both:
        whole = min(len(part.looks) for part in checked.parts if part.split == "training")
        text = f"{counted(len(both), 'image')} in both domains, equal pixel by pixel"
        same = "; is one domain the other's copy?" if len(both) > whole / 2 else ""
        yield _listed(text + same, [_shown(*pair) for pair in both])


def _numbers(checked: Checked) -> Iterator[str]:
    sides = {d: len(p.readable) for d in DOMAINS if (p := checked.part("training", d)) is not None}
    for domain, number in sides.items():
        if number < FEW:
            yield (
                f"domain {domain}: only {counted(number, 'training image')}; more are better, or try "
                "method.differentiable_augmentation=[colour,translation,cutout]"
            )
    if len(sides) == 2 and max(sides.values()) > UNBALANCED * max(1, min(sides.values())):
        yield f"unbalanced: {sides['a']} training images of a, {sides['b']} of b; the fewer are seen more often"


def _colours(checked: Checked) -> Iterator[str]:
    shares = {d: gray_share(p) for d in DOMAINS if (p := checked.part("training", d)) and p.readable}
    if len(shares) == 2 and max(shares.values()) > 0.9 and min(shares.values()) < 0.5:
        gray = max(shares, key=lambda domain: shares[domain])
        yield f"domain {gray} is gray, the other in colour: the translation back must make colours up"
    for part in checked.parts:
        if part.readable and 0.05 < (share := gray_share(part)) < 0.5:
            yield f"{part.name}: {share:.0%} of the images are gray, the others in colour"


def gray_share(part: Part) -> float:
    """The share of the images that are gray."""
    return float(np.mean([look.gray for look in part.readable]))


def paired(checked: Checked) -> list[str]:
    """The splits whose every image has a counterpart of the same name in the other domain."""
    return [split for split, a, b in _held_out(checked) if set(a.folder.names) == set(b.folder.names)]


def _held_out(checked: Checked) -> Iterator[tuple[str, Part, Part]]:
    """The splits that were given for both domains and are not learned from."""
    for split in ("validation", "test"):
        a, b = checked.part(split, "a"), checked.part(split, "b")
        if a is not None and b is not None and split not in checked.cut:
            yield split, a, b


def _pairs(checked: Checked) -> Iterator[str]:
    """Splits that look paired and are not quite: then the error against the counterparts is not measured."""
    for split, a, b in _held_out(checked):
        names = [set(part.folder.names) for part in (a, b)]
        alone = sorted(names[0] ^ names[1])
        if alone and len(names[0] & names[1]) > min(map(len, names)) / 2:
            text = f"{split}: {counted(len(alone), 'name')} in one domain only, so it is not paired"
            yield _listed(text, alone)


def _alike(checked: Checked) -> Iterator[str]:
    for part in checked.parts:
        groups = [own for twins in checked.twins if len(own := [t for t in twins if t.part is part]) > 1]
        if groups:
            number = sum(map(len, groups))
            text = f"{part.name}: {number} images show what another shows, in {counted(len(groups), 'group')}"
            yield _listed(text, [_shown(own[0], own[1]) for own in groups])
    training = [
        {d: t for t in reversed(twins) if t.part.split == "training" for d in DOMAINS if t.part.domain == d}
        for twins in checked.twins
        if not any(t.same for t in twins)
    ]
    if across := [_shown(found["a"], found["b"]) for found in training if len(found) == 2]:
        yield _listed(f"training: {counted(len(across), 'image')} of a that b shows too", across)


def _odd(part: Part) -> Iterator[str]:
    if flat := [str(look.path) for look in part.readable if look.flat]:
        yield _listed(f"{part.name}: {counted(len(flat), 'image')} of one colour, or nearly", flat)
    if long := [f"{look.path} ({look.width} x {look.height})" for look in odd(part)]:
        yield _listed(f"{part.name}: {counted(len(long), 'image')} of which a square crop shows little", long)
    if out := [str(look.path) for look in part.looks if look.leads_out]:
        yield _listed(f"{part.name}: {counted(len(out), 'file')} lying elsewhere, by a link", out)


def _left_out(folder: Folder) -> Iterator[str]:
    """Photographs of a kind that is not read may be among them."""
    if found := left_out(folder):
        endings = [f"{ending or 'none'} {number}" for ending, number in [*found.items()][:_ENDINGS]]
        if rest := sum([*found.values()][_ENDINGS:]):
            endings.append(f"others {rest}")
        text = f"{counted(sum(found.values()), 'file')} left out for the name's ending"
        yield f"{folder.root}: {text}: {', '.join(endings)}"


def _shown(one: Twin, other: Twin) -> str:
    return f"{one.look.path} {'=' if one.look.digest == other.look.digest else '~'} {other.look.path}"


def _listed(text: str, names: list[str]) -> str:
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{text}: {'; '.join(names[:_SHOWN])}{more}"
