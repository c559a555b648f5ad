"""Pictures band by band, as float32 from 0 to 1, so that no more than a few rows are ever held so."""

from collections.abc import Callable

import cv2
import numpy as np

from gan_nst.images.files import bands
from gan_nst.images.photo import Pixels
from gan_nst.images.profiles import Floats

Rows = Callable[[slice], Floats]  # gives a band of a picture: (rows, w, c)
Size = tuple[int, int]  # height, width


def in_floats(pixels: Pixels) -> Rows:
    """Pixels as values from 0 to 1."""
    white = np.float32(np.iinfo(pixels.dtype).max)
    return lambda rows: pixels[rows].astype(np.float32) / white


def in_pixels(values: Rows, size: Size, like: Pixels) -> Pixels:
    """A picture's values as pixels of the type of `like`, rounded; what is outside 0 to 1 is clipped."""
    pixels, white = np.empty((*size, 3), like.dtype), np.iinfo(like.dtype).max
    for rows in bands(*size):
        pixels[rows] = np.clip(np.rint(values(rows) * white), 0, white)
    return pixels


def reduced_size(size: Size, scale: float) -> Size:
    """What `scale`, at most 1, makes of a size."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduced(values: Rows, size: Size, small: Size) -> Rows:
    """A picture reduced to a smaller size: each of its values is the mean of the area it comes from."""
    step = size[0] / small[0]

    def give(rows: slice) -> Floats:
        edges = np.arange(rows.start, rows.stop + 1) * step
        first, last = int(edges[0]), min(size[0], int(np.ceil(edges[-1] - 1e-9)))
        narrow = cv2.resize(
            values(slice(first, last)), (small[1], last - first), interpolation=cv2.INTER_AREA
        )
        line = np.arange(first, last)
        shares = (
            np.clip(np.minimum(edges[1:, None], line + 1) - np.maximum(edges[:-1, None], line), 0, 1) / step
        )
        means: Floats = np.tensordot(shares.astype(np.float32), narrow.reshape(len(line), small[1], -1), 1)
        return means

    return give


def enlarged(values: Rows, small: Size, size: Size) -> Rows:
    """A picture enlarged, bilinear, its outer edges lying on the small one's."""

    def give(rows: slice) -> Floats:
        place = np.clip(
            (np.arange(rows.start, rows.stop) + 0.5) * (small[0] / size[0]) - 0.5, 0, small[0] - 1
        )
        above = place.astype(np.intp)
        below = np.minimum(above + 1, small[0] - 1)
        piece = values(slice(int(above[0]), int(below[-1]) + 1))
        wide = cv2.resize(piece, (size[1], len(piece)), interpolation=cv2.INTER_LINEAR)
        wide = wide.reshape(len(piece), size[1], -1)
        share = (place - above).astype(np.float32)[:, None, None]
        between: Floats = wide[above - above[0]] * (1 - share) + wide[below - above[0]] * share
        return between

    return give
