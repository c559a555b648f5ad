"""The same generator, faster: a nearest-neighbour resize and the convolution after it as one convolution.

Of the 3x3 pixels that such a convolution sees, at most 2x2 differ: it is a transposed convolution by 2, with 4x4
weights that are sums of its own, and does 4/9 of the work with a quarter of the memory.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_nst.networks.resnet import Entry, ResnetGenerator, Segment

_UNRESIZED: dict[str, Entry] = {"add-resize": "add", "relu-resize": "relu"}


class Folded(nn.Module):
    """A 3x3 convolution, reflecting at the border, of its input resized by 2: (n, c, h, w) to (n, c', 2 h, 2 w)."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        self.weight = nn.Parameter(_fold(_fold(weight, 2), 3).transpose(0, 1).contiguous())
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        # The resized border reflected is the border itself once more.
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, self.weight, self.bias, stride=2, padding=3)


def fold_resizes(generator: nn.Module) -> nn.Module:
    """A generator that computes what this one does, to rounding, and shares its other weights; or this one, where
    there is nothing to fold. Its weights are a copy: for a generator that is trained no more.
    """
    if not isinstance(generator, ResnetGenerator) or generator.spec.upsampling != "resize":
        return generator
    twin = copy.copy(generator)
    twin._modules = dict(generator._modules)
    twin.segments = nn.ModuleDict({name: _folded(part) for name, part in generator.segments.items()})
    return twin


def _folded(segment: nn.Module) -> nn.Module:
    assert isinstance(segment, Segment)
    if segment.entry not in _UNRESIZED:
        return segment
    first, *others = (
        segment.convolution if isinstance(segment.convolution, nn.Sequential) else [segment.convolution]
    )
    assert isinstance(first, nn.Conv2d)
    return Segment(
        nn.Sequential(Folded(first), *others),
        _UNRESIZED[segment.entry],
        scale=segment.scale,
        halo=segment.halo,
        norm=segment.norm,
        keep=segment.keep,
    )


def _fold(weight: Tensor, axis: int) -> Tensor:
    """Three taps on the resized axis as four on the axis itself, of which every other pixel sees two."""
    first, middle, last = weight.unbind(axis)
    return torch.stack([last, middle + last, first + middle, first], axis)
