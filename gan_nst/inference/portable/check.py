"""Compares an exported file with the translator."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gan_nst.core.errors import CheckpointError
from gan_nst.images.arrays import ImageArray, to_tensor
from gan_nst.inference.translator import Translator

# Batch, height and width: the smallest, too small to reflect, multiples of nothing, and a batch.
SIZES = ((1, 1, 1), (1, 3, 5), (1, 1, 50), (1, 9, 8), (2, 37, 23), (1, 64, 80))


@dataclass(frozen=True)
class Agreement:
    """How far a file's images are from the translator's.

    largest: difference of any value, in steps of 255. psnr: over the real images, in dB; infinite where they are equal.
    images: how many were compared.
    """

    largest: float
    psnr: float
    images: int

    def __str__(self) -> str:
        return (
            f"largest difference {self.largest:.2g}/255 over {self.images} images, PSNR {self.psnr:.1f} dB over the "
            "real ones"
        )


def compare(
    run: Callable[[Tensor], Tensor], translator: Translator, real: Sequence[ImageArray], pixels: str
) -> Agreement:
    """Compares `run` with a translator in float32, on noise of awkward sizes and on real images.

    run: maps images (n, 3, h, w), uint8 or (pixels "float") in [0, 1], to the same. Raises CheckpointError when its
    images have another size or are not finite.
    """
    source = np.random.default_rng(0)
    noise = [source.integers(0, 256, (n, h, w, 3), np.uint8) for n, h, w in SIZES]
    differences = [
        _difference(run, translator, list(batch), pixels) for batch in (*noise, *(p[None] for p in real))
    ]
    mean_square = torch.cat([d.flatten() for d in differences[len(noise) :]]).square().mean().item()
    return Agreement(
        largest=max(difference.max().item() for difference in differences),
        psnr=10 * math.log10(255**2 / mean_square) if mean_square else math.inf,
        images=sum(map(len, differences)),
    )


def _difference(
    run: Callable[[Tensor], Tensor], translator: Translator, images: Sequence[ImageArray], pixels: str
) -> Tensor:
    """The absolute differences, (n, 3, h, w), in steps of 255; float images are compared at 16 bits."""
    batch = torch.stack([to_tensor(image) for image in images])
    found = run(batch if pixels == "uint8" else batch / 255)
    if found.shape != batch.shape or not found.isfinite().all():
        raise CheckpointError(
            f"made {tuple(found.shape)} of {tuple(batch.shape)}, or values that are not finite"
        )
    if pixels == "uint8":
        wanted, steps = np.stack(translator.translate(images)).astype(np.float64), found.double()
    else:
        wide = [image.astype(np.uint16) * np.uint16(257) for image in images]
        wanted, steps = np.stack(translator.translate(wide)) / 257, found.double() * 255
    return (steps - torch.from_numpy(wanted).permute(0, 3, 1, 2)).abs()
