"""Motion between a video's frames: where it is known, a frame's translation is blended with that of the frame before.

The motion is that of the video as it was videoed, not of the translation, which may flicker. Where it is not known, at
what comes into sight, behind moving edges and after cuts, the translation stays as it is, so that nothing trails.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gan_nst.images.photo import Pixels
from gan_nst.images.video import CUT, SPIKE

Field = NDArray[np.float32]
Gray = NDArray[np.uint8]

_SIDES = 64, 540  # pixels of the shorter side between which motion is looked for
_REACH = 6  # changes that a cut is compared with
_STRAY = 0.7  # pixels that the way there and back may miss by
_STRAY_SHARE = 0.05  # the same, as a share of the motion
_UNLIKE = 6.0  # difference, of 255, of the videoed pixels, without their noise
_ROOM = 24.0  # how far, of 255, the result may leave the range of colours around it in the translation


class Cuts:
    """Finds the first frames of scenes, one frame after the other."""

    def __init__(self) -> None:
        self._before: Field | None = None
        self._changes: deque[float] = deque(maxlen=_REACH)

    def __call__(self, image: Pixels) -> bool:
        """Whether a scene begins with this frame, (h, w, 3); the video's first begins one too."""
        small = cv2.resize(as_uint8(image), (64, 36), interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._before = self._before, small
        if before is None:
            return True
        change = float(np.abs(small - before).mean())
        cut = change > max(CUT, SPIKE * sum(self._changes) / max(1, len(self._changes)))
        self._changes.append(change)
        return cut


@dataclass
class _Past:
    """The frame before: as videoed, its gray, and what was made of it, float32."""

    image: Pixels
    gray: Gray
    result: Field


class Smoother:
    """Blends each translated frame with the one before, moved along with the motion, where that is known.

    strength: the share, 0 to below 1, of what came before; 0.7 averages over the last three or so.
    """

    def __init__(self, strength: float = 0.7) -> None:
        self.strength = strength
        self._past: _Past | None = None

    def reset(self) -> None:
        """Forgets the frame before: at a cut."""
        self._past = None

    def __call__(self, image: Pixels, translated: Pixels) -> Pixels:
        """The translation without its flicker. image: the frame as videoed; all (h, w, 3), of one size."""
        past, gray = self._past, _gray(image)
        result: Field = translated.astype(np.float32)
        if past is not None and past.result.shape == result.shape:
            unit = np.iinfo(translated.dtype).max / 255
            back = motion(gray, past.gray)
            trust = _trust(past, image, back, motion(past.gray, gray))
            moved = warp(past.result, back)
            room = np.float32(_ROOM * unit)
            around = np.ones((5, 5), np.uint8)
            moved = np.clip(moved, cv2.erode(result, around) - room, cv2.dilate(result, around) + room)
            result += (self.strength * trust)[..., None] * (moved - result)
        self._past = _Past(image, gray, result)
        top = np.iinfo(translated.dtype).max
        return cast(Pixels, np.clip(np.rint(result), 0, top).astype(translated.dtype))


def motion(one: Gray, other: Gray) -> Field:
    """Where each pixel of one gray image lies in the other, as its distance in pixels, x and y: (h, w, 2).

    Dense inverse search (Kroeger et al. 2016, arXiv:1603.03590), at no more than a middling resolution.
    """
    height, width = one.shape
    scale = float(np.clip(min(one.shape), *_SIDES)) / min(one.shape)
    if scale != 1:
        size = max(_SIDES[0], round(width * scale)), max(_SIDES[0], round(height * scale))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        one, other = (cast(Gray, cv2.resize(gray, size, interpolation=how)) for gray in (one, other))
    search = cast(Any, cv2).DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow: Field = search.calc(one, other, None)
    if scale != 1:
        stretch = np.array([width / one.shape[1], height / one.shape[0]], np.float32)
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * stretch
    return flow


def warp(image: NDArray[np.generic], flow: Field, how: int = cv2.INTER_CUBIC) -> Field:
    """The image, (h, w) or (h, w, c), looked up at each pixel's place plus the flow there, in float32.

    Cubic, as a frame is warped again with each that follows: linear interpolation would soften it every time.
    """
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(
        image.astype(np.float32),
        columns + flow[..., 0],
        rows + flow[..., 1],
        how,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cast(Field, moved)


def as_uint8(image: Pixels) -> NDArray[np.uint8]:
    """The image with 8 bits."""
    return (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image.astype(np.uint8, copy=False)


def _gray(image: Pixels) -> Gray:
    return cast(Gray, cv2.cvtColor(as_uint8(image), cv2.COLOR_RGB2GRAY))


def _trust(past: _Past, image: Pixels, back: Field, forth: Field) -> Field:
    """How far the motion can be relied on at each pixel, 0 to 1, (h, w).

    The way back and forth again must end where it began (Sundaram et al. 2010), within the image, and what was
    videoed there must look the same; its noise is blurred away before.
    """
    height, width = back.shape[:2]
    stray = np.linalg.norm(back + warp(forth, back, cv2.INTER_LINEAR), axis=2)
    stray /= _STRAY + _STRAY_SHARE * np.linalg.norm(back, axis=2)
    unit = np.iinfo(image.dtype).max / 255
    unlike = image.astype(np.float32) - warp(past.image, back, cv2.INTER_LINEAR)
    unlike = np.abs(cv2.GaussianBlur(unlike, (0, 0), 1.5)).max(2) / (unit * _UNLIKE)
    trust: Field = np.exp(-np.square(stray) - np.square(unlike)).astype(np.float32)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    x, y = columns + back[..., 0], rows + back[..., 1]
    trust[(x < 0) | (y < 0) | (x > width - 1) | (y > height - 1)] = 0
    return cast(Field, cv2.GaussianBlur(cv2.erode(trust, np.ones((5, 5), np.uint8)), (0, 0), 1.0))
