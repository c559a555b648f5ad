"""How far translations are from the true pictures, where the truth is known."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gan_nst.images.files import Picture


@dataclass(frozen=True)
class ColourStatistics:
    """Mean and deviation of each RGB channel over a set of pictures, in [0, 1]."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def absolute_error(picture: Picture, truth: Picture) -> float:
    """The mean absolute difference of two pictures, RGB uint8 (h, w, 3), 0 to 1. Raises ValueError when their sizes
    differ.
    """
    _check_shapes(picture, truth)
    return float(np.abs(picture.astype(np.int16) - truth).mean() / 255)


def structural_similarity(picture: Picture, truth: Picture) -> float:
    """SSIM of two pictures, RGB uint8 (h, w, 3), at most 1. Raises ValueError when their sizes differ.

    Wang et al. 2004, equation 13: Gaussian windows of 11 pixels and deviation 1.5, range 1, each channel alone,
    reflecting at the borders. In float64 by OpenCV's blur: torchmetrics' is the same to 1e-6 there but takes 1.3 s
    for 256 pixels on a CPU core, and in float32 it is off by 4e-5.
    """
    _check_shapes(picture, truth)
    x, y = picture / 255.0, truth / 255.0
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) - mean_x**2 + _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variances + c2)).mean())


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


def _check_shapes(picture: Picture, truth: Picture) -> None:
    if picture.shape != truth.shape:
        raise ValueError(f"a picture of shape {picture.shape} has a truth of shape {truth.shape}")


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return cv2.GaussianBlur(values, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101).astype(np.float64)
