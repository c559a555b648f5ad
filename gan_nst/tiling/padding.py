"""Pictures grown at the right and bottom to sizes that a network takes."""

from typing import Literal

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SMALLEST = 16  # pixels; reflection inside the networks needs more than their padding


def missing(length: int, multiple: int) -> int:
    """By how many pixels a side is padded: to a multiple, and to what the networks need."""
    target = max(length, SMALLEST, 2 * multiple)  # at the lowest resolution 2 pixels are left to reflect
    return -(-target // multiple) * multiple - length


def pad_to_multiple(pictures: Tensor, multiple: int) -> Tensor:
    """Pictures (n, c, h, w) padded by reflection; tiny ones, which have too little to reflect, repeat their edge."""
    height, width = pictures.shape[2:]
    down, right = missing(height, multiple), missing(width, multiple)
    return (
        F.pad(pictures, (0, right, 0, down), mode=_mode(height, width, multiple))
        if down or right
        else pictures
    )


def padded_places(height: int, width: int, multiple: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which rows and which columns of a picture make the one that `pad_to_multiple` makes of it."""
    mode = _mode(height, width, multiple)
    return _places(height, multiple, mode), _places(width, multiple, mode)


def _places(length: int, multiple: int, mode: str) -> NDArray[np.intp]:
    at = np.arange(length + missing(length, multiple))
    return np.where(at < length, at, 2 * (length - 1) - at if mode == "reflect" else length - 1)


def _mode(height: int, width: int, multiple: int) -> Literal["reflect", "replicate"]:
    enough = missing(height, multiple) < height and missing(width, multiple) < width
    return "reflect" if enough else "replicate"
