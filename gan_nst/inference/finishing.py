"""What is done to a picture before the network sees it, and to the translation after.

Before (`prepare`): colours under full transparency give way to the visible ones beside them, so that no unseen
colour is carried into what is seen; then the picture is resized by `scale`.
After (`complete`): the translation is brought back to full size with the picture's detail; then takes on the picture's
colours; then is blended with the picture; then is rounded, once. Alpha and EXIF stay the photo's.

The work goes in bands of rows, in float32, sRGB values from 0 to 1, so that its memory hardly grows with the picture.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from gan_nst.errors import SettingsError
from gan_nst.images import bands
from gan_nst.inference.bandwise import Rows, in_floats, reduced
from gan_nst.inference.colours import Recolour, keep_chroma, keep_statistics
from gan_nst.inference.detail import carried_detail
from gan_nst.inference.hidden import without_hidden_colours
from gan_nst.photo import Photo, Pixels
from gan_nst.profiles import from_linear, to_linear

PreserveColor = Literal["none", "luma", "statistics"]


@dataclass(frozen=True)
class Finish:
    """preserve_color: what of the input's colours the output keeps. strength: 0 (the input) to 1 (the translation),
    blended in linear light. scale: of the size at which the network works, 0 < scale <= 1. Raises SettingsError.
    """

    preserve_color: PreserveColor = "none"
    strength: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.preserve_color not in get_args(PreserveColor):
            known = ", ".join(get_args(PreserveColor))
            raise SettingsError(f"--preserve-color {self.preserve_color}: must be one of {known}")
        if not 0 <= self.strength <= 1:
            raise SettingsError(f"--strength {self.strength:g}: must be from 0 to 1")
        if not 0 < self.scale <= 1:
            raise SettingsError(f"--scale {self.scale:g}: must be above 0 and at most 1")


def prepare(photo: Photo, finish: Finish) -> Pixels:
    """What the network is given: (h', w', 3), of the type of the photo's pixels."""
    return reduced(without_hidden_colours(photo), finish.scale)


def complete(photo: Photo, translated: Pixels, finish: Finish) -> Photo:
    """The photo with its translation's pixels: of the photo's size, with its alpha and EXIF.

    translated: of the size and type that `prepare` gave.
    """
    if finish.strength == 0:
        return photo
    if finish == Finish():
        return Photo(translated, photo.alpha, photo.exif)
    pixels = without_hidden_colours(photo)
    height, width = pixels.shape[:2]
    source, translation = in_floats(pixels), in_floats(translated)
    if finish.scale < 1:
        translation = carried_detail(pixels, reduced(pixels, finish.scale), translated)
    recolour = _recolour(photo, source, translation, finish)
    completed = np.empty_like(pixels)
    white = np.iinfo(pixels.dtype).max
    for rows in bands(height, width):
        before, after = source(rows), translation(rows)
        if recolour:
            after = recolour(before, after)
        if finish.strength < 1:
            mixed = (
                to_linear(before) * (1 - finish.strength) + to_linear(np.clip(after, 0, 1)) * finish.strength
            )
            after = from_linear(mixed)
        completed[rows] = np.clip(np.rint(after * white), 0, white)
    return Photo(completed, photo.alpha, photo.exif)


def _recolour(photo: Photo, picture: Rows, translation: Rows, finish: Finish) -> Recolour | None:
    if finish.preserve_color == "luma":
        return keep_chroma
    if finish.preserve_color == "none":
        return None
    height, width = photo.pixels.shape[:2]
    weights = _alike(width) if photo.alpha is None else in_floats(photo.alpha[..., None])
    return keep_statistics(picture, translation, weights, height, width)


def _alike(width: int) -> Rows:
    return lambda rows: np.ones((rows.stop - rows.start, width, 1), np.float32)
