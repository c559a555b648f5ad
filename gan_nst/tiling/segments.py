"""A generator as a chain of stages: what each costs, running them with other statistics, and a faster up-sampling."""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_nst.networks.norm import moments
from gan_nst.networks.resnet import Entry, ResnetGenerator, Segment

# Called at every instance norm with its stage's name and the mean and biased variance, each (n, c), of its input;
# returns the mean and variance to normalise by.
Statistics = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]

_BYTES = 4  # of a float32
_ALLOCATOR_OVERHEAD = 1.2  # measured with PyTorch's allocator on the CPU


@dataclass(frozen=True)
class Stage:
    """A segment with its place in the generator.

    before: the resolution of its input relative to the image, as `scale` is that of its result. inputs, channels: of
    its input and of its result.
    """

    name: str
    segment: Segment
    before: float
    inputs: int
    channels: int

    @property
    def scale(self) -> float:
        """The resolution of its result relative to the image."""
        return self.segment.scale

    @property
    def cost(self) -> float:
        """Approximate multiplications per pixel of the image."""
        weights = sum(weight.numel() for weight in self.segment.convolution.parameters())
        return weights * (self.scale if self._resizes else min(self.before, self.scale)) ** 2

    @property
    def bytes_a_pixel(self) -> float:
        """Peak memory per pixel of the image: for its input, the entry's output, that output padded, the result, and
        the buffers for normalising it.
        """
        within = self.scale if self._resizes else self.before
        floats = self.inputs * (self.before**2 + 2 * within**2) + 3 * self.channels * self.scale**2
        return floats * _BYTES * _ALLOCATOR_OVERHEAD

    @property
    def _resizes(self) -> bool:
        return self.segment.entry.endswith("resize")

    @property
    def bytes_kept(self) -> float:
        """Size of its result per pixel of the image."""
        return self.channels * self.scale**2 * _BYTES

    def normalise(self, x: Tensor, statistics: tuple[Tensor, Tensor]) -> Tensor:
        """Its result x normalised by a mean and a biased variance, each (n, c); not for the last stage."""
        assert self.segment.norm is not None
        y: Tensor = self.segment.norm(x, statistics)
        return y

    def needs(self, rows: range, height: int) -> range:
        """The rows of its input, which has `height` rows, that `rows` of its result depend on; the first is a multiple
        of the stride.
        """
        ratio = self.scale / self.before
        stride = max(1, round(1 / ratio))
        first = math.floor(rows.start / ratio) - self.segment.halo
        last = math.ceil(rows.stop / ratio) + self.segment.halo
        return range(max(0, first // stride * stride), min(height, last))


def stages(generator: ResnetGenerator) -> list[Stage]:
    """The generator's segments in order, with their places."""
    found: list[Stage] = []
    before, inputs = 1.0, 3
    for name, segment in generator.segments.items():
        assert isinstance(segment, Segment)
        channels = 3 if segment.norm is None else segment.norm.channels
        found.append(Stage(name, segment, before, inputs, channels))
        before, inputs = segment.scale, channels
    return found


def run_with_statistics(generator: ResnetGenerator, images: Tensor, statistics: Statistics) -> Tensor:
    """Returns `generator(images)`, normalised by what `statistics` returns."""
    x, trunk, start = images, None, generator.start(images)
    for stage in stages(generator):
        x, trunk = stage.segment(x, trunk, start)
        if stage.segment.norm is not None:
            x = stage.normalise(x, statistics(stage.name, *moments(x)))
    return generator.finish(x, start)


def bytes_a_pixel(chain: Iterable[Stage]) -> float:
    """Peak memory per pixel of the image of stages computed one after the other."""
    return max(stage.bytes_a_pixel for stage in chain)


_WITHOUT_RESIZE: dict[str, Entry] = {"add-resize": "add", "relu-resize": "relu"}


class FusedUpsampling(nn.Module):
    """A nearest-neighbour resize by 2 and a 3x3 convolution, reflecting at the border, as a single convolution.

    Maps (n, c, h, w) to (n, c', 2 h, 2 w). Of the 3x3 pixels that the convolution sees, at most 2x2 differ, so it is a
    transposed convolution with stride 2 whose 4x4 weights are sums of the original ones: 4/9 of the work, a quarter of
    the memory.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        self.weight = nn.Parameter(_fused_taps(_fused_taps(weight, 2), 3).transpose(0, 1).contiguous())
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        # Reflecting the resized border repeats the border.
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, self.weight, self.bias, stride=2, padding=3)


def fuse_upsampling(generator: nn.Module) -> nn.Module:
    """Returns a faster generator with the same results up to rounding, or this one where there is nothing to fuse.

    For inference only: the fused weights are copies; all others are shared.
    """
    if not isinstance(generator, ResnetGenerator) or generator.spec.upsampling != "resize":
        return generator
    twin = copy.copy(generator)
    twin._modules = dict(generator._modules)
    twin.segments = nn.ModuleDict({name: _fused(part) for name, part in generator.segments.items()})
    return twin


def _fused(segment: nn.Module) -> nn.Module:
    assert isinstance(segment, Segment)
    if segment.entry not in _WITHOUT_RESIZE:
        return segment
    first, *others = (
        segment.convolution if isinstance(segment.convolution, nn.Sequential) else [segment.convolution]
    )
    assert isinstance(first, nn.Conv2d)
    return Segment(
        nn.Sequential(FusedUpsampling(first), *others),
        _WITHOUT_RESIZE[segment.entry],
        scale=segment.scale,
        halo=segment.halo,
        norm=segment.norm,
        keep=segment.keep,
    )


def _fused_taps(weight: Tensor, axis: int) -> Tensor:
    """Turns three taps on the resized axis into four on the original one, two for each output parity."""
    first, middle, last = weight.unbind(axis)
    return torch.stack([last, middle + last, first + middle, first], axis)
