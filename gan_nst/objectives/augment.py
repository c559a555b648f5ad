"""Differentiable augmentation keeps discriminators from memorising small data sets (Zhao et al. 2020,
arXiv:2006.10738).

Real and translated images are augmented equally, and the generator's gradient passes through, so that the augmentation
does not leak into its images.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation = Literal["colour", "translation", "cutout"]

_SHIFT = 1 / 8  # of the side, at most
_CUT = 1 / 2  # of the side


def augment(images: Tensor, how: Sequence[Augmentation]) -> Tensor:
    """Returns the images, (n, c, h, w) in about [-1, 1], each augmented by its own random numbers, in the given order.

    "colour": brightness, saturation and contrast; "translation": by up to an eighth of the sides, gray beyond;
    "cutout": a gray square of half the sides. Random numbers come from torch's generator of the images' device.
    """
    for name in how:
        images = _AUGMENTATIONS[name](images)
    return images


def _colour(x: Tensor) -> Tensor:
    brightness, saturation, contrast = _draw(x, 3)
    x = x + (brightness - 0.5)
    gray = x.mean(1, keepdim=True)
    x = (x - gray) * (2 * saturation) + gray
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def _translation(x: Tensor) -> Tensor:
    n, _, height, width = x.shape
    reach_down, reach_right = int(height * _SHIFT + 0.5), int(width * _SHIFT + 0.5)
    down, right = _draw(x, 2)
    down = (down * (2 * reach_down + 1)).long()  # 0 to twice the reach: where to read from the padded image
    right = (right * (2 * reach_right + 1)).long()
    padded = F.pad(x, (reach_right, reach_right, reach_down, reach_down))
    rows, columns = _coordinates(x)
    image = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[image, channel, rows + down, columns + right]


def _cutout(x: Tensor) -> Tensor:
    _, _, height, width = x.shape
    cut_height, cut_width = int(height * _CUT + 0.5), int(width * _CUT + 0.5)
    top, left = _draw(x, 2)
    # The square's centre is anywhere in the image, so it may extend beyond the border.
    top = (top * (height + 1 - cut_height % 2)).long() - cut_height // 2
    left = (left * (width + 1 - cut_width % 2)).long() - cut_width // 2
    rows, columns = _coordinates(x)
    inside = (rows >= top) & (rows < top + cut_height) & (columns >= left) & (columns < left + cut_width)
    return x * ~inside


def _draw(x: Tensor, count: int) -> Sequence[Tensor]:
    """Returns `count` random numbers in [0, 1) for every image, each of shape (n, 1, 1, 1)."""
    return torch.rand(len(x), count, 1, 1, 1, device=x.device, dtype=x.dtype).unbind(1)


def _coordinates(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the coordinates of rows, (1, 1, h, 1), and of columns, (1, 1, 1, w)."""
    height, width = x.shape[2:]
    return (
        torch.arange(height, device=x.device)[None, None, :, None],
        torch.arange(width, device=x.device)[None, None, None, :],
    )


_AUGMENTATIONS = {"colour": _colour, "translation": _translation, "cutout": _cutout}
