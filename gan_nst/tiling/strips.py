"""A picture too large for the memory, translated as if it were not: in strips of rows, normalised by the statistics of
the whole picture.

The statistics of a norm are known when its segment has been computed for every row. So the picture is passed once for
each norm. A result below the picture's resolution is kept in a scratch file for the next pass; one at the picture's own
is many times as large, and is computed again from the last one kept.
"""

import math
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gan_nst.core.errors import DataError
from gan_nst.networks.norm import moments
from gan_nst.networks.resnet import ResnetGenerator
from gan_nst.tiling.scratch import Store, require_space
from gan_nst.tiling.segments import Link, Statistics, bytes_a_pixel, links

Rows = Callable[[range], Tensor]  # gives rows of the picture, (1, 3, rows, w) in [-1, 1]
Sink = Callable[[range, Tensor], None]  # takes rows of the translation, likewise, from top to bottom
Report = Callable[[float], None]  # takes the share that is done, 0 to 1


@dataclass(frozen=True)
class Pass:
    """One way over the picture: the links from the last kept result to the norm whose statistics it gathers, or to the
    translation. kept: whether the last link's result is.
    """

    chain: list[Link]
    kept: bool

    @property
    def cost(self) -> float:
        return sum(at.cost for at in self.chain)


def passes(generator: ResnetGenerator) -> list[Pass]:
    """The ways over a picture that its translation takes."""
    found: list[Pass] = []
    chain: list[Link] = []
    for at in links(generator):
        chain = [*chain, at]
        found.append(Pass(chain, kept=at.scale < 1))
        if at.scale < 1:
            chain = []
    return found


def scratch_bytes(ways: Sequence[Pass]) -> float:
    """The most that is kept at once, for each pixel of the picture, in float32."""
    source, trunk, most = 0.0, 0.0, 0.0
    for way in ways:
        first, last = way.chain[0], way.chain[-1]
        new = source if first.segment.keep else 0.0
        most = max(most, source + trunk + new + (last.bytes_kept if way.kept else 0))
        if way.kept:
            trunk = new or (0.0 if first.segment.entry.startswith("add") else trunk)
            source = last.bytes_kept
    return most


class Strips:
    """The translation of one picture.

    height, width: the picture's, multiples of the generator's `multiple`. memory: bytes for what is computed at once.
    scratch: the folder of the scratch files. statistics: what to normalise by instead of the picture's own.
    """

    def __init__(
        self,
        generator: ResnetGenerator,
        rows: Rows,
        height: int,
        width: int,
        *,
        memory: int,
        scratch: Path,
        statistics: Statistics | None = None,
    ) -> None:
        self.generator = generator
        self.rows = rows
        self.height = height
        self.width = width
        self.memory = memory
        self.passes = passes(generator)
        self.needed = round(scratch_bytes(self.passes) * height * width)  # bytes of scratch
        self._scratch = scratch
        self._statistics = statistics
        self._device = next(generator.parameters()).device
        self._known: dict[str, tuple[Tensor, Tensor]] = {}
        self._source: Link | None = None  # whose result the pass starts from; None: the picture
        self._stores: list[Store] = []  # those that are open
        self._result: Store | None = None
        self._trunk: Store | None = None

    def translate(self, sink: Sink, report: Report | None = None) -> None:
        """Raises DataError, before anything is computed, when the memory does not hold the least strip, or the disk
        not the scratch files.
        """
        heights = [self._strip(way) for way in self.passes]
        require_space(self._scratch, self.needed)
        total, done = sum(way.cost for way in self.passes) * self.height, 0.0
        try:
            for way, height in zip(self.passes, heights, strict=True):
                for share in self._go(way, height, sink):
                    done += way.cost * share
                    if report is not None:
                        report(done / total)
        finally:
            self._close(set(self._stores))

    def _go(self, way: Pass, height: int, sink: Sink) -> Iterator[float]:
        """One pass, in strips whose results have `height` rows; yields the rows of the picture that each took."""
        first, last = way.chain[0], way.chain[-1]
        result = self._store() if way.kept else None
        trunk = self._store() if first.segment.keep else None
        gathered = Moments()
        of_result = round(self.height * last.scale)
        for top in range(0, of_result, height):
            strip = range(top, min(top + height, of_result))
            x, kept, start = self._compute(way.chain, strip)
            if last.segment.norm is None:
                sink(strip, self.generator.finish(x, start))
            else:
                gathered.add(x)
            if result is not None:
                result.write(strip, x)
            if trunk is not None:
                assert kept is not None
                trunk.write(strip, kept)
            del x, kept
            yield len(strip) / last.scale
        if last.segment.norm is not None:
            self._known[last.name] = self._choose(last.name, gathered)
        if result is not None:
            if first.segment.keep or first.segment.entry.startswith("add"):
                self._trunk = trunk
            self._source, self._result = last, result
            self._close(set(self._stores) - {self._result, self._trunk})

    def _store(self) -> Store:
        store = Store(self._scratch)
        self._stores.append(store)
        return store

    def _close(self, stores: Set[Store | None]) -> None:
        self._stores = [store for store in self._stores if store not in stores]
        for store in stores:
            if store is not None:
                store.close()

    def _compute(self, chain: Sequence[Link], strip: range) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """A strip of the chain's result, before its norm, of the trunk it keeps, and of the start."""
        spans = [strip]
        for at in reversed(chain):
            spans.insert(0, at.needs(spans[0], round(self.height * at.before)))
        x, trunk = self._read(spans[0])
        kept: Tensor | None = None
        start: Tensor | None = None
        for at, given, wanted in zip(chain, spans[:-1], spans[1:], strict=True):
            start = self._start(given) if at.segment.norm is None else None
            x, trunk = at.segment(x, trunk, start)
            if at.segment.keep:
                assert trunk is not None
                kept = _part(trunk, given.start, strip)
            x = _part(x, round(given.start * at.scale / at.before), wanted)
            if at is not chain[-1]:
                x = at.normalise(x, self._known[at.name])
        return x, kept, None if start is None else _part(start, spans[-2].start, strip)

    def _read(self, rows: range) -> tuple[Tensor, Tensor | None]:
        """Rows of the last kept result, normalised, or of the picture; and of the trunk."""
        if self._source is None or self._result is None:
            return self.rows(rows).to(self._device), None
        x = self._source.normalise(self._result.read(rows).to(self._device), self._known[self._source.name])
        return x, None if self._trunk is None else self._trunk.read(rows).to(self._device)

    def _start(self, rows: range) -> Tensor | None:
        """These rows of what the output is added to. Where it is a smoothed picture, they depend on some beyond."""
        multiple = self.generator.multiple
        first = max(0, rows.start // multiple - 2) * multiple
        last = min(self.height, (math.ceil(rows.stop / multiple) + 2) * multiple)
        start = self.generator.start(self.rows(range(first, last)).to(self._device))
        return None if start is None else _part(start, first, rows)

    def _choose(self, name: str, gathered: "Moments") -> tuple[Tensor, Tensor]:
        mean, variance = (s.to(self._device, torch.float32) for s in gathered.take())
        return (mean, variance) if self._statistics is None else self._statistics(name, mean, variance)

    def _strip(self, way: Pass) -> int:
        """How many rows of its result a pass may compute at once."""
        last = way.chain[-1]
        beyond = sum(2 * at.segment.halo / at.before for at in way.chain)  # rows of the picture
        held = self.memory / (bytes_a_pixel(way.chain) * self.width) - beyond
        height = int(held * last.scale)
        if height < 1:
            least = (beyond + 1 / last.scale) * bytes_a_pixel(way.chain) * self.width
            raise DataError(
                f"a picture {self.width} pixels across takes at least {least / 2**30 + 0.05:.1f} GiB; give --memory"
            )
        return height


class Moments:
    """The mean and variance of each channel over strips that are added one by one (Chan et al. 1979)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = torch.zeros(())

    def add(self, x: Tensor) -> None:
        """x: (1, c, rows, w)."""
        count = x.shape[2] * x.shape[3]
        mean, variance = (s.double().cpu() for s in moments(x))
        total = self._count + count
        apart = mean - self._mean
        self._mean = self._mean + apart * (count / total)
        self._squares = self._squares + variance * count + apart.square() * (self._count * count / total)
        self._count = total

    def take(self) -> tuple[Tensor, Tensor]:
        """The mean and the biased variance, (1, c), float64."""
        return self._mean, self._squares / self._count


def _part(x: Tensor, first: int, wanted: range) -> Tensor:
    """The wanted rows of x, whose own first is the picture's row `first`."""
    return x[:, :, wanted.start - first : wanted.stop - first]
