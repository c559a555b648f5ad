"""A generator taken segment by segment, so that the statistics of its instance norms can be chosen."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from gan_nst.networks.norm import moments
from gan_nst.networks.resnet import ResnetGenerator, Segment

# Called at every instance norm with its segment's name and the mean and biased variance, each (n, c), of what is to be
# normalised; returns those to normalise by.
Statistics = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]

_BYTES = 4  # of a float32
_KEPT_BY_THE_ALLOCATOR = 1.2  # times what is in use, seen with PyTorch's on the CPU


@dataclass(frozen=True)
class Link:
    """A segment in its place. before: the resolution of its input, as a share of the picture's, as its `scale` is of
    its result. inputs, channels: of its input and of its result.
    """

    name: str
    segment: Segment
    before: float
    inputs: int
    channels: int

    @property
    def scale(self) -> float:
        """The resolution of its result, as a share of the picture's."""
        return self.segment.scale

    @property
    def cost(self) -> float:
        """Multiplications for each pixel of the picture, roughly."""
        weights = sum(weight.numel() for weight in self.segment.convolution.parameters())
        return weights * (self.scale if self._resizes else min(self.before, self.scale)) ** 2

    @property
    def bytes_a_pixel(self) -> float:
        """Memory that it needs at once for each pixel of the picture: for its input, what the entry makes of it, that
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
        """What its result takes for each pixel of the picture."""
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


def run(generator: ResnetGenerator, pictures: Tensor, normalise: Callable[[Link, Tensor], Tensor]) -> Tensor:
    """What `generator(pictures)` returns, with `normalise` in place of its instance norms."""
    x, trunk, start = pictures, None, generator.start(pictures)
    for at in links(generator):
        x, trunk = at.segment(x, trunk, start)
        if at.segment.norm is not None:
            x = normalise(at, x)
    return generator.finish(x, start)


def run_with(generator: ResnetGenerator, pictures: Tensor, statistics: Statistics) -> Tensor:
    """What `generator(pictures)` returns, normalised by what `statistics` returns."""

    def normalise(at: Link, x: Tensor) -> Tensor:
        return at.normalise(x, statistics(at.name, *moments(x)))

    return run(generator, pictures, normalise)


def bytes_a_pixel(chain: Iterable[Link]) -> float:
    """Memory that links, computed one after the other, need at once for each pixel of the picture."""
    return max(at.bytes_a_pixel for at in chain)
