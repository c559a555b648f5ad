"""LPIPS: how far two images are apart as people see it (Zhang et al. 2018, arXiv:1801.03924)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gan_nst.core import weights as pretrained
from gan_nst.core.errors import WeightsError
from gan_nst.images.arrays import ImageArray, to_float, to_tensor
from gan_nst.networks.features import SQUEEZENET


@dataclass(frozen=True)
class ColourStatistics:
    """Mean and deviation of each RGB channel over a set of images, in [0, 1]."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def absolute_error(image: ImageArray, truth: ImageArray) -> float:
    """The mean absolute difference of two images, RGB uint8 (h, w, 3), 0 to 1. Raises ValueError when their sizes
    differ.
    """
    _check_shapes(image, truth)
    return float(np.abs(image.astype(np.int16) - truth).mean() / 255)


def structural_similarity(image: ImageArray, truth: ImageArray) -> float:
    """SSIM of two images, RGB uint8 (h, w, 3), at most 1. Raises ValueError when their sizes differ.

    Wang et al. 2004, equation 13: Gaussian windows of 11 pixels and deviation 1.5, range 1, each channel alone,
    reflecting at the borders. In float64 by OpenCV's blur: torchmetrics' is the same to 1e-6 there but takes 1.3 s
    for 256 pixels on a CPU core, and in float32 it is off by 4e-5.
    """
    _check_shapes(image, truth)
    x, y = image / 255.0, truth / 255.0
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) - mean_x**2 + _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variances + c2)).mean())


def colour_statistics(images: Iterable[ImageArray]) -> ColourStatistics:
    """The statistics of all pixels of the images."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for image in images:
        pixels = image.reshape(-1, 3) / 255.0
        count += len(pixels)
        total += pixels.sum(0)
        squares += np.square(pixels).sum(0)
    mean = total / count
    return ColourStatistics(mean, np.sqrt(np.maximum(squares / count - mean**2, 0)))


def map_colours(image: ImageArray, source: ColourStatistics, target: ColourStatistics) -> ImageArray:
    """The image with each channel's mean and deviation moved from the source's to the target's (Reinhard
    2001, RGB).

    What a translator must beat: it knows colours, but neither texture nor line.
    """
    values = (image / 255.0 - source.mean) / np.maximum(
        source.deviation, 1e-6
    ) * target.deviation + target.mean
    mapped: ImageArray = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return mapped


def _check_shapes(image: ImageArray, truth: ImageArray) -> None:
    if image.shape != truth.shape:
        raise ValueError(f"an image of shape {image.shape} has a truth of shape {truth.shape}")


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return cv2.GaussianBlur(values, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101).astype(np.float64)


SMALLEST = 32  # pixels; below, SqueezeNet's last layers see next to nothing


@dataclass(frozen=True)
class Lpips:
    """LPIPS v0.1 on SqueezeNet 1.1, by torchmetrics, which brings the linear heads.

    file, digest: of the SqueezeNet weights.
    """

    network: nn.Module
    file: str
    digest: str

    @classmethod
    def find(cls, device: torch.device, download: bool = False) -> "Lpips | None":
        """The metric, or None where no weights lie. Raises WeightsError for weights of another network."""
        path = pretrained.fetch(SQUEEZENET) if download else pretrained.find(SQUEEZENET)
        return None if path is None else cls.load(path, device)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Lpips":
        """The metric with the SqueezeNet in a file. Raises WeightsError for any other file."""
        # torchmetrics' public functions would download; the class behind them takes weights from elsewhere.
        from torchmetrics.functional.image.lpips import _LPIPS

        weights = pretrained.load(path)
        with torch.random.fork_rng(
            devices=[]
        ):  # layers draw initial weights, unnoticed by a run's random state
            network = _LPIPS(net="squeeze", pnet_rand=True)
        sliced = {}
        for name, weight in weights.items():
            part, _, rest = name.partition(".")
            number = rest.split(".")[0]
            slot = next(
                (i for i, s in enumerate(network.net.slices) if number in dict(s.named_children())), None
            )
            if part == "features" and slot is not None:
                sliced[f"slices.{slot}.{rest}"] = weight
        try:
            network.net.load_state_dict(sliced)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"{path}: not SqueezeNet 1.1 ({reason})") from None
        return cls(network.to(device), path.name, pretrained.digest(path))

    @torch.inference_mode()
    def __call__(self, x: ImageArray, y: ImageArray) -> float:
        """The distance of two images of one size, RGB uint8 (h, w, 3); 0 for equal ones."""
        device = next(self.network.parameters()).device
        a, b = (to_float(to_tensor(image)[None].to(device)) for image in (x, y))
        return float(self.network(a, b))
