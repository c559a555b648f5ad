"""Whether an exported file makes of images what the translator makes of them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from gan_nst.core.errors import CheckpointError
from gan_nst.images.arrays import ImageArray, to_float, to_tensor
from gan_nst.inference.translator import Translator
from gan_nst.tiling.strips import pad_to_multiple

# Batch, height and width: the smallest there is, less than can be reflected, no multiples of anything, and a batch.
SIZES = ((1, 1, 1), (1, 3, 5), (1, 1, 50), (1, 9, 8), (2, 37, 23), (1, 64, 80))

_DISTURBANCE = 1e-6  # of a range from -1 to 1: ten times what float32 rounds off
_STEADY = 1 / 255


@dataclass(frozen=True)
class Agreement:
    """How far a file's images are from the translator's.

    largest: difference of any value, in steps of 255. psnr: over the real images, in dB; infinite where they are
    equal. images: how many were compared. unsteady: how many besides, for which the network itself gives no answer.
    """

    largest: float
    psnr: float
    images: int
    unsteady: int

    def __str__(self) -> str:
        skipped = (
            f" ({self.unsteady} more are left to rounding by the network itself)" if self.unsteady else ""
        )
        return (
            f"largest difference {self.largest:.2g}/255 over {self.images} images{skipped}, "
            f"PSNR {self.psnr:.1f} dB over the real ones"
        )


def compare(
    run: Callable[[Tensor], Tensor], translator: Translator, real: Iterable[ImageArray], pixels: str
) -> Agreement:
    """How far `run` is from a translator in float32, on noise of awkward sizes and on real images.

    run: maps images (n, 3, h, w), uint8 or (pixels "float") in [0, 1], to the same. Raises CheckpointError when its
    images have another size or are not finite, or when no real image could be compared.
    """
    source = np.random.default_rng(0)
    noise = [source.integers(0, 256, (n, h, w, 3), np.uint8) for n, h, w in SIZES]
    largest, squares, values, compared, unsteady = 0.0, 0.0, 0, 0, 0
    for batch, is_real in [*((b, False) for b in noise), *((p[None], True) for p in real)]:
        difference = _difference(run, translator, list(batch), pixels)
        if not _steady(translator, batch):
            unsteady += len(batch)
            continue
        compared += len(batch)
        largest = max(largest, float(difference.max()))
        if is_real:
            squares += float(difference.square().sum(dtype=torch.float64))
            values += difference.numel()
    if not values:
        raise CheckpointError("cannot be compared: the network leaves every real image to rounding")
    psnr = 10 * math.log10(255**2 * values / squares) if squares else math.inf
    return Agreement(largest, psnr, compared, unsteady)


def _difference(
    run: Callable[[Tensor], Tensor], translator: Translator, images: Sequence[ImageArray], pixels: str
) -> Tensor:
    """By value, in steps of 255: of uint8 images whole ones; others are compared in 16 bits."""
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


@torch.inference_mode()
def _steady(translator: Translator, batch: np.ndarray) -> bool:
    """Whether the network's answer is more than rounding.

    An instance norm divides by the deviation: where that is next to nothing, what was rounded off, after a few norms,
    is all that is left. Two ways of computing the same network then differ as much as two images.
    """
    multiple = cast(int, getattr(translator.generator, "multiple", 1))
    x = pad_to_multiple(to_float(torch.from_numpy(batch).permute(0, 3, 1, 2)), multiple)
    source = torch.Generator().manual_seed(0)
    moved = x + _DISTURBANCE * torch.randn(x.shape, generator=source)
    change = (translator.generator(moved) - translator.generator(x)).abs()
    return bool(change.max() / 2 <= _STEADY)
