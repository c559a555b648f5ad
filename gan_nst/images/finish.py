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

from gan_nst.core.errors import SettingsError
from gan_nst.images.bandwise import Rows, Size, in_floats, in_pixels, reduced, reduced_size
from gan_nst.images.colours import Recolour, keep_chroma, keep_statistics
from gan_nst.images.detail import carried_detail
from gan_nst.images.hidden import visible_colours
from gan_nst.images.photo import Photo, Pixels
from gan_nst.images.profiles import Floats, from_linear, to_linear

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
    """What the network is given: (h', w', 3), of the type of the photo's pixels; they themselves where nothing is to
    be done.
    """
    if finish.scale == 1 and (photo.alpha is None or photo.alpha.all()):
        return photo.pixels
    picture, size = visible_colours(photo), _size(photo)
    if finish.scale < 1:
        picture, size = (
            reduced(picture, size, reduced_size(size, finish.scale)),
            reduced_size(size, finish.scale),
        )
    return in_pixels(picture, size, like=photo.pixels)


def complete(photo: Photo, translated: Pixels, finish: Finish) -> Photo:
    """The photo with its translation's pixels: of the photo's size, with its alpha and EXIF.

    translated: of the size and type that `prepare` gave.
    """
    if finish.strength == 0:
        return photo
    if finish == Finish():
        return Photo(translated, photo.alpha, photo.exif)
    size, picture, translation = _size(photo), visible_colours(photo), in_floats(translated)
    if finish.scale < 1:
        translation = carried_detail(picture, translation, size, reduced_size(size, finish.scale))
    recolour = _recolour(photo, picture, translation, finish)

    def give(rows: slice) -> Floats:
        before, after = picture(rows), translation(rows)
        if recolour:
            after = recolour(before, after)
        if finish.strength == 1:
            return after
        light = to_linear(before) * (1 - finish.strength) + to_linear(np.clip(after, 0, 1)) * finish.strength
        return from_linear(light)

    return Photo(in_pixels(give, size, like=photo.pixels), photo.alpha, photo.exif)


def _recolour(photo: Photo, picture: Rows, translation: Rows, finish: Finish) -> Recolour | None:
    if finish.preserve_color == "luma":
        return keep_chroma
    if finish.preserve_color == "none":
        return None
    size = _size(photo)
    weights = _alike(size[1]) if photo.alpha is None else in_floats(photo.alpha[..., None])
    return keep_statistics(picture, translation, weights, size)


def _alike(width: int) -> Rows:
    return lambda rows: np.ones((rows.stop - rows.start, width, 1), np.float32)


def _size(photo: Photo) -> Size:
    return photo.pixels.shape[0], photo.pixels.shape[1]
