"""Images as arrays and tensors: uint8 RGB of shape (h, w, 3) outside, float [-1, 1] inside."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_nst.core.errors import DataError
from gan_nst.core.options import Resize

ImageArray = NDArray[np.uint8]


def resize_image(image: ImageArray, size: int, how: Resize) -> ImageArray:
    """Resizes an image to a shorter side of `size` pixels ("short_side"), to a square ("squash"), or not ("none").

    Bicubic with antialiasing (Pillow's), like the published recipes.
    """
    height, width = image.shape[:2]
    if how == "none":
        return image
    if how == "squash":
        target = (size, size)
    else:
        scale = size / min(height, width)
        target = (max(size, round(width * scale)), max(size, round(height * scale)))
    if target == (width, height):
        return image
    return np.array(Image.fromarray(image).resize(target, Image.Resampling.BICUBIC))


def shrink_image(image: ImageArray, size: int | None) -> ImageArray:
    """Shrinks an image to a shorter side of `size` pixels; unchanged if it is no larger or `size` is None."""
    short = min(image.shape[:2])
    return resize_image(image, min(size or short, short), "short_side")


def bands(height: int, width: int, pixels: int = 1 << 19) -> Iterator[slice]:
    """Yields slices of rows of about `pixels` pixels each, for work whose memory must not grow with the image."""
    rows = max(1, pixels // max(1, width))
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def to_float(images: Tensor) -> Tensor:
    """uint8 images (..., h, w) as float32 in [-1, 1]: 0 becomes -1, 255 becomes 1."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float images in [-1, 1] as uint8, rounded; values outside the range are clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_tensor(image: ImageArray) -> Tensor:
    """An image (h, w, 3) as a uint8 tensor (3, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def to_image(tensor: Tensor) -> ImageArray:
    """A uint8 tensor (3, h, w) as an image (h, w, 3)."""
    image: ImageArray = np.ascontiguousarray(tensor.cpu().numpy().transpose(1, 2, 0))
    return image


def white_of(values: NDArray[np.generic]) -> int:
    """Returns the value of white in an image of more than 8 bits: 65535, or 1 or 255 if floats suggest it. Raises
    DataError for values outside every known range.
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
