"""Colours that nobody sees, under full transparency: a network would carry them into what is seen."""

import numpy as np

from gan_nst.images import bands
from gan_nst.inference.bandwise import enlarged
from gan_nst.photo import Photo, Pixels
from gan_nst.profiles import Floats

_BLOCKS = 1 << 20  # at most about so many


def without_hidden_colours(photo: Photo) -> Pixels:
    """The photo's pixels, those where alpha is 0 replaced by the visible colours around them; its own array where
    there are none.

    Push-pull (Gortler et al., The Lumigraph, 1996, section 3.4) of the means of blocks of visible colours: what is
    hidden has the colour of its block or, where nothing is seen in it, of the smallest larger one where something is,
    blending into its neighbours.
    """
    pixels, alpha = photo.pixels, photo.alpha
    if alpha is None or alpha.all():
        return pixels
    height, width = alpha.shape
    white = np.iinfo(pixels.dtype).max
    if not alpha.any():
        return np.full_like(pixels, white)
    side = int(np.ceil(np.sqrt(height * width / _BLOCKS)))
    down, across = -(-height // side), -(-width // side)
    sums = np.zeros((down, across, 4), np.float32)
    per_band = next(bands(down, across * side * side)).stop
    for first in range(0, down, per_band):
        rows = slice(first * side, (first + per_band) * side)
        weight = alpha[rows, :, None].astype(np.float32) / white
        seen = np.concatenate([pixels[rows] * weight / white, weight], 2)
        seen = np.pad(seen, ((0, -len(seen) % side), (0, -width % side), (0, 0)))
        sums[first : first + per_band] = seen.reshape(-1, side, across, side, 4).sum((1, 3))
    extended = _extended(sums)
    colours = enlarged(lambda rows: extended[rows], down, down * side, across * side)
    filled = pixels.copy()
    for rows in bands(height, width):
        hidden = alpha[rows] == 0
        if hidden.any():
            filled[rows][hidden] = np.rint(colours(rows)[:, :width][hidden] * white)
    return filled


def _extended(sums: Floats) -> Floats:
    """Colours (h, w, 3) of weighted sums (h, w, 4): their means, and coarser levels' where the weight is 0."""
    weight = sums[..., 3:]
    means = (sums[..., :3] / np.maximum(weight, 1e-30)).astype(np.float32)
    if weight.all():
        return means
    height, width = weight.shape[:2]
    even = np.pad(sums, ((0, height % 2), (0, width % 2), (0, 0)))
    coarse = _extended(even.reshape(-(-height // 2), 2, -(-width // 2), 2, 4).sum((1, 3)))
    blended = enlarged(lambda rows: coarse[rows], len(coarse), 2 * len(coarse), 2 * coarse.shape[1])
    return np.where(weight > 0, means, blended(slice(0, height))[:, :width])
