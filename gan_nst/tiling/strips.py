"""An image too large for the memory, translated as if it were not: in strips of rows, normalised by the statistics of
the whole image.

The statistics of a norm are known when its segment has been computed for every row. So the image is passed once for
each norm. A result below the image's resolution is kept in a scratch file for the next pass; one at the image's own
is many times as large, and is computed again from the last one kept.
"""

import copy
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gan_nst.core.errors import DataError
from gan_nst.networks.norm import moments
from gan_nst.networks.resnet import ResnetGenerator
from gan_nst.tiling.segments import Link, Statistics, bytes_a_pixel, links

SMALLEST = 16  # pixels; reflection inside the networks needs more than their padding


def missing(length: int, multiple: int) -> int:
    """By how many pixels a side is padded: to a multiple, and to what the networks need."""
    target = max(length, SMALLEST, 2 * multiple)  # at the lowest resolution 2 pixels are left to reflect
    return -(-target // multiple) * multiple - length


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images (n, c, h, w) padded by reflection; tiny ones, which have too little to reflect, repeat their edge."""
    height, width = images.shape[2:]
    down, right = missing(height, multiple), missing(width, multiple)
    return (
        F.pad(images, (0, right, 0, down), mode=_mode(height, width, multiple)) if down or right else images
    )


def padded_places(height: int, width: int, multiple: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which rows and which columns of an image make the one that `pad_to_multiple` makes of it."""
    mode = _mode(height, width, multiple)
    return _places(height, multiple, mode), _places(width, multiple, mode)


def _places(length: int, multiple: int, mode: str) -> NDArray[np.intp]:
    at = np.arange(length + missing(length, multiple))
    return np.where(at < length, at, 2 * (length - 1) - at if mode == "reflect" else length - 1)


def _mode(height: int, width: int, multiple: int) -> Literal["reflect", "replicate"]:
    enough = missing(height, multiple) < height and missing(width, multiple) < width
    return "reflect" if enough else "replicate"


def turned(generator: ResnetGenerator) -> ResnetGenerator:
    """A copy that makes of a transposed image what this one makes of the image, transposed.

    Everything in it treats rows as it does columns, but its convolutions' weights.
    """
    twin = copy.deepcopy(generator)
    for weight in twin.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.transpose(2, 3).clone(memory_format=torch.preserve_format)
    return twin


class Store:
    """A tensor (1, c, height, w) in a file that has no name, and is gone when it is closed or the process ends.

    Read and written with calls, not mapped into memory, so that what the system caches of it is not this process's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shape = (0, 0)  # width and channels, known since the first write
        self._dtype = torch.float32
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (see close)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot hold a scratch file ({error.strerror}); give --scratch"
            ) from None

    def write(self, rows: range, x: Tensor) -> None:
        """Keeps x, (1, c, len(rows), w), as these rows. Raises DataError when the disk is full."""
        pixels = x.detach().permute(0, 2, 3, 1).contiguous().cpu()
        self._shape, self._dtype = (pixels.shape[2], pixels.shape[3]), pixels.dtype
        data = _bytes(pixels)
        self._file.seek(rows.start * self._row)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise DataError(
                f"{self._folder}: the scratch file could not be written ({error.strerror}); give another folder "
                "with --scratch"
            ) from None

    def read(self, rows: range) -> Tensor:
        """These rows, (1, c, len(rows), w), with a pixel's channels side by side in memory."""
        pixels = torch.empty((1, len(rows), *self._shape), dtype=self._dtype)
        data = _bytes(pixels)
        self._file.seek(rows.start * self._row)
        while data:
            got = self._file.readinto(data)
            assert got, "rows are written before they are read"
            data = data[got:]
        return pixels.permute(0, 3, 1, 2)

    def close(self) -> None:
        """Gives the disk's space back."""
        self._file.close()

    @property
    def _row(self) -> int:
        """Bytes."""
        return self._shape[0] * self._shape[1] * self._dtype.itemsize


def _bytes(x: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return memoryview(x.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def require_space(folder: Path, needed: int) -> None:
    """Raises DataError where the folder's disk has less than `needed` bytes left."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"{folder}: cannot hold a scratch file ({error.strerror}); give --scratch") from None
    if free < needed:
        raise DataError(
            f"{folder}: {free / 1e6:,.0f} MB free, and the scratch file takes {needed / 1e6:,.0f} MB; give a folder on "
            "another disk with --scratch, or more --memory"
        )


Rows = Callable[[range], Tensor]  # gives rows of the image, (1, 3, rows, w) in [-1, 1]
Sink = Callable[[range, Tensor], None]  # takes rows of the translation, likewise, from top to bottom
Report = Callable[[float], None]  # takes the share that is done, 0 to 1


@dataclass(frozen=True)
class Pass:
    """One way over the image: the links from the last kept result to the norm whose statistics it gathers, or to the
    translation. kept: whether the last link's result is.
    """

    chain: list[Link]
    kept: bool

    @property
    def cost(self) -> float:
        return sum(at.cost for at in self.chain)


def passes(generator: ResnetGenerator) -> list[Pass]:
    """The ways over an image that its translation takes."""
    found: list[Pass] = []
    chain: list[Link] = []
    for at in links(generator):
        chain = [*chain, at]
        found.append(Pass(chain, kept=at.scale < 1))
        if at.scale < 1:
            chain = []
    return found


def scratch_bytes(ways: Sequence[Pass]) -> float:
    """The most that is kept at once, for each pixel of the image, in float32."""
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
    """The translation of one image.

    height, width: the image's, multiples of the generator's `multiple`. memory: bytes for what is computed at once.
    scratch: the folder of the scratch files. statistics: what to normalise by instead of the image's own.
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
        self._source: Link | None = None  # whose result the pass starts from; None: the image
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
        """One pass, in strips whose results have `height` rows; yields the rows of the image that each took."""
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
        """Rows of the last kept result, normalised, or of the image; and of the trunk."""
        if self._source is None or self._result is None:
            return self.rows(rows).to(self._device), None
        x = self._source.normalise(self._result.read(rows).to(self._device), self._known[self._source.name])
        return x, None if self._trunk is None else self._trunk.read(rows).to(self._device)

    def _start(self, rows: range) -> Tensor | None:
        """These rows of what the output is added to. Where it is a smoothed image, they depend on some beyond."""
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
        beyond = sum(2 * at.segment.halo / at.before for at in way.chain)  # rows of the image
        held = self.memory / (bytes_a_pixel(way.chain) * self.width) - beyond
        height = int(held * last.scale)
        if height < 1:
            least = (beyond + 1 / last.scale) * bytes_a_pixel(way.chain) * self.width
            raise DataError(
                f"an image {self.width} pixels across takes at least {least / 2**30 + 0.05:.1f} GiB; give --memory"
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
    """The wanted rows of x, whose own first is the image's row `first`."""
    return x[:, :, wanted.start - first : wanted.stop - first]
