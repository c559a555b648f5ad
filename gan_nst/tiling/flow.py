"""Optical flow between video frames: detects cuts, and blends translations along the motion.

The motion is estimated on the original frames, as the translation may flicker. Where it is unreliable (in newly visible
areas, behind moving edges and after cuts) the translation is left unchanged, so that nothing leaves trails.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from gan_nst.images.photo import Pixels
from gan_nst.images.video import is_cut

Field = NDArray[np.float32]
Gray = NDArray[np.uint8]

_SIDES = 64, 540  # smallest and largest shorter side, in pixels, at which motion is estimated
_HISTORY = 6  # frame differences that a cut is compared with
_FLOW_ERROR = 0.7  # pixels by which forward and backward flow may disagree
_FLOW_ERROR_SHARE = 0.05  # additional disagreement, relative to the motion
_COLOUR_ERROR = 6.0  # tolerated difference, of 255, of the denoised original pixels
_ROOM = 24.0  # how far, of 255, the result may exceed the range of neighbouring colours in the translation


class CutDetector:
    """Detects cuts, one frame after the other."""

    def __init__(self) -> None:
        self._before: Field | None = None
        self._changes: deque[float] = deque(maxlen=_HISTORY)

    def __call__(self, image: Pixels) -> bool:
        """Whether a scene begins with this frame, (h, w, 3); the first frame always begins one."""
        small = cv2.resize(as_uint8(image), (64, 36), interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._before = self._before, small
        if before is None:
            return True
        change = float(np.abs(small - before).mean())
        cut = is_cut(change, self._changes)
        self._changes.append(change)
        return cut


@dataclass
class _Previous:
    """The previous frame: the original, its gray version, and its smoothed translation in float32."""

    image: Pixels
    gray: Gray
    result: Field


class Smoother:
    """Blends each translated frame with the motion-compensated previous one, where the motion is reliable.

    strength: the share of the previous frame, 0 to below 1; 0.7 averages over about three frames.
    """

    def __init__(self, strength: float = 0.7) -> None:
        self.strength = strength
        self._previous: _Previous | None = None

    def reset(self) -> None:
        """Forgets the previous frame; call it at a cut."""
        self._previous = None

    def __call__(self, image: Pixels, translated: Pixels) -> Pixels:
        """Returns the translation with less flicker. image: the original frame; all (h, w, 3), of the same size."""
        previous, gray = self._previous, _gray(image)
        result: Field = translated.astype(np.float32)
        if previous is not None and previous.result.shape == result.shape:
            unit = np.iinfo(translated.dtype).max / 255
            backward = optical_flow(gray, previous.gray)
            reliability = _reliability(previous, image, backward, optical_flow(previous.gray, gray))
            moved = warp(previous.result, backward)
            room = np.float32(_ROOM * unit)
            around = np.ones((5, 5), np.uint8)
            moved = np.clip(moved, cv2.erode(result, around) - room, cv2.dilate(result, around) + room)
            result += (self.strength * reliability)[..., None] * (moved - result)
        self._previous = _Previous(image, gray, result)
        top = np.iinfo(translated.dtype).max
        return cast(Pixels, np.clip(np.rint(result), 0, top).astype(translated.dtype))


def optical_flow(one: Gray, other: Gray) -> Field:
    """Returns the displacement of each pixel from one gray image to the other, x and y in pixels: (h, w, 2).

    Dense inverse search (Kroeger et al. 2016, arXiv:1603.03590), at a moderate resolution.
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
    """Samples the image, (h, w) or (h, w, c), at each pixel's position plus its flow, in float32.

    Cubic by default, as a frame is warped again for each that follows: linear interpolation would blur it every time.
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
    """The image at 8 bits."""
    return (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image.astype(np.uint8, copy=False)


def _gray(image: Pixels) -> Gray:
    return cast(Gray, cv2.cvtColor(as_uint8(image), cv2.COLOR_RGB2GRAY))


def _reliability(previous: _Previous, image: Pixels, backward: Field, forward: Field) -> Field:
    """Returns the reliability of the motion at each pixel, 0 to 1, (h, w).

    Backward and forward flow must cancel out (Sundaram et al. 2010), stay within the image, and the original frames
    must look the same there, once blurred against noise.
    """
    height, width = backward.shape[:2]
    flow_error = np.linalg.norm(backward + warp(forward, backward, cv2.INTER_LINEAR), axis=2)
    flow_error /= _FLOW_ERROR + _FLOW_ERROR_SHARE * np.linalg.norm(backward, axis=2)
    unit = np.iinfo(image.dtype).max / 255
    colour_error = image.astype(np.float32) - warp(previous.image, backward, cv2.INTER_LINEAR)
    colour_error = np.abs(cv2.GaussianBlur(colour_error, (0, 0), 1.5)).max(2) / (unit * _COLOUR_ERROR)
    reliability: Field = np.exp(-np.square(flow_error) - np.square(colour_error)).astype(np.float32)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    x, y = columns + backward[..., 0], rows + backward[..., 1]
    reliability[(x < 0) | (y < 0) | (x > width - 1) | (y > height - 1)] = 0
    return cast(Field, cv2.GaussianBlur(cv2.erode(reliability, np.ones((5, 5), np.uint8)), (0, 0), 1.0))
