"""What of its own colours a picture keeps in its translation."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gan_nst.images.bandwise import Rows, Size
from gan_nst.images.files import bands
from gan_nst.images.profiles import Floats, from_linear, to_linear

Recolour = Callable[
    [Floats, Floats], Floats
]  # of bands of the picture and of its translation, (rows, w, 3), 0 to 1

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709's

# IEC 61966-2-1's linear RGB to XYZ, each divided by its white (D65), as CIELAB wants them; then CIELAB's own
# differences of the three.
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_RELATIVE = _XYZ / _XYZ.sum(1, keepdims=True)
_LAB = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]])
_TO_RELATIVE = _RELATIVE.T.astype(np.float32)
_FROM_RELATIVE = np.linalg.inv(_RELATIVE).T.astype(np.float32)
_TO_LAB = _LAB.T.astype(np.float32)
_FROM_LAB = np.linalg.inv(_LAB).T.astype(np.float32)
_TOE = 6 / 29
_TINY = 1e-6


def keep_chroma(picture: Floats, translation: Floats) -> Floats:
    """The picture's chroma, Cb and Cr, with the translation's luma, Y', all of Rec. 709's Y'CbCr.

    Gatys et al., Preserving Color in Neural Artistic Style Transfer, arXiv:1606.05897, section 3.2, who take Y'IQ.
    """
    luma = np.clip(translation @ _LUMA, 0, 1)
    return _into_gamut(picture + (luma - picture @ _LUMA)[..., None], luma)


def keep_statistics(picture: Rows, translation: Rows, weights: Rows, size: Size) -> Recolour:
    """Gives the translation the picture's mean and deviation in each channel of CIELAB, pixels counting by `weights`,
    (rows, w, 1): Reinhard et al., Color Transfer between Images, 2001, who take another decorrelated space, whose
    logarithms black pixels have none of.
    """
    theirs, ours = _Moments(), _Moments()
    for rows in bands(*size):
        weight = weights(rows)
        theirs.add(_to_lab(picture(rows)), weight)
        ours.add(_to_lab(translation(rows)), weight)
    gain = (theirs.deviation() / np.maximum(ours.deviation(), 1e-3)).astype(np.float32)
    shift = (theirs.mean() - ours.mean() * gain).astype(np.float32)
    return lambda _, after: _from_lab(_to_lab(after) * gain + shift)


class _Moments:
    """The mean and deviation of channels, gathered over bands."""

    def __init__(self) -> None:
        self.count: NDArray[np.float64] = np.zeros(1)
        self.sum: NDArray[np.float64] = np.zeros(3)
        self.squares: NDArray[np.float64] = np.zeros(3)

    def add(self, values: Floats, weight: Floats) -> None:
        weights, flat = weight.reshape(-1), values.reshape(-1, 3)
        self.count += weights.sum(dtype=np.float64)
        self.sum += weights @ flat
        self.squares += weights @ (flat * flat)

    def mean(self) -> NDArray[np.float64]:
        return self.sum / np.maximum(self.count, 1e-9)

    def deviation(self) -> NDArray[np.float64]:
        return np.sqrt(np.maximum(self.squares / np.maximum(self.count, 1e-9) - self.mean() ** 2, 0))


def _to_lab(rgb: Floats) -> Floats:
    """CIELAB, L* from -16 for lack of its constant, which no difference of colours needs."""
    relative = to_linear(np.clip(rgb, 0, 1)) @ _TO_RELATIVE
    roots = np.where(relative > _TOE**3, np.cbrt(relative), relative / (3 * _TOE**2) + 4 / 29)
    lab: Floats = roots.astype(np.float32) @ _TO_LAB
    return lab


def _from_lab(lab: Floats) -> Floats:
    """sRGB of what `_to_lab` gives; colours that sRGB lacks lose chroma, not their hue."""
    roots = lab @ _FROM_LAB
    relative: Floats = np.where(roots > _TOE, roots * roots * roots, (roots - 4 / 29) * (3 * _TOE**2))
    linear = relative.astype(np.float32) @ _FROM_RELATIVE
    return from_linear(_into_gamut(linear, np.clip(relative[..., 1], 0, 1)))


def _into_gamut(colours: Floats, gray: Floats) -> Floats:
    """Colours drawn towards the gray of their own lightness, (rows, w), from 0 to 1, until none is outside 0 to 1."""
    red, green, blue = np.moveaxis(colours, -1, 0)  # numpy reduces axes of three slowly
    above = np.maximum(np.maximum(red, green), blue) - gray
    below = gray - np.minimum(np.minimum(red, green), blue)
    upper, lower = np.maximum(1 - gray, _TINY), np.maximum(gray, _TINY)
    share = np.minimum(upper / np.maximum(above, upper), lower / np.maximum(below, lower))[..., None]
    inside: Floats = gray[..., None] * (1 - share) + colours * share
    return inside
