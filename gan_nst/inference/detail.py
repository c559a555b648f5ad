"""Detail that a translation at a smaller size lacks, brought back from the picture."""

import cv2
import numpy as np

from gan_nst.inference.bandwise import Rows, enlarged, in_floats
from gan_nst.photo import Pixels
from gan_nst.profiles import Floats

_RADIUS = 2
_FLAT = 1e-4  # a variance, of values from 0 to 1, below which a neighbourhood counts as flat: of 2.5 levels


def carried_detail(pixels: Pixels, small: Pixels, translated: Pixels) -> Rows:
    """The translation of `small`, which is `pixels` reduced, at full size: enlarged, plus what `pixels` have and
    `small` lacks, times how much of the picture's contrast the translation kept there.

    That gain is the slope of the fast guided filter (He and Sun, arXiv:1505.00996), channel by channel. The filter
    itself, slope and offset, comes nearer to a translation at full size in PSNR, but draws it as the
    photograph is: without outlines and flat areas, and far from it in LPIPS. Detail without gain (a Laplacian
    pyramid's) brings the photograph's noise into flat areas.
    """
    height, width = pixels.shape[:2]
    picture, before, after = in_floats(pixels), in_floats(small), in_floats(translated)
    smooth = enlarged(before, len(small), height, width)
    enlarged_translation = enlarged(after, len(small), height, width)
    gain = enlarged(_slope(before, after, len(small)), len(small), height, width)

    def give(rows: slice) -> Floats:
        return enlarged_translation(rows) + gain(rows) * (picture(rows) - smooth(rows))

    return give


def _slope(before: Rows, after: Rows, height: int) -> Rows:
    """The slope of a translation's values over the picture's in the neighbourhood of each pixel: (rows, w, 3)."""
    margin = 2 * _RADIUS  # the slopes are means of slopes, which come from means

    def give(rows: slice) -> Floats:
        around = slice(max(0, rows.start - margin), min(height, rows.stop + margin))
        old, new = before(around), after(around)
        mean = _mean(old)
        variance = (_mean(old * old) - mean * mean).clip(min=0)
        covariance = _mean(old * new) - mean * _mean(new)
        slopes = _mean((covariance / (variance + _FLAT)).astype(np.float32))
        return slopes[rows.start - around.start : rows.stop - around.start]

    return give


def _mean(values: Floats) -> Floats:
    side = 2 * _RADIUS + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REPLICATE)  # type: ignore[return-value]
