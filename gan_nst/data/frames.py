"""Frames from a video, which make it a domain: one for each scene, more for long scenes, no duplicates.

Every frame is examined once, as a thumbnail. Cuts divide the video into scenes and `every` divides scenes into spans;
each span gives its steadiest frame, and only that one is examined at full size.
"""

import logging
import math
import re
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gan_nst.core.errors import DataError
from gan_nst.core.terminal import track
from gan_nst.images.arrays import ImageArray, shrink_image
from gan_nst.images.files import find_images, read_image, write_image
from gan_nst.images.video import Video, is_cut, stamp

log = logging.getLogger(__name__)


def shows_text(image: ImageArray) -> bool:
    """Whether an image is a title or credits: letters in lines on a flat background, and little else.

    Letters over a painted background are not detected, nor are fewer than five.
    """
    image = shrink_image(image, 288)
    colours = (image // 16).astype(np.int32) @ [256, 16, 1]
    ground = np.median(image[colours == np.bincount(colours.ravel()).argmax()], axis=0)
    away = np.abs(image - ground).max(2)
    ink = (away > max(40.0, 0.5 * np.percentile(away, 99.5))).astype(np.uint8)  # not the blur around letters
    if not 0 < ink.mean() < 0.4 or np.mean(away <= 16) < 0.85 * (1 - ink.mean()):
        return False
    boxes = cv2.connectedComponentsWithStats(ink, connectivity=8)[2][1:]
    boxes = boxes[np.argsort(-boxes[:, cv2.CC_STAT_AREA])[:600]]  # snow has thousands
    x, y, width, height, area = boxes.T
    # Letters of a line overlap in height, are of a kind and stand close; stars and leaves do not.
    overlap = np.minimum.outer(y + height, y + height) - np.maximum.outer(y, y)
    gap = np.maximum.outer(x, x) - np.minimum.outer(x + width, x + width)
    low, high = np.minimum.outer(height, height), np.maximum.outer(height, height)
    letter = (height < 0.25 * image.shape[0]) & (width < 0.9 * image.shape[1])
    adjacent = (overlap > 0.5 * low) & (high < 2.5 * low) & (gap < high) & np.outer(letter, letter)
    np.fill_diagonal(adjacent, False)
    in_line = adjacent.any(1)
    letters = np.maximum(1, width / height)[in_line].sum()  # where letters touch, a word is one box
    return bool(letters >= 5 and area[in_line].sum() > 0.7 * area.sum())


if TYPE_CHECKING:
    from av import VideoFrame


Field = NDArray[np.float32]
Bars = tuple[int, int, int, int]  # pixels at the left, top, right and bottom

_WIDTH, _HEIGHT = 64, 36  # of the thumbnails that stand for frames: a moving figure changes them little
_REACH = 6  # frames examined on either side of one: a quarter of a second of video
_BLEND = 5.0  # difference across the reach that half of a half-blended frame has
_LINEAR = 0.2  # how far a blend may be from its ends' average, in their difference; others: 0.3 to 0.5
_DARK, _FLAT = 36, 16  # black: 98 % of a thumbnail below this level; blank: 96 % within so many levels
_ALIKE = 10.0  # root mean square difference of two signatures below which two frames are the same image
_BAR = 24  # the maximum level of bars: black plus what a codec adds


@dataclass(frozen=True)
class Frames:
    """The frames taken from a video.

    kept: the files written, by time; `shape` is their height and width in pixels.
    scenes: how many show something, so not black or fades.
    near_duplicates, blank, credits, blended: frames dropped, each for one reason.
    seconds: of the video, as far as it could be read. bars: what was cropped.
    """

    video: Path
    kept: tuple[Path, ...]
    shape: tuple[int, ...]
    scenes: int
    near_duplicates: int
    blank: int
    credits: int
    blended: int
    seconds: float
    bars: Bars

    def report(self) -> str:
        """Two lines for the user: what was kept, and what was dropped."""
        size = " x ".join(map(str, self.shape[::-1]))
        bars = "bars of {} {} {} {} pixels (left, top, right, bottom) cropped".format(*self.bars)
        return (
            f"{self.video}: kept {len(self.kept)} frames of {size} pixels, from {self.scenes} scenes in "
            f"{stamp(self.seconds)[:-4]}\n{self.dropped()}; {bars if any(self.bars) else 'no bars'}"
        )

    def dropped(self) -> str:
        """How many frames were dropped for which reason."""
        return (
            f"dropped {self.near_duplicates} near-duplicates, {self.blank} black or blank, "
            f"{self.credits} credits, {self.blended} half-blended"
        )


def take_frames(video: Path, folder: Path, *, every: float = 2.0, size: int | None = 256) -> Frames:
    """Writes frames of a video into a folder as `VIDEO-HH-MM-SS.mmm.png`; returns what was kept and dropped.

    every: a longer scene gives one frame for each so many seconds. size: the frames' shorter side in pixels; a smaller
    video is not enlarged, and None keeps its size. Bars are cropped and pixels made square.

    Frames like an image that is already in the folder are dropped; frames of a video of this name must not be there. A
    video that breaks off is used as far as it can be read, with a warning. Raises DataError, one line, when it cannot
    be read at all, when everything is dropped, or when PyAV is missing.
    """
    if not every > 0 or (size is not None and size < 1):
        raise DataError(f"{video}: every {every} seconds, size {size}: both must be above 0")
    bars = _find_bars(video)
    name = video.stem.lstrip(".") or "video"  # hidden files are not images
    seen = _signatures(folder, name)
    kept: list[Path] = []
    scenes, shape = 0, (0, 0)
    dropped = dict.fromkeys(("near_duplicates", "blank", "credits", "blended"), 0)
    with closing(Video(video)) as reader:
        for look, opens_scene in _choose(_look(reader, bars), every):
            scenes += opens_scene and look.clear
            image = _square_pixels(reader, look.frame, bars)
            if shows_text(image):
                dropped["credits"] += 1
                continue
            if not look.clear:
                dropped["blank" if look.blank else "blended"] += 1
                continue
            image = shrink_image(image, size)
            signature = _signature(image)
            if (np.square(seen - signature).mean(1) < _ALIKE**2).any():
                dropped["near_duplicates"] += 1
                continue
            kept.append(folder / f"{name}-{stamp(look.time).replace(':', '-')}.png")
            write_image(image, kept[-1])
            seen, shape = np.vstack([seen, signature]), image.shape[:2]
    frames = Frames(video, tuple(kept), shape, scenes, **dropped, seconds=reader.read, bars=bars)
    if not kept:
        raise DataError(f"{video}: no frame is worth keeping; {frames.dropped()}")
    return frames


class _Look(NamedTuple):
    """A frame of the video, and what follows from its neighbours.

    small, change: its thumbnail, and how far that is from the one before, of 255. motion: the largest change
    around it. cut: it is the first of a scene. blank: it shows nothing. blended: it mixes two images.
    """

    time: float
    frame: "VideoFrame"
    small: Field
    change: float
    motion: float = 0.0
    cut: bool = False
    blank: bool = False
    blended: bool = False

    @property
    def clear(self) -> bool:
        return not (self.blank or self.blended)


def _look(reader: "Video", bars: Bars) -> Iterator[_Look]:
    """Every frame of the video, classified; a few are held at a time."""
    left, top, right, bottom = bars
    rows = slice(math.ceil(top / reader.height * _HEIGHT), math.floor((1 - bottom / reader.height) * _HEIGHT))
    columns = slice(math.ceil(left / reader.width * _WIDTH), math.floor((1 - right / reader.width) * _WIDTH))
    before: deque[_Look] = deque(maxlen=_REACH + 1)
    ahead: deque[_Look] = deque()
    for time, frame in reader.frames():
        small = reader.rgb(frame, _WIDTH, _HEIGHT)[rows, columns].astype(np.float32)
        ahead.append(_Look(time, frame, small, _difference(small, ahead[-1].small) if ahead else 0.0))
        if len(ahead) > _REACH:
            before.append(ahead.popleft())
            yield _classify(list(before), list(ahead))
    while ahead:
        before.append(ahead.popleft())
        yield _classify(list(before), list(ahead))


def _classify(before: list[_Look], after: list[_Look]) -> _Look:
    """The last look of `before`, classified by those before and after it."""
    now, before = before[-1], before[:-1]
    cut = is_cut(now.change, [look.change for look in before + after])
    if cut:  # after a flash the image is the same as before
        pairs = (_difference(one.small, other.small) for one in before for other in [now, *after])
        cut = min(pairs) > 0.5 * now.change
    low, high = np.percentile(now.small.reshape(-1, 3), (2, 98), axis=0)
    return now._replace(
        motion=max(look.change for look in [*before[-1:], now, *after[:2]]),
        cut=cut,
        blank=bool(high.max() < _DARK or (high - low).max() < _FLAT),
        blended=any(
            _is_average(before[-reach].small, now.small, after[reach - 1].small)
            for reach in {2, min(_REACH, len(before), len(after))}  # quick fades and slow ones
            if 2 <= reach <= min(len(before), len(after))
        ),
    )


def _is_average(before: Field, now: Field, after: Field) -> bool:
    """Whether an image blends those around it: most of it changes, and evenly; in a pan it does neither."""
    across = np.abs(after - before)
    changed = np.count_nonzero(across.max(2) > _BLEND) > 0.5 * across[..., 0].size
    return changed and _difference(now * 2, before + after) < _LINEAR * 2 * float(across.mean())


def _choose(looks: Iterator[_Look], every: float) -> Iterator[tuple[_Look, bool]]:
    """The steadiest clear frame of every span of every scene, and whether the span opens its scene.

    A scene begins at a cut and where black, a fade or a blend ends. The rest of a long scene, when it is shorter
    than half of `every`, gives nothing.
    """
    best, start, time, unclear, opens = None, 0.0, 0.0, 0, True
    for look in looks:
        begins = look.cut or (look.clear and unclear >= 3)
        unclear = 0 if look.clear else unclear + 1
        if best is not None and (begins or look.time - start >= every):
            if opens or look.time - start >= every / 2:
                yield best, opens
            best, opens = None, begins
        if best is None:
            best, start = look, look.time
        elif (not look.clear, look.motion) < (not best.clear, best.motion):
            best = look
        time = look.time
    if best is not None and (opens or time - start >= every / 2):
        yield best, opens


def _square_pixels(reader: "Video", frame: "VideoFrame", bars: Bars) -> ImageArray:
    """A frame as displayed: with square pixels, upright and without bars."""
    left, top, right, bottom = bars
    image = reader.rgb(frame, reader.width, reader.height)
    image = image[top : reader.height - bottom, left : reader.width - right]
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def _signature(image: ImageArray) -> Field:
    """A signature to compare frames by, of shape (768,), so blurred that a pan by a hundredth changes little."""
    return cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()


def _signatures(folder: Path, name: str) -> Field:
    """The signatures of the images that a folder holds, of shape (n, 768)."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: not a folder")
    images = find_images(folder)
    ours = re.compile(re.escape(name) + r"-\d\d+-\d\d-\d\d\.\d{3}\.png")
    if earlier := [path.name for path in images if ours.fullmatch(path.name)]:
        raise DataError(
            f"{folder}: already has frames of {name} ({earlier[0]}); remove them or give another folder"
        )
    found = [_signature(read_image(path)) for path in track(images, f"reading the images in {folder}")]
    return np.array(found, np.float32).reshape(-1, 768)


def _find_bars(video: Path) -> Bars:
    """The dark bars at a video's edges; 0 where there is none.

    A bar is dark in nine of ten frames. One that is more than a sliver has a counterpart on the opposite side, unlike a
    night sky.
    """
    edges = []
    with closing(Video(video)) as reader:
        width, height = reader.width, reader.height
        for frame in reader.sample():
            lit = cv2.cvtColor(reader.rgb(frame, width, height), cv2.COLOR_RGB2GRAY) >= _BAR
            x, y = (np.flatnonzero(np.count_nonzero(lit, axis) > 0.01 * lit.shape[axis]) for axis in (0, 1))
            if len(x) and len(y):
                edges.append((x[0], y[0], width - 1 - x[-1], height - 1 - y[-1]))
    found = np.percentile(edges or [(0, 0, 0, 0)], 10, axis=0, method="lower")
    bars = [0, 0, 0, 0]
    for edge, side in enumerate((width, height) * 2):
        widest = min(max(2 * found[edge - 2], 0.04 * side), 0.4 * side)
        if 0 < found[edge] <= widest:
            bars[edge] = int(found[edge]) + 1 + side // 400  # a codec smears the edge
    return bars[0], bars[1], bars[2], bars[3]


def _difference(one: Field, other: Field) -> float:
    return float(np.abs(one - other).mean())
