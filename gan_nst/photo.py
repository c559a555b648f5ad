"""Pictures with all that their files say of them: alpha, 16 bits, EXIF, colour profile."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Chroma = Literal["4:4:4", "4:2:2", "4:2:0"]

LARGEST = 512_000_000  # pixels


@dataclass(frozen=True)
class Photo:
    """A picture, upright and in sRGB.

    pixels: RGB, (h, w, 3), uint8, or uint16 where its file has more than 8 bits. alpha: (h, w), of the same type.
    exif: its file's, with the orientation reset.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    exif: bytes | None = None


@dataclass(frozen=True)
class Encoding:
    """How pictures are written: JPEG's, WebP's and AVIF's quality, 1 to 100, and JPEG's and AVIF's chroma."""

    quality: int = 92
    chroma: Chroma = "4:4:4"


def read_photo(path: Path, largest: int = LARGEST) -> Photo:
    """The picture in a file. Raises DataError, one line, for what cannot be read whole, or has more pixels than
    `largest`.
    """
    raise NotImplementedError


def write_photo(photo: Photo, path: Path, encoding: Encoding | None = None) -> None:
    """Writes a picture in the format of the path's suffix, whole or not at all. Raises DataError when it cannot."""
    raise NotImplementedError
