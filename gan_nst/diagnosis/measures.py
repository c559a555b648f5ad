"""Cheap signs of a broken generator, measured on a handful of images at every validation."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_COARSE = 32  # pixels of the shorter side at which diversity is measured: composition and colour, not texture
_FLAT = 0.5  # gray levels of 255; an image that deviates by less has no pattern to compare

# An image of 64 pixels holds nine such tiles that overlap by half; images are measured at their own resolution.
_TILE = 32
# Bins away from a peak that count as its surroundings; the window spreads a peak over the bins next to it.
_RING = (2, 3)
# Gray levels of noise added to every spectrum, so that a pattern counts by how visible it is and not by how smooth the
# image under it is. A trained translator with resized up-sampling left 0.19 levels at the finest frequency (ratio 23
# without this, 2.0 with it), which nobody can see; trained transposed convolutions left a visible 0.6 to 1.3.
_UNSEEN = 4.0
# Periods of 2 and 4 pixels on the axes and the diagonals, in cycles a pixel; all others mirror one of these.
_FREQUENCIES = (
    *((0, 0.25), (0.25, 0), (0.25, 0.25), (0.25, -0.25)),
    *((0, 0.5), (0.5, 0), (0.5, 0.5), (0.25, 0.5), (0.5, 0.25)),
)


@dataclass(frozen=True)
class Measures:
    """Measures of a generator from a set of its outputs.

    diversity: how much the outputs differ from each other, as a share of how much the targets do; about 1 is
        good, 0 means always the same image. nan for fewer than two outputs or targets, or identical targets.
    change: mean absolute difference between output and input, 0 to 1; 0 means that nothing was done.
    correlation: of the luma of input and output, -1 to 1; below 0 light and dark are swapped. nan when all
        inputs or all outputs are flat.
    checkerboard: how far the outputs' spectrum peaks at the frequencies of up-sampling, over the same for the
        targets; about 1 is good.
    """

    diversity: float
    change: float
    correlation: float
    checkerboard: float


def measure(inputs: Tensor, outputs: Tensor, targets: Tensor) -> Measures:
    """The measures of outputs, each the translation of the input at the same index.

    inputs, outputs: uint8 (n, 3, h, w). targets: uint8 (m, 3, h, w), any images of the target domain. Height and width
    are at least 8 pixels. Undefined values are nan.
    """
    assert inputs.shape == outputs.shape
    assert outputs.shape[1:] == targets.shape[1:]
    expected = _spread(targets)
    difference = outputs.to(torch.float32) - inputs.to(torch.float32)
    return Measures(
        diversity=_spread(outputs) / expected if expected > 0 else math.nan,
        change=float(difference.abs().mean()) / 255,
        correlation=_correlation(_luma(inputs), _luma(outputs)),
        checkerboard=_peak(_luma(outputs)) / _peak(_luma(targets)),
    )


def _luma(images: Tensor) -> Tensor:
    """uint8 (n, 3, h, w) as gray levels (n, h, w), 0 to 255 (ITU-R BT.601)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)
    return torch.einsum("nchw,c->nhw", images.to(torch.float32), weights)


def _spread(images: Tensor) -> float:
    """The deviation of a pixel across images (n, 3, h, w), in gray levels, at a coarse resolution; nan for n = 1."""
    if len(images) < 2:
        return math.nan
    scale = min(1.0, _COARSE / min(images.shape[2:]))
    size = [round(side * scale) for side in images.shape[2:]]
    coarse = F.interpolate(images.to(torch.float32), size=size, mode="area")
    return math.sqrt(float(coarse.var(0).mean()))


def _correlation(inputs: Tensor, outputs: Tensor) -> float:
    """Pearson's correlation between gray images (n, h, w), averaged over the pairs in which neither is flat."""
    x, y = (gray.flatten(1) - gray.mean((1, 2))[:, None] for gray in (inputs, outputs))
    deviation_x, deviation_y = (z.square().mean(1).sqrt() for z in (x, y))
    structured = (deviation_x > _FLAT) & (deviation_y > _FLAT)
    if not structured.any():
        return math.nan
    return float(((x * y).mean(1)[structured] / (deviation_x * deviation_y)[structured]).mean())


def _peak(gray: Tensor) -> float:
    """The largest ratio of the power at a frequency of up-sampling to its surroundings, of gray images (n, h, w).

    Up-sampling by 2 repeats the spectrum of the features around the frequency of period 2, twice over around that of
    period 4 (Odena et al. 2016, Deconvolution and Checkerboard Artifacts), where images have no peaks. Measured on
    24 images each: 1.1 to 1.7 for the domains of the demo, photo2hayao and monet2photo at 64 to 256 pixels; 1.1 to
    3.2 for 16 trained generators without transposed convolutions; 4.1 to 7.3 for 4 trained ones with them, 8 to 149
    for untrained ones.
    """
    power = _power(gray)
    side = len(power)
    return max(
        float(
            power[round(y * side), round(x * side)] / _surroundings(power, round(y * side), round(x * side))
        )
        for y, x in _FREQUENCIES
    )


def _power(gray: Tensor) -> NDArray[np.float64]:
    """The power spectrum (t, t) of gray images, averaged over their tiles (Welch 1967) and the images."""
    tile = min(_TILE, *(length // 8 * 8 for length in gray.shape[1:]))
    window = torch.hann_window(tile, device=gray.device)
    window = window[:, None] * window
    total = torch.zeros(tile, tile, device=gray.device)
    for image in gray:
        tiles = image.unfold(0, tile, tile // 2).unfold(1, tile, tile // 2)
        tiles = (tiles - tiles.mean((2, 3), keepdim=True)) * window
        total += torch.fft.fft2(tiles).abs().square().mean((0, 1))
    noise = _UNSEEN**2 * window.square().sum()
    power: NDArray[np.float64] = (total / len(gray) + noise).cpu().numpy().astype(np.float64)
    return power


def _surroundings(power: NDArray[np.float64], row: int, column: int) -> float:
    """The median of the power around a bin, in logarithms: for a steep spectrum the power at the bin itself.

    A bin on an axis is compared along the axis: horizontal and vertical edges, and the borders of the tiles, raise
    all of it.
    """
    side, reach = len(power), range(-_RING[1], _RING[1] + 1)
    around = [
        power[(row + down) % side, (column + right) % side]
        for down, right in itertools.product(reach, reach)
        if max(abs(down), abs(right)) >= _RING[0] and not (row == 0 and down) and not (column == 0 and right)
    ]
    return float(np.exp(np.median(np.log(around))))
