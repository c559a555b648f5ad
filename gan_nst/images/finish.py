"""Prepares a photo for the network, and completes its translation.

`prepare` replaces colours under full transparency by the visible ones around them, so that hidden colours do not leak
into visible ones, and resizes by `scale`. `complete` restores the full size with the photo's detail, applies the
photo's colours, blends with the photo, and rounds once. Alpha and EXIF are the photo's.

All work is done in bands of rows, in float32, sRGB values from 0 to 1, so that memory hardly grows with the image.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from gan_nst.core.options import Finish
from gan_nst.images.arrays import bands
from gan_nst.images.colour import Floats, from_linear, to_linear
from gan_nst.images.photo import Photo, Pixels

Rows = Callable[[slice], Floats]  # returns a band of an image: (rows, w, c)
Size = tuple[int, int]  # height, width

# Recolours a band of the translation, given the same band of the image: (rows, w, 3), 0 to 1.
Recolour = Callable[[Floats, Floats], Floats]

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709's
# IEC 61966-2-1's linear RGB to XYZ, each relative to its white (D65) as in CIELAB; then CIELAB's own differences.
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_RELATIVE = _XYZ / _XYZ.sum(1, keepdims=True)
_LAB = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]])
_TO_RELATIVE = _RELATIVE.T.astype(np.float32)
_FROM_RELATIVE = np.linalg.inv(_RELATIVE).T.astype(np.float32)
_TO_LAB = _LAB.T.astype(np.float32)
_FROM_LAB = np.linalg.inv(_LAB).T.astype(np.float32)
_TOE = 6 / 29
_TINY = 1e-6

_RADIUS = 2
_FLAT = 1e-4  # variance, of values from 0 to 1, below which a neighbourhood counts as flat: 2.5 levels
_BLOCKS = 1 << 20  # that hidden colours are filled in at, at most about


def prepare(photo: Photo, finish: Finish) -> Pixels:
    """Returns the network's input, (h', w', 3), of the type of the photo's pixels: the pixels themselves if there is
    nothing to do.
    """
    if finish.scale == 1 and (photo.alpha is None or photo.alpha.all()):
        return photo.pixels
    image, size = visible_colours(photo), _size(photo)
    if finish.scale < 1:
        small = reduced_size(size, finish.scale)
        image, size = reduced(image, size, small), small
    return in_pixels(image, size, like=photo.pixels)


def complete(photo: Photo, translated: Pixels, finish: Finish) -> Photo:
    """Returns the photo with its translation's pixels, at the photo's size and with its alpha and EXIF.

    translated: of the size and type that `prepare` returned.
    """
    if finish.strength == 0:
        return photo
    if finish.is_plain:
        return Photo(translated, photo.alpha, photo.exif)
    size, image, translation = _size(photo), visible_colours(photo), in_floats(translated)
    if finish.scale < 1:
        translation = carried_detail(image, translation, size, reduced_size(size, finish.scale))
    recolour = _recolour(photo, image, translation, finish)

    def band(rows: slice) -> Floats:
        before, after = image(rows), translation(rows)
        if recolour:
            after = recolour(before, after)
        if finish.strength == 1:
            return after
        light = to_linear(before) * (1 - finish.strength) + to_linear(np.clip(after, 0, 1)) * finish.strength
        return from_linear(light)

    return Photo(in_pixels(band, size, like=photo.pixels), photo.alpha, photo.exif)


def _recolour(photo: Photo, image: Rows, translation: Rows, finish: Finish) -> Recolour | None:
    if finish.preserve_color == "luma":
        return keep_chroma
    if finish.preserve_color == "none":
        return None
    size = _size(photo)
    weights = _uniform(size[1]) if photo.alpha is None else in_floats(photo.alpha[..., None])
    return keep_statistics(image, translation, weights, size)


def _uniform(width: int) -> Rows:
    return lambda rows: np.ones((rows.stop - rows.start, width, 1), np.float32)


def _size(photo: Photo) -> Size:
    return photo.pixels.shape[0], photo.pixels.shape[1]


def in_floats(pixels: Pixels) -> Rows:
    """Pixels as values from 0 to 1."""
    white = np.float32(np.iinfo(pixels.dtype).max)
    return lambda rows: pixels[rows].astype(np.float32) / white


def in_pixels(values: Rows, size: Size, like: Pixels) -> Pixels:
    """An image's values as pixels of the type of `like`, rounded and clipped to 0 to 1."""
    pixels, white = np.empty((*size, 3), like.dtype), np.iinfo(like.dtype).max
    for rows in bands(*size):
        pixels[rows] = np.clip(np.rint(values(rows) * white), 0, white)
    return pixels


def reduced_size(size: Size, scale: float) -> Size:
    """The size multiplied by `scale`, at most 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduced(values: Rows, size: Size, small: Size) -> Rows:
    """An image reduced to a smaller size by averaging areas."""
    step = size[0] / small[0]

    def band(rows: slice) -> Floats:
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

    return band


def enlarged(values: Rows, small: Size, size: Size) -> Rows:
    """An image enlarged bilinearly, with the outer edges aligned."""

    def band(rows: slice) -> Floats:
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

    return band


def visible_colours(photo: Photo) -> Rows:
    """The photo's pixels, with those where alpha is 0 replaced by the visible colours around them, or by white if there
    are none.

    Push-pull (Gortler et al., The Lumigraph, 1996, section 3.4) on means of blocks of visible colours: hidden pixels
    get the colour of their block or, where it has nothing visible, of the smallest larger block that has, interpolated.
    """
    pixels, alpha = in_floats(photo.pixels), photo.alpha
    if alpha is None or alpha.all():
        return pixels
    height, width = alpha.shape
    if not alpha.any():
        return lambda rows: np.ones((rows.stop - rows.start, width, 3), np.float32)
    side = int(np.ceil(np.sqrt(height * width / _BLOCKS)))
    extended = _extended(_sums(pixels, in_floats(alpha[..., None]), (height, width), side))
    blocks = extended.shape[0], extended.shape[1]
    colours = enlarged(lambda rows: extended[rows], blocks, (blocks[0] * side, blocks[1] * side))

    def band(rows: slice) -> Floats:
        visible, hidden = pixels(rows), alpha[rows] == 0
        if hidden.any():
            visible[hidden] = colours(rows)[:, :width][hidden]
        return visible

    return band


def _sums(colours: Rows, weights: Rows, size: Size, side: int) -> Floats:
    """Sums of weighted colours and of weights over blocks of `side` x `side` pixels: (h', w', 4)."""
    down, across = -(-size[0] // side), -(-size[1] // side)
    sums = np.zeros((down, across, 4), np.float32)
    for blocks in bands(down, across * side * side):
        rows = slice(blocks.start * side, min(blocks.stop * side, size[0]))
        weight = weights(rows)
        seen = np.concatenate([colours(rows) * weight, weight], 2)
        seen = np.pad(seen, ((0, -len(seen) % side), (0, -size[1] % side), (0, 0)))
        shape = (across, blocks.stop - blocks.start)
        sums[blocks] = cv2.resize(seen, shape, interpolation=cv2.INTER_AREA) * side**2  # from the means
    return sums


def _extended(sums: Floats) -> Floats:
    """Turns weighted sums (h, w, 4) into mean colours (h, w, 3), from coarser levels where the weight is 0."""
    weight = sums[..., 3:]
    means = (sums[..., :3] / np.maximum(weight, 1e-30)).astype(np.float32)
    if weight.all():
        return means
    height, width = weight.shape[:2]
    even = np.pad(sums, ((0, height % 2), (0, width % 2), (0, 0)))
    coarse = _extended(even.reshape(-(-height // 2), 2, -(-width // 2), 2, 4).sum((1, 3)))
    blended = enlarged(lambda rows: coarse[rows], coarse.shape[:2], even.shape[:2])
    return np.where(weight > 0, means, blended(slice(0, height))[:, :width])


def carried_detail(image: Rows, translation: Rows, size: Size, small: Size) -> Rows:
    """Restores the image's size and detail in a translation at a smaller size: enlarges it, and adds what the image
    loses when reduced, multiplied by the share of the image's contrast that the translation kept.

    That gain is the slope of the fast guided filter (He and Sun, arXiv:1505.00996) for each channel. The filter itself,
    slope and offset, is closer to a full-size translation in PSNR, but looks like the photograph, without outlines and
    flat areas, and is far off in LPIPS. Detail without gain (as of a Laplacian pyramid) adds the photograph's noise to
    flat areas.
    """
    before = reduced(image, size, small)
    smooth, coarse = enlarged(before, small, size), enlarged(translation, small, size)
    gain = enlarged(_slope(before, translation, small[0]), small, size)
    return lambda rows: coarse(rows) + gain(rows) * (image(rows) - smooth(rows))


def _slope(before: Rows, after: Rows, height: int) -> Rows:
    """The slope of the translation's values over the image's around each pixel: (rows, w, 3)."""
    margin = 2 * _RADIUS  # slopes are averaged, and computed from averages

    def band(rows: slice) -> Floats:
        around = slice(max(0, rows.start - margin), min(height, rows.stop + margin))
        old, new = before(around), after(around)
        mean = _mean(old)
        variance = (_mean(old * old) - mean * mean).clip(min=0)
        covariance = _mean(old * new) - mean * _mean(new)
        slopes = _mean((covariance / (variance + _FLAT)).astype(np.float32))
        return slopes[rows.start - around.start : rows.stop - around.start]

    return band


def _mean(values: Floats) -> Floats:
    side = 2 * _RADIUS + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def keep_chroma(image: Floats, translation: Floats) -> Floats:
    """Combines the image's chroma, Cb and Cr, with the translation's luma, Y', in Rec. 709's Y'CbCr.

    Gatys et al., Preserving Color in Neural Artistic Style Transfer, arXiv:1606.05897, section 3.2, who use Y'IQ.
    """
    luma = np.clip(translation @ _LUMA, 0, 1)
    return _into_gamut(image + (luma - image @ _LUMA)[..., None], luma)


def keep_statistics(image: Rows, translation: Rows, weights: Rows, size: Size) -> Recolour:
    """Gives the translation the image's mean and deviation in each channel of CIELAB; weights: of pixels, (rows, w, 1).

    Reinhard et al., Color Transfer between Images, 2001, who use another decorrelated space, whose logarithms are
    undefined for black.
    """
    of_image, of_translation = _Moments(), _Moments()
    for rows in bands(*size):
        weight = weights(rows)
        of_image.add(_to_lab(image(rows)), weight)
        of_translation.add(_to_lab(translation(rows)), weight)
    gain = (of_image.deviation() / np.maximum(of_translation.deviation(), 1e-3)).astype(np.float32)
    shift = (of_image.mean() - of_translation.mean() * gain).astype(np.float32)
    return lambda _, after: _from_lab(_to_lab(after) * gain + shift)


class _Moments:
    """The weighted mean and deviation of channels, accumulated over bands."""

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
    """CIELAB without the constant of L*, which colour differences do not need."""
    relative = to_linear(np.clip(rgb, 0, 1)) @ _TO_RELATIVE
    roots = np.where(relative > _TOE**3, np.cbrt(relative), relative / (3 * _TOE**2) + 4 / 29)
    lab: Floats = roots.astype(np.float32) @ _TO_LAB
    return lab


def _from_lab(lab: Floats) -> Floats:
    """The inverse of `_to_lab`; colours outside sRGB lose chroma but keep their hue."""
    roots = lab @ _FROM_LAB
    relative: Floats = np.where(roots > _TOE, roots * roots * roots, (roots - 4 / 29) * (3 * _TOE**2))
    linear = relative.astype(np.float32) @ _FROM_RELATIVE
    return from_linear(_into_gamut(linear, np.clip(relative[..., 1], 0, 1)))


def _into_gamut(colours: Floats, gray: Floats) -> Floats:
    """Colours moved towards the gray of their own lightness, (rows, w), until they are within 0 to 1."""
    red, green, blue = np.moveaxis(colours, -1, 0)  # numpy is slow to reduce axes of length three
    above = np.maximum(np.maximum(red, green), blue) - gray
    below = gray - np.minimum(np.minimum(red, green), blue)
    upper, lower = np.maximum(1 - gray, _TINY), np.maximum(gray, _TINY)
    share = np.minimum(upper / np.maximum(above, upper), lower / np.maximum(below, lower))[..., None]
    inside: Floats = gray[..., None] * (1 - share) + colours * share
    return inside
