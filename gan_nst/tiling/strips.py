"""Translates an image that does not fit in memory, in strips of rows normalised by the statistics of the whole image.

The statistics of a norm are known once its stage has been computed for every row, so there is one pass over the image
for each norm. A result below the image's resolution is kept in a scratch file for the next pass; one at full resolution
is many times as large, and is recomputed from the last one kept.
"""

import copy
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from gan_nst.core.errors import DataError
from gan_nst.networks.norm import moments
from gan_nst.networks.resnet import ResnetGenerator
from gan_nst.tiling.segments import Stage, Statistics, bytes_a_pixel, stages

Rows = Callable[[range], Tensor]  # returns rows of the image, (1, 3, rows, w) in [-1, 1]
Sink = Callable[[range, Tensor], None]  # receives rows of the translation, likewise, from top to bottom
Report = Callable[[float], None]  # receives the share that is done, 0 to 1

SMALLEST = 16  # pixels; reflection inside the networks needs more than their padding


def padded_length(length: int, multiple: int) -> int:
    """The length of a side padded to a multiple, and to the networks' minimum."""
    target = cast(int, torch.sym_max(length, max(SMALLEST, 2 * multiple)))  # leaves 2 to reflect at the end
    return (target + multiple - 1) // multiple * multiple


def padded_indices(
    height: int, width: int, multiple: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The rows and columns of an image that make up the padded one, (h',) and (w',): reflected at the right and bottom,
    or the last one repeated if either side is too short to reflect.

    Indices are computed, since an exported graph would keep only the branch that its example took.
    """
    rows, columns = (torch.arange(padded_length(n, multiple), device=device) for n in (height, width))
    enough = (rows[-1:] <= 2 * (height - 1)) & (columns[-1:] <= 2 * (width - 1))
    return _reflect(rows, height - 1, enough), _reflect(columns, width - 1, enough)


def _reflect(indices: Tensor, last: int, enough: Tensor) -> Tensor:
    return torch.where(enough & (indices > last), 2 * last - indices, indices.clamp(max=last))


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images (n, c, h, w) padded at the right and bottom; see `padded_indices`."""
    height, width = images.shape[2:]
    rows, columns = padded_indices(height, width, multiple, images.device)
    return images.index_select(2, rows).index_select(3, columns)


def transposed_generator(generator: ResnetGenerator) -> ResnetGenerator:
    """Returns a copy that maps transposed images to transposed translations.

    Only the convolutions' weights tell rows from columns.
    """
    twin = copy.deepcopy(generator)
    for weight in twin.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.transpose(2, 3).clone(memory_format=torch.preserve_format)
    return twin


class ScratchFile:
    """A tensor (1, c, height, w) in an unnamed file, which vanishes with the object or the process.

    It is read and written, not mapped, so that the system's cache does not count as this process's memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shape = (0, 0)  # width and channels, set by the first write
        self._dtype = torch.float32
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (see finalize)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot hold a scratch file ({error.strerror}); give --scratch"
            ) from None
        weakref.finalize(self, self._file.close)  # frees the disk space

    def write(self, rows: range, x: Tensor) -> None:
        """Stores x, (1, c, len(rows), w), as these rows. Raises DataError when the disk is full."""
        pixels = x.detach().permute(0, 2, 3, 1).contiguous().cpu()
        self._shape, self._dtype = (pixels.shape[2], pixels.shape[3]), pixels.dtype
        data = _bytes(pixels)
        self._file.seek(rows.start * self._row_bytes)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise DataError(
                f"{self._folder}: the scratch file could not be written ({error.strerror}); give another folder "
                "with --scratch"
            ) from None

    def read(self, rows: range) -> Tensor:
        """Returns these rows, (1, c, len(rows), w), in the channels-last layout."""
        pixels = torch.empty((1, len(rows), *self._shape), dtype=self._dtype)
        data = _bytes(pixels)
        self._file.seek(rows.start * self._row_bytes)
        while data:
            got = self._file.readinto(data)
            assert got, "rows are written before they are read"
            data = data[got:]
        return pixels.permute(0, 3, 1, 2)

    @property
    def _row_bytes(self) -> int:
        return self._shape[0] * self._shape[1] * self._dtype.itemsize


def _bytes(x: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return memoryview(x.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def check_space(folder: Path, needed: int) -> None:
    """Raises DataError when the folder's disk has fewer than `needed` bytes free."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"{folder}: cannot hold a scratch file ({error.strerror}); give --scratch") from None
    if free < needed:
        raise DataError(
            f"{folder}: {free / 1e6:,.0f} MB free, but the scratch file needs {needed / 1e6:,.0f} MB; give a folder on "
            "another disk with --scratch, or more --memory"
        )


@dataclass(frozen=True)
class Pass:
    """One pass over the image: the stages from the last kept result to the norm whose statistics it gathers, or to the
    translation. kept: whether the last stage's result is kept.
    """

    chain: list[Stage]
    kept: bool

    @property
    def cost(self) -> float:
        return sum(stage.cost for stage in self.chain)


def passes(generator: ResnetGenerator) -> list[Pass]:
    """The passes over an image that its translation takes."""
    found: list[Pass] = []
    chain: list[Stage] = []
    for stage in stages(generator):
        chain = [*chain, stage]
        found.append(Pass(chain, kept=stage.scale < 1))
        if stage.scale < 1:
            chain = []
    return found


def scratch_bytes(passes: Sequence[Pass]) -> float:
    """The peak size of what is kept, per pixel of the image, in float32."""
    source, trunk, most = 0.0, 0.0, 0.0
    for step in passes:
        first, last = step.chain[0], step.chain[-1]
        new = source if first.segment.keep else 0.0
        most = max(most, source + trunk + new + (last.bytes_kept if step.kept else 0))
        if step.kept:
            trunk = new or (0.0 if first.segment.entry.startswith("add") else trunk)
            source = last.bytes_kept
    return most


class Strips:
    """The translation of one image in strips.

    height, width: the image's, multiples of the generator's `multiple`. memory: bytes that the network may use at once.
    scratch: the folder of the scratch files. statistics: returns what to normalise by instead of the image's own.
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
        self._source: Stage | None = None  # whose result the pass starts from; None: the image
        self._result: ScratchFile | None = None
        self._trunk: ScratchFile | None = None

    def translate(self, sink: Sink, report: Report | None = None) -> None:
        """Passes the translation to `sink`. Raises DataError, before anything is computed, when not even the smallest
        strip fits in memory, or the scratch files do not fit on the disk.
        """
        heights = [self._strip_height(step) for step in self.passes]
        check_space(self._scratch, self.needed)
        total, done = sum(step.cost for step in self.passes) * self.height, 0.0
        for step, height in zip(self.passes, heights, strict=True):
            for share in self._run(step, height, sink):
                done += step.cost * share
                if report is not None:
                    report(done / total)

    def _run(self, step: Pass, height: int, sink: Sink) -> Iterator[float]:
        """Runs a pass in strips whose results have `height` rows; yields the image rows that each covered."""
        first, last = step.chain[0], step.chain[-1]
        result = ScratchFile(self._scratch) if step.kept else None
        trunk = ScratchFile(self._scratch) if first.segment.keep else None
        gathered = Moments()
        total = round(self.height * last.scale)
        for top in range(0, total, height):
            strip = range(top, min(top + height, total))
            x, kept, start = self._compute(step.chain, strip)
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
            self._known[last.name] = self._final_statistics(last.name, gathered)
        if result is not None:
            if first.segment.keep or first.segment.entry.startswith("add"):
                self._trunk = trunk
            self._source, self._result = last, result

    def _compute(self, chain: Sequence[Stage], strip: range) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns a strip of the chain's result before its norm, of the trunk that it keeps, and of the start."""
        spans = [strip]
        for stage in reversed(chain):
            spans.insert(0, stage.needs(spans[0], round(self.height * stage.before)))
        x, trunk = self._read(spans[0])
        kept: Tensor | None = None
        start: Tensor | None = None
        for stage, given, wanted in zip(chain, spans[:-1], spans[1:], strict=True):
            start = self._start(given) if stage.segment.norm is None else None
            x, trunk = stage.segment(x, trunk, start)
            if stage.segment.keep:
                assert trunk is not None
                kept = _part(trunk, given.start, strip)
            x = _part(x, round(given.start * stage.scale / stage.before), wanted)
            if stage is not chain[-1]:
                x = stage.normalise(x, self._known[stage.name])
        return x, kept, None if start is None else _part(start, spans[-2].start, strip)

    def _read(self, rows: range) -> tuple[Tensor, Tensor | None]:
        """Returns rows of the last kept result, normalised, or of the image; and of the trunk."""
        if self._source is None or self._result is None:
            return self.rows(rows).to(self._device), None
        x = self._source.normalise(self._result.read(rows).to(self._device), self._known[self._source.name])
        return x, None if self._trunk is None else self._trunk.read(rows).to(self._device)

    def _start(self, rows: range) -> Tensor | None:
        """Returns rows of what the output is added to. In a smoothed image they depend on rows beyond."""
        multiple = self.generator.multiple
        first = max(0, rows.start // multiple - 2) * multiple
        last = min(self.height, (math.ceil(rows.stop / multiple) + 2) * multiple)
        start = self.generator.start(self.rows(range(first, last)).to(self._device))
        return None if start is None else _part(start, first, rows)

    def _final_statistics(self, name: str, gathered: "Moments") -> tuple[Tensor, Tensor]:
        mean, variance = (s.to(self._device, torch.float32) for s in gathered.take())
        return (mean, variance) if self._statistics is None else self._statistics(name, mean, variance)

    def _strip_height(self, step: Pass) -> int:
        """The number of rows of its result that a pass may compute at once."""
        last = step.chain[-1]
        beyond = sum(2 * stage.segment.halo / stage.before for stage in step.chain)  # rows of the image
        held = self.memory / (bytes_a_pixel(step.chain) * self.width) - beyond
        height = int(held * last.scale)
        if height < 1:
            least = (beyond + 1 / last.scale) * bytes_a_pixel(step.chain) * self.width
            raise DataError(
                f"an image {self.width} pixels wide needs at least {least / 2**30 + 0.05:.1f} GiB; raise --memory"
            )
        return height


class Moments:
    """The mean and variance of each channel over strips added one by one (Chan et al. 1979)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = torch.zeros(())

    def add(self, x: Tensor) -> None:
        """x: (1, c, rows, w)."""
        count = x.shape[2] * x.shape[3]
        mean, variance = (s.cpu().double() for s in moments(x))  # MPS has no float64
        total = self._count + count
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        self._squares = self._squares + variance * count + delta.square() * (self._count * count / total)
        self._count = total

    def take(self) -> tuple[Tensor, Tensor]:
        """The mean and the biased variance, (1, c), float64."""
        return self._mean, self._squares / self._count


def _part(x: Tensor, first: int, wanted: range) -> Tensor:
    """The wanted rows of x, whose first row has the number `first`."""
    return x[:, :, wanted.start - first : wanted.stop - first]
