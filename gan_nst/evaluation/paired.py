"""Scores of an image against its input or its truth, and the colour map, a baseline that every translator must beat."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from gan_nst.core import pretrained
from gan_nst.images.arrays import ImageArray, to_float, to_tensor
from gan_nst.networks.features import SQUEEZENET


@dataclass(frozen=True)
class ColourStatistics:
    """Mean and deviation of each RGB channel over a set of images, in [0, 1]."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def absolute_error(image: ImageArray, truth: ImageArray) -> float:
    """The mean absolute difference of two images of one size, RGB uint8 (h, w, 3), from 0 to 1."""
    assert image.shape == truth.shape
    return float(np.abs(image.astype(np.int16) - truth).mean() / 255)


def structural_similarity(image: ImageArray, truth: ImageArray) -> float:
    """SSIM of two images of one size, RGB uint8 (h, w, 3), at most 1.

    Wang et al. 2004, equation 13: Gaussian windows of 11 pixels and deviation 1.5, range 1, each channel alone,
    reflecting at the borders. In float64 by OpenCV's blur: torchmetrics' is the same to 1e-6 there but takes 1.3 s
    for 256 pixels on a CPU core, and in float32 it is off by 4e-5.
    """
    assert image.shape == truth.shape
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
    """The image with each channel's mean and deviation moved from the source's to the target's (Reinhard et al. 2001,
    but in RGB).

    What every translator must beat: it knows colours, but neither textures nor lines.
    """
    values = (image / 255.0 - source.mean) / np.maximum(
        source.deviation, 1e-6
    ) * target.deviation + target.mean
    mapped: ImageArray = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return mapped


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return cv2.GaussianBlur(values, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101).astype(np.float64)


SMALLEST = 32  # pixels; below, SqueezeNet's last layers see next to nothing
# The linear heads of LPIPS v0.1, 2,240 numbers under a BSD licence (lpips_squeeze.LICENSE).
_HEADS = Path(__file__).with_name("lpips_squeeze.safetensors")
_ENDS = (2, 5, 8, 10, 11, 12, 13)  # of SqueezeNet's layers, where each of the seven features ends


@dataclass(frozen=True)
class Lpips:
    """LPIPS v0.1 on SqueezeNet 1.1: how far apart two images are as people see it (Zhang et al. 2018,
    arXiv:1801.03924).

    file, digest: of the SqueezeNet weights.
    """

    network: nn.Module
    file: str
    digest: str

    @classmethod
    def find(cls, device: torch.device, download: bool = False) -> "Lpips | None":
        """The metric, or None when its weights are not found. Raises WeightsError for another network's weights."""
        path = pretrained.fetch(SQUEEZENET) if download else pretrained.find(SQUEEZENET)
        return None if path is None else cls.load(path, device)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Lpips":
        """The metric with the SqueezeNet in a file. Raises WeightsError for any other file."""
        from torchvision.models import squeezenet1_1  # seconds that other scores need not spend

        weights = {name.removeprefix("features."): w for name, w in pretrained.load(path).items()}
        with torch.device("meta"):  # draws no initial weights
            layers = squeezenet1_1().features
        pretrained.fill(layers, weights, path, "SqueezeNet 1.1")
        return cls(_LpipsNetwork(layers).to(device), path.name, pretrained.digest(path))

    @torch.inference_mode()
    def __call__(self, x: ImageArray, y: ImageArray) -> float:
        """The distance of two images of one size, RGB uint8 (h, w, 3); 0 for equal ones."""
        device = next(self.network.parameters()).device
        a, b = (to_float(to_tensor(image)[None].to(device)) for image in (x, y))
        return float(self.network(a, b))


class _LpipsNetwork(nn.Module):
    """Zhang et al. 2018, equation 1: the squared differences of unit feature vectors, weighted by the heads.

    Maps images x and y, (n, 3, h, w) in [-1, 1], to distances (n, 1).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.slices = nn.ModuleList(layers[i:j] for i, j in zip((0, *_ENDS), _ENDS, strict=False))
        heads = load_file(_HEADS)
        self.heads = nn.ParameterList(
            nn.Parameter(heads[name], requires_grad=False) for name in sorted(heads)
        )
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.458, 0.448, 0.450])[:, None, None])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = ((images - self.mean) / self.deviation for images in (x, y))
        total = torch.zeros(len(x), 1, device=x.device)
        for layers, head in zip(self.slices, self.heads, strict=True):
            x, y = layers(x), layers(y)
            total = total + F.conv2d((_unit(x) - _unit(y)) ** 2, head).mean((2, 3))
        return total


def _unit(features: Tensor) -> Tensor:
    return features / torch.sqrt(1e-8 + torch.sum(features**2, dim=1, keepdim=True))
