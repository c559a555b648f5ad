"""A generator made usable: any picture in, the translated picture of the same size out."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from gan_nst.images import Picture, to_float, to_picture, to_rgb, to_tensor, to_uint8
from gan_nst.inference.exported import Description
from gan_nst.precision import autocast, choose_device, choose_precision, memory_format

_SMALLEST = 16  # pixels; reflection inside the networks needs more than their padding


class Translator:
    """Translates pictures with one generator.

    generator: maps (n, 3, h, w) in [-1, 1] to the same; its `multiple` divides the sizes it takes.
    """

    def __init__(
        self, generator: nn.Module, description: Description, device: str = "auto", precision: str = "auto"
    ) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.description = description
        layout = memory_format(self.device)
        self.generator = generator.to(self.device).to(memory_format=layout).requires_grad_(False).eval()
        self._multiple = int(getattr(generator, "multiple", 1))

    @overload
    def __call__(self, picture: Image.Image) -> Image.Image: ...
    @overload
    def __call__(self, picture: Picture) -> Picture: ...
    def __call__(self, picture: Image.Image | Picture) -> Image.Image | Picture:
        """The translated picture, as wide and high: a Pillow image for one, an RGB uint8 array (h, w, 3) for
        one.
        """
        if isinstance(picture, Image.Image):
            return Image.fromarray(self.translate([to_rgb(picture)])[0])
        return self.translate([picture])[0]

    @torch.inference_mode()
    def translate(self, pictures: Sequence[Picture]) -> list[Picture]:
        """The translations of pictures of one size, in one pass: RGB uint8 (h, w, 3) in and out."""
        for picture in pictures:
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
                raise ValueError(
                    f"expected RGB uint8 of shape (h, w, 3), got {picture.dtype} {picture.shape}"
                )
        batch = to_float(torch.stack([to_tensor(picture) for picture in pictures]).to(self.device))
        height, width = batch.shape[2:]
        with autocast(self.precision, self.device):
            output = self.generator(pad_to_multiple(batch, self._multiple))
        return [to_picture(x) for x in to_uint8(output[:, :, :height, :width])]

    def scale_of(self, height: int, width: int) -> float:
        """How many times larger a picture's shorter side is than those of the training."""
        return min(height, width) / self.description.training_scale.load_size


def pad_to_multiple(pictures: Tensor, multiple: int) -> Tensor:
    """Pictures (n, c, h, w) grown at the right and bottom to multiples, and to what the networks need.

    By reflection; tiny pictures, which have too little to reflect, repeat their edge.
    """
    height, width = pictures.shape[2:]
    down = _missing(height, multiple)
    right = _missing(width, multiple)
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(pictures, (0, right, 0, down), mode=mode) if down or right else pictures


def _missing(length: int, multiple: int) -> int:
    target = max(length, _SMALLEST, 2 * multiple)  # at the lowest resolution 2 pixels are left to reflect
    return -(-target // multiple) * multiple - length
