"""Images as arrays and tensors: uint8 RGB of shape (h, w, 3) outside, float [-1, 1] inside."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_nst.core.errors import DataError

Picture = NDArray[np.uint8]


Resize = Literal["short_side", "squash", "none"]


def resize_picture(picture: Picture, size: int, how: Resize) -> Picture:
    """The picture with its shorter side `size` pixels ("short_side"), `size` square ("squash"), or as it is
    ("none").

    Bicubic with antialiasing (Pillow's), as the published recipes resize.
    """
    height, width = picture.shape[:2]
    if how == "none":
        return picture
    if how == "squash":
        target = (size, size)
    else:
        scale = size / min(height, width)
        target = (max(size, round(width * scale)), max(size, round(height * scale)))
    if target == (width, height):
        return picture
    return np.array(Image.fromarray(picture).resize(target, Image.Resampling.BICUBIC))


def shrink_picture(picture: Picture, size: int | None) -> Picture:
    """The picture with its shorter side `size` pixels, or as it is where that is no smaller or `size` is None."""
    short = min(picture.shape[:2])
    return resize_picture(picture, min(size or short, short), "short_side")


def bands(height: int, width: int, pixels: int = 1 << 19) -> Iterator[slice]:
    """A picture's rows in slices of about `pixels` pixels, for work whose memory must not grow with the picture."""
    rows = max(1, pixels // max(1, width))
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def to_float(pictures: Tensor) -> Tensor:
    """uint8 pictures (..., h, w) as float32 in [-1, 1]: 0 becomes -1, 255 becomes 1."""
    return pictures.to(torch.float32) / 127.5 - 1


def to_uint8(pictures: Tensor) -> Tensor:
    """Float pictures in [-1, 1] as uint8, rounded; values outside the range are clipped."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_tensor(picture: Picture) -> Tensor:
    """A picture (h, w, 3) as a uint8 tensor (3, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def to_picture(tensor: Tensor) -> Picture:
    """A uint8 tensor (3, h, w) as a picture (h, w, 3)."""
    picture: Picture = np.ascontiguousarray(tensor.cpu().numpy().transpose(1, 2, 0))
    return picture


def white_of(values: NDArray[np.generic]) -> int:
    """What white is among values of more than 8 bits: 65535, or 1 or 255 where floats show it. Raises DataError for
    values out of any range.
    """
    floats = values.dtype.kind == "f"
    if floats and not np.isfinite(values).all():
        raise DataError("has values that are not finite")
    largest = values.max(initial=0)
    if values.min(initial=0) < 0 or largest > 65535:
        raise DataError("has values outside 0 to 65535, whose range is unknown")
    if floats and largest <= 255:
        return 1 if largest <= 1 else 255
    return 65535
