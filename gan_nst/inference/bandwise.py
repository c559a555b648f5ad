"""Pictures band by band, as float32 from 0 to 1, so that no more than a few rows are ever held so."""

from collections.abc import Callable

import cv2
import numpy as np

from gan_nst.photo import Pixels
from gan_nst.profiles import Floats

Rows = Callable[[slice], Floats]  # gives a band of a picture: (rows, w, c)


def in_floats(pixels: Pixels) -> Rows:
    """Pixels as values from 0 to 1."""
    white = np.float32(np.iinfo(pixels.dtype).max)
    return lambda rows: pixels[rows].astype(np.float32) / white


def enlarged(small: Rows, small_height: int, height: int, width: int) -> Rows:
    """A picture enlarged to (height, width), bilinear, its corners lying on the small one's corners."""

    def give(rows: slice) -> Floats:
        place = (np.arange(rows.start, rows.stop) + 0.5) * (small_height / height) - 0.5
        place = np.clip(place, 0, small_height - 1)
        above = place.astype(np.intp)
        below = np.minimum(above + 1, small_height - 1)
        piece = small(slice(int(above[0]), int(below[-1]) + 1))
        wide = cv2.resize(piece, (width, len(piece)), interpolation=cv2.INTER_LINEAR).reshape(
            len(piece), width, -1
        )
        share = (place - above).astype(np.float32)[:, None, None]
        between: Floats = wide[above - above[0]] * (1 - share) + wide[below - above[0]] * share
        return between

    return give


def reduced(pixels: Pixels, scale: float) -> Pixels:
    """Pixels resized by `scale`, at most 1, each the mean of the area it comes from; the same ones for 1."""
    if scale == 1:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
