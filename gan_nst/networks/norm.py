"""The project's only instance norm, and the initial weights of networks that use it.

Published weights need its eps and affine, tiling passes statistics in, and it is fast in the channels-last layout.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_nst.core.device import full_precision


class InstanceNorm(nn.Module):
    """Normalises each channel of each image to mean 0 and variance 1 (Ulyanov et al. 2016, arXiv:1607.08022).

    channels: c of the input's shape (n, c, h, w).
    eps: added to the biased variance.
    affine: whether a learned scale and shift per channel follow.
    """

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(channels)) if affine else None
        self.shift = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor, statistics: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Returns the normalised input, of the same shape, type and layout.

        statistics: mean and biased variance, each of shape (n, c), to use instead of the input's own, so that a part
        of an image is normalised as the whole image would be.
        """
        if statistics is None:
            x = normalise(x, self.eps)
        else:
            full = full_precision(x)
            mean, variance = (s.to(full.dtype)[:, :, None, None] for s in statistics)
            inverse = torch.rsqrt(variance + self.eps).masked_fill(variance <= flat_below(mean, self.eps), 0)
            x = ((full - mean) * inverse).to(x.dtype)
        if self.scale is None or self.shift is None:
            return x
        return x * self.scale[:, None, None].to(x.dtype) + self.shift[:, None, None].to(x.dtype)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and the biased variance of each channel of each image, both (n, c), in float32 or better."""
    full = full_precision(x)
    rough = _mean(full)
    apart = full - rough
    rest = _mean(apart)  # what a long sum in float32 lost
    variance = _mean(apart.square_()) - rest.square()
    return (rough + rest)[:, :, 0, 0], variance.clamp_min_(0)[:, :, 0, 0]


def normalise(x: Tensor, eps: float) -> Tensor:
    """Returns x, (n, c, h, w), with mean 0 and variance 1 in each channel of each image, of the same type and layout.

    Not torch's instance norm: on the CPU, its gradient is wrong for a single image in the channels-last layout (seen
    with torch 2.15), and it is slow for several. On the CPU, channels of a single value (`flat_below`) become 0 only
    in inference mode and in the channels-last layout, which is the one used there.
    """
    if torch.compiler.is_compiling():
        return _by_formula(x, eps)[0]
    if x.device.type == "cpu" and not x.is_contiguous(memory_format=torch.channels_last):
        return F.group_norm(x, x.shape[1], eps=eps)
    y: Tensor = _Normalise.apply(x, eps)[0]
    return y


class _Normalise(torch.autograd.Function):
    """The norm with its own gradient, for which only the result is kept.

    Returns the norm and the inverse deviation, (n, c, 1, 1), which makes second derivatives correct too.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        y, inverse = _by_kernel(x, eps) if x.device.type == "cpu" else _by_formula(x, eps)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(y, inverse)
        return y, inverse

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        (kept, inverse), (of_y, of_inverse) = ctx.saved_tensors, gradients
        y = full_precision(kept)
        x: Tensor | None = None
        if of_y is not None:
            g = full_precision(of_y)
            x = torch.addcmul(g - _mean(g), y, _mean(g * y), value=-1) * inverse
        if of_inverse is not None:  # d inverse / d x is -y * inverse^2 / (h * w)
            share = of_inverse * inverse.square() / (y.shape[2] * y.shape[3])
            x = -share * y if x is None else torch.addcmul(x, share, y, value=-1)
        return None if x is None else x.to(kept.dtype), None


def _by_formula(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Returns the norm and the inverse deviation, (n, c, 1, 1), computed in float32 or better."""
    full = full_precision(x)
    variance, mean = torch.var_mean(full, (2, 3), correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + eps).masked_fill(variance <= flat_below(mean, eps), 0)
    return ((full - mean) * inverse).to(x.dtype), inverse


def _by_kernel(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Does the same for a channels-last tensor on the CPU, with a kernel ten times as fast as the formula."""
    n, c, h, w = x.shape
    full = full_precision(x)
    # The kernel's variance is E[x^2] - E[x]^2, which cancels where the mean is large: it is subtracted first.
    mean = _mean(full)
    y, _, inverse = torch.native_group_norm(full - mean, None, None, n, c, h * w, c, eps)
    inverse = inverse.view(n, c, 1, 1)
    if torch.is_inference_mode_enabled():  # training would wait for the answer at every norm
        flat = inverse**-2 - eps <= flat_below(mean, eps)
        y = y.masked_fill_(flat, 0) if flat.any() else y
    return y.to(x.dtype), inverse


def flat_below(mean: Tensor, eps: float) -> Tensor:
    """Returns the variance up to which a channel of this mean is a single value with rounding errors.

    The norm of such channels is 0. Otherwise their rounding, amplified 1 / sqrt(eps) times by every norm, would decide
    how images of one colour, such as black frames, are translated.
    """
    return mean.square() * 1e-12 + eps * 1e-6


def _mean(x: Tensor) -> Tensor:
    """Returns the mean over the pixels, (n, c, 1, 1).

    On the CPU, as matrix products of a channels-last tensor, which take a tenth of the time of torch's own mean there,
    and row by row, as the float32 sum of a million values loses four digits.
    """
    if x.device.type != "cpu":
        return x.mean((2, 3), keepdim=True)
    n, c, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n * h, w, c)
    means = torch.bmm(rows.new_full((1, 1, w), 1 / w).expand(n * h, 1, w), rows)
    return means.view(n, h, c).mean(1).view(n, c, 1, 1)


def initialise(network: nn.Module, deviation: float = 0.02) -> None:
    """Draws convolution weights from N(0, deviation) and sets biases to 0 (Zhu et al. 2017, appendix 7.1)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
