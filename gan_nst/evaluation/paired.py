"""How far translations are from the true pictures, where the truth is known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gan_nst.images import Picture


@dataclass(frozen=True)
class PairedScore:
    """error: mean absolute difference, 0 to 1, less is better. ssim: structural similarity, at most 1, more
    is better.
    """

    error: float
    ssim: float


@dataclass(frozen=True)
class ColourStatistics:
    """Mean and deviation of each RGB channel over a set of pictures, in [0, 1]."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def paired_score(pictures: Sequence[Picture], truths: Sequence[Picture]) -> PairedScore:
    """The scores of pictures against the true ones, RGB uint8 (h, w, 3), averaged over the pairs.

    SSIM (Wang et al. 2004) is torchmetrics': Gaussian window of 11 pixels and deviation 1.5, range 1, on RGB,
    reflecting at the borders. Raises ValueError when the two differ in number or in any size.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    errors, similarities = [], []
    for picture, truth in zip(pictures, truths, strict=True):
        if picture.shape != truth.shape:
            raise ValueError(f"a picture of shape {picture.shape} has a truth of shape {truth.shape}")
        x, y = (torch.from_numpy(p.transpose(2, 0, 1)[None] / 255.0) for p in (picture, truth))
        errors.append((x - y).abs().mean().item())
        similarity = structural_similarity_index_measure(
            x, y, gaussian_kernel=True, sigma=1.5, kernel_size=11, data_range=1.0
        )
        similarities.append(float(similarity))
    return PairedScore(float(np.mean(errors)), float(np.mean(similarities)))


def colour_statistics(pictures: Iterable[Picture]) -> ColourStatistics:
    """The statistics of all pixels of the pictures."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for picture in pictures:
        pixels = picture.reshape(-1, 3) / 255.0
        count += len(pixels)
        total += pixels.sum(0)
        squares += np.square(pixels).sum(0)
    mean = total / count
    return ColourStatistics(mean, np.sqrt(np.maximum(squares / count - mean**2, 0)))


def map_colours(picture: Picture, source: ColourStatistics, target: ColourStatistics) -> Picture:
    """The picture with each channel's mean and deviation moved from the source's to the target's (Reinhard
    2001, RGB).

    What a translator must beat: it knows colours, but neither texture nor line.
    """
    values = (picture / 255.0 - source.mean) / np.maximum(
        source.deviation, 1e-6
    ) * target.deviation + target.mean
    mapped: Picture = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return mapped
