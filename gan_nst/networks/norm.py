"""The one instance norm of the project: published weights need its eps and affine, tiling hands statistics
in.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        """The normalised input, same shape.

        statistics: mean and biased variance, each of shape (n, c), to use instead of the input's own; a part
        of a picture is normalised as the whole picture would be.
        """
        if statistics is None:
            return F.instance_norm(x, weight=self.scale, bias=self.shift, eps=self.eps)
        mean, variance = (s.to(x.dtype)[:, :, None, None] for s in statistics)
        x = (x - mean) * torch.rsqrt(variance + self.eps)
        if self.scale is None or self.shift is None:
            return x
        return x * self.scale[:, None, None] + self.shift[:, None, None]

    def extra_repr(self) -> str:
        return f"{self.channels}, eps={self.eps}, affine={self.scale is not None}"
