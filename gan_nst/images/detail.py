"""Detail that a translation at a smaller size lacks, brought back from the picture."""

import cv2
import numpy as np

from gan_nst.images.bandwise import Rows, Size, enlarged, reduced
from gan_nst.images.profiles import Floats

_RADIUS = 2
_FLAT = 1e-4  # a variance, of values from 0 to 1, below which a neighbourhood counts as flat: of 2.5 levels


def carried_detail(picture: Rows, translation: Rows, size: Size, small: Size) -> Rows:
    """A translation of the picture at a small size, at the picture's: enlarged, plus what the picture loses when it is
    reduced, times how much of the picture's contrast the translation kept there.

    That gain is the slope of the fast guided filter (He and Sun, arXiv:1505.00996), channel by channel. The filter
    itself, slope and offset, comes nearer to a translation at full size in PSNR, but draws it as the
    photograph is: without outlines and flat areas, and far from it in LPIPS. Detail without gain (a Laplacian
    pyramid's) brings the photograph's noise into flat areas.
    """
    before = reduced(picture, size, small)
    smooth, whole = enlarged(before, small, size), enlarged(translation, small, size)
    gain = enlarged(_slope(before, translation, small[0]), small, size)
    return lambda rows: whole(rows) + gain(rows) * (picture(rows) - smooth(rows))


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
