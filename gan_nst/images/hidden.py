"""Colours that nobody sees, under full transparency: a network would carry them into what is seen."""

import cv2
import numpy as np

from gan_nst.images.bandwise import Rows, Size, enlarged, in_floats
from gan_nst.images.files import bands
from gan_nst.images.photo import Photo
from gan_nst.images.profiles import Floats

_BLOCKS = 1 << 20  # at most about so many


def visible_colours(photo: Photo) -> Rows:
    """The photo's pixels, those where alpha is 0 replaced by the visible colours around them; white where there are
    none.

    Push-pull (Gortler et al., The Lumigraph, 1996, section 3.4) of the means of blocks of visible colours: what is
    hidden has the colour of its block or, where nothing is seen in it, of the smallest larger one where something is,
    blending into its neighbours.
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

    def give(rows: slice) -> Floats:
        band, hidden = pixels(rows), alpha[rows] == 0
        if hidden.any():
            band[hidden] = colours(rows)[:, :width][hidden]
        return band

    return give


def _sums(colours: Rows, weights: Rows, size: Size, side: int) -> Floats:
    """The sums, over blocks of `side` pixels a side, of weighted colours and of weights: (h', w', 4)."""
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
    """Colours (h, w, 3) of weighted sums (h, w, 4): their means, and coarser levels' where the weight is 0."""
    weight = sums[..., 3:]
    means = (sums[..., :3] / np.maximum(weight, 1e-30)).astype(np.float32)
    if weight.all():
        return means
    height, width = weight.shape[:2]
    even = np.pad(sums, ((0, height % 2), (0, width % 2), (0, 0)))
    coarse = _extended(even.reshape(-(-height // 2), 2, -(-width // 2), 2, 4).sum((1, 3)))
    blended = enlarged(lambda rows: coarse[rows], coarse.shape[:2], even.shape[:2])
    return np.where(weight > 0, means, blended(slice(0, height))[:, :width])
