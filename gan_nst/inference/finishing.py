"""What is done to a picture before the network sees it, and to the translation after."""

from dataclasses import dataclass
from typing import Literal

from gan_nst.photo import Photo, Pixels

PreserveColor = Literal["none", "luma", "statistics"]


@dataclass(frozen=True)
class Finish:
    """preserve_color: what of the input's colours the output keeps. strength: 0 (the input) to 1 (the translation),
    blended in linear light. scale: of the size at which the network works, 0 < scale <= 1.
    """

    preserve_color: PreserveColor = "none"
    strength: float = 1.0
    scale: float = 1.0


def prepare(photo: Photo, finish: Finish) -> Pixels:
    """What the network is given: (h', w', 3), of the type of the photo's pixels."""
    raise NotImplementedError


def complete(photo: Photo, translated: Pixels, finish: Finish) -> Photo:
    """The photo with its translation's pixels: of the photo's size, with its alpha and EXIF."""
    raise NotImplementedError
