"""The same generator, faster: a nearest-neighbour resize and the convolution after it as one convolution.

Of the 3x3 pixels that such a convolution sees, at most 2x2 differ: it is a transposed convolution by 2, with 4x4
weights that are sums of its own, and does 4/9 of the work with a quarter of the memory.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_nst.networks.norm import moments
from gan_nst.networks.resnet import Entry, ResnetGenerator, Segment

# Called at every instance norm with its segment's name and the mean and biased variance, each (n, c), of what is to be
# normalised; returns those to normalise by.
Statistics = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]

_BYTES = 4  # of a float32
_KEPT_BY_THE_ALLOCATOR = 1.2  # times what is in use, seen with PyTorch's on the CPU


@dataclass(frozen=True)
class Link:
    """A segment in its place. before: the resolution of its input, as a share of the image's, as its `scale` is of
    its result. inputs, channels: of its input and of its result.
    """

    name: str
    segment: Segment
    before: float
    inputs: int
    channels: int

    @property
    def scale(self) -> float:
        """The resolution of its result, as a share of the image's."""
        return self.segment.scale

    @property
    def cost(self) -> float:
        """Multiplications for each pixel of the image, roughly."""
        weights = sum(weight.numel() for weight in self.segment.convolution.parameters())
        return weights * (self.scale if self._resizes else min(self.before, self.scale)) ** 2

    @property
    def bytes_a_pixel(self) -> float:
        """Memory that it needs at once for each pixel of the image: for its input, what the entry makes of it, that
        again with its padding, the result, and what normalising it takes.
        """
        within = self.scale if self._resizes else self.before
        floats = self.inputs * (self.before**2 + 2 * within**2) + 3 * self.channels * self.scale**2
        return floats * _BYTES * _KEPT_BY_THE_ALLOCATOR

    @property
    def _resizes(self) -> bool:
        return self.segment.entry.endswith("resize")

    @property
    def bytes_kept(self) -> float:
        """What its result takes for each pixel of the image."""
        return self.channels * self.scale**2 * _BYTES

    def normalise(self, x: Tensor, statistics: tuple[Tensor, Tensor]) -> Tensor:
        """Its result x normalised by a mean and a biased variance, each (n, c); not to be asked of the last link."""
        assert self.segment.norm is not None
        y: Tensor = self.segment.norm(x, statistics)
        return y

    def needs(self, rows: range, height: int) -> range:
        """The rows of its input, which has `height`, that `rows` of its result depend on; their first is a multiple of
        the stride.
        """
        ratio = self.scale / self.before
        stride = max(1, round(1 / ratio))
        first = math.floor(rows.start / ratio) - self.segment.halo
        last = math.ceil(rows.stop / ratio) + self.segment.halo
        return range(max(0, first // stride * stride), min(height, last))


def links(generator: ResnetGenerator) -> list[Link]:
    """The generator's segments, each in its place."""
    found: list[Link] = []
    before, inputs = 1.0, 3
    for name, segment in generator.segments.items():
        assert isinstance(segment, Segment)
        channels = 3 if segment.norm is None else segment.norm.channels
        found.append(Link(name, segment, before, inputs, channels))
        before, inputs = segment.scale, channels
    return found


def run(generator: ResnetGenerator, images: Tensor, normalise: Callable[[Link, Tensor], Tensor]) -> Tensor:
    """What `generator(images)` returns, with `normalise` in place of its instance norms."""
    x, trunk, start = images, None, generator.start(images)
    for at in links(generator):
        x, trunk = at.segment(x, trunk, start)
        if at.segment.norm is not None:
            x = normalise(at, x)
    return generator.finish(x, start)


def run_with(generator: ResnetGenerator, images: Tensor, statistics: Statistics) -> Tensor:
    """What `generator(images)` returns, normalised by what `statistics` returns."""

    def normalise(at: Link, x: Tensor) -> Tensor:
        return at.normalise(x, statistics(at.name, *moments(x)))

    return run(generator, images, normalise)


def bytes_a_pixel(chain: Iterable[Link]) -> float:
    """Memory that links, computed one after the other, need at once for each pixel of the image."""
    return max(at.bytes_a_pixel for at in chain)


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
