"""An image too large for the memory, translated in one pass and approximately: normalised by the statistics of the
reduced image, in overlapping tiles that are blended into each other.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_nst.core.errors import DataError
from gan_nst.networks.norm import moments
from gan_nst.networks.resnet import ResnetGenerator
from gan_nst.tiling.segments import Link, bytes_a_pixel, links, run
from gan_nst.tiling.strips import Report, Rows, Sink, pad_to_multiple

_BLEND = 16  # pixels to either side of a cut in which two tiles are blended
_MARGIN = 32  # pixels beyond, which are computed and thrown away
_LEAST = 64  # pixels between two cuts


class Reduced:
    """The translation of one image.

    height, width: the image's, multiples of the generator's `multiple`. memory: bytes for what is computed at once.
    """

    def __init__(
        self, generator: ResnetGenerator, rows: Rows, height: int, width: int, *, memory: int
    ) -> None:
        self.generator = generator
        self.rows = rows
        self.height = height
        self.width = width
        self._pixels = int(memory / bytes_a_pixel(links(generator)))  # that pass the network together
        self._device = next(generator.parameters()).device
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    def translate(self, sink: Sink, report: Report | None = None) -> None:
        """Raises DataError, before anything is computed, when the memory does not hold the least tile."""
        side = math.isqrt(self._pixels) // self.generator.multiple * self.generator.multiple
        core = side - 2 * (_BLEND + _MARGIN)
        if core < _LEAST:
            least = bytes_a_pixel(links(self.generator)) * (_LEAST + 2 * (_BLEND + _MARGIN) + 8) ** 2
            raise DataError(f"a tile takes at least {least / 2**30 + 0.05:.1f} GiB; give --memory")
        run(self.generator, self._reduce(), self._learn)
        downs, acrosses = _cuts(self.height, core), _cuts(self.width, core)
        tail = torch.zeros((1, 3, 0, self.width))  # of the tiles above, where those below go on
        for number, down in enumerate(pairwise(downs)):
            span, weights = self._blend(down, self.height)
            band = torch.zeros((1, 3, len(span), self.width))
            band[:, :, : tail.shape[2]] = tail
            for across in pairwise(acrosses):
                columns, beside = self._blend(across, self.width)
                tile = self._tile(span, columns) * weights[:, None] * beside
                band[:, :, :, columns.start : columns.stop] += tile
            done = span.stop if down[1] == self.height else down[1] - _BLEND
            first = span.start
            sink(range(first, done), band[:, :, : done - first])
            tail = band[:, :, done - first :]
            if report is not None:
                report((number + 1) / (len(downs) - 1))

    def _reduce(self) -> Tensor:
        """The image, its sides divided by the least whole number that lets it pass the network at once."""
        by = min(math.ceil(math.sqrt(self.height * self.width / self._pixels)), self.height, self.width)
        band = max(1, self._pixels // (self.width * by)) * by
        parts = [
            F.avg_pool2d(self.rows(range(top, min(top + band, self.height))), by)
            for top in range(0, self.height - by + 1, band)
        ]
        return pad_to_multiple(torch.cat(parts, dim=2), self.generator.multiple).to(self._device)

    def _learn(self, at: Link, x: Tensor) -> Tensor:
        self._known[at.name] = moments(x)
        return self._use(at, x)

    def _use(self, at: Link, x: Tensor) -> Tensor:
        return at.normalise(x, self._known[at.name])

    def _tile(self, span: range, columns: range) -> Tensor:
        """The translation of these rows and columns, as it comes out with a margin around them."""
        down, across = self._widen(span, self.height), self._widen(columns, self.width)
        tile = self.rows(down)[:, :, :, across.start : across.stop].to(self._device)
        y = run(self.generator, tile, self._use).cpu()
        top, left = span.start - down.start, columns.start - across.start
        return y[:, :, top : top + len(span), left : left + len(columns)]

    def _widen(self, span: range, length: int) -> range:
        multiple = self.generator.multiple
        first = max(0, span.start - _MARGIN) // multiple * multiple
        return range(first, min(length, math.ceil((span.stop + _MARGIN) / multiple) * multiple))

    @staticmethod
    def _blend(between: tuple[int, int], length: int) -> tuple[range, Tensor]:
        """The pixels of an axis that the tile between two cuts has a part in, and its part: those of all tiles add up
        to 1.
        """
        first, last = between
        span = range(max(0, first - _BLEND), min(length, last + _BLEND))
        at = torch.arange(span.start, span.stop) + 0.5
        part = torch.ones(len(span))
        if first > 0:
            part *= ((at - first) / (2 * _BLEND) + 0.5).clamp(0, 1)
        if last < length:
            part *= ((last - at) / (2 * _BLEND) + 0.5).clamp(0, 1)
        return span, part


def _cuts(length: int, core: int) -> list[int]:
    """Where an axis is cut, its ends included, into equal parts of at most `core` pixels."""
    parts = math.ceil(length / core)
    return [length * number // parts for number in range(parts + 1)]
