"""The one instance norm of the project: published weights need its eps and affine, tiling hands statistics
in, and speed needs it fast where a picture's channels lie side by side in memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_nst.precision import full_precision


class InstanceNorm(nn.Module):
    """Normalises each channel of each picture to mean 0 and variance 1 (Ulyanov et al. 2016,
    arXiv:1607.08022).

    channels: the number of channels c of the input, of shape (n, c, h, w).
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
        """The normalised input, same shape, type and layout.

        statistics: mean and biased variance, each of shape (n, c), to use instead of the input's own; a part
        of a picture is normalised as the whole picture would be.
        """
        if statistics is None:
            x = normalise(x, self.eps)
        else:
            mean, variance = (s.to(x.dtype)[:, :, None, None] for s in statistics)
            x = (x - mean) * torch.rsqrt(variance + self.eps)
        if self.scale is None or self.shift is None:
            return x
        return x * self.scale[:, None, None].to(x.dtype) + self.shift[:, None, None].to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, affine={self.scale is not None}"


def normalise(x: Tensor, eps: float) -> Tensor:
    """x, (n, c, h, w), with mean 0 and variance 1 in each channel of each picture; same type and layout.

    Not torch's instance norm: on the CPU its gradient is wrong for a single picture in the channels-last layout (seen
    with torch 2.15), and it is slow for several.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        full = full_precision(x)
        variance, mean = torch.var_mean(full, (2, 3), correction=0, keepdim=True)
        return ((full - mean) * torch.rsqrt(variance + eps)).to(x.dtype)
    if x.is_contiguous(memory_format=torch.channels_last):
        y: Tensor = _ChannelsLast.apply(x, eps)[0]
        return y
    return F.group_norm(x, x.shape[1], eps=eps)


class _ChannelsLast(torch.autograd.Function):
    """The norm of a channels-last tensor on the CPU, where torch's kernels are slow backward and inexact forward.

    It returns the norm and, so that a gradient of its gradient is right too, the inverse deviation, (n, c).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        n, c, h, w = x.shape
        # The kernel's variance is E[x^2] - E[x]^2, which cancels where the mean is large; so it is taken out first.
        x = x - _mean(x)
        ones, zeros = (
            torch.full((c,), value, dtype=torch.promote_types(x.dtype, torch.float32)) for value in (1.0, 0.0)
        )
        y, _, inverse = torch.native_group_norm(x, ones, zeros, n, c, h * w, c, eps)
        inverse = inverse.view(n, c)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(y, inverse)
        return y, inverse

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        (y, inverse), (of_y, of_inverse) = ctx.saved_tensors, gradients
        factor = inverse[:, :, None, None].to(y.dtype)
        x: Tensor | None = None
        if of_y is not None:
            of_y = of_y.contiguous(memory_format=torch.channels_last)
            x = torch.addcmul(of_y - _mean(of_y), y, _mean(of_y * y), value=-1) * factor
        if of_inverse is not None:  # d inverse / d x is -y * inverse^2 / (h * w)
            share = of_inverse[:, :, None, None].to(y.dtype) * factor.square() / (y.shape[2] * y.shape[3])
            x = -share * y if x is None else torch.addcmul(x, share, y, value=-1)
        return x, None


def _mean(x: Tensor) -> Tensor:
    """The mean over the pixels of a channels-last tensor, (n, c, 1, 1), as a matrix product: torch's own mean takes ten
    times as long.
    """
    n, c, h, w = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(n, h * w, c)
    mean = torch.bmm(pixels.new_full((1, 1, h * w), 1 / (h * w)).expand(n, 1, h * w), pixels)
    return mean.view(n, c, 1, 1)
