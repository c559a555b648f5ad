"""The one place that knows picture files and ranges: uint8 RGB of shape (h, w, 3) outside, float [-1, 1]
inside.
"""

import contextlib
import errno
import functools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from gan_nst.core.errors import DataError, reason, unwritten
from gan_nst.images.opening import NOT_PICTURES, opened

Picture = NDArray[np.uint8]
Resize = Literal["short_side", "squash", "none"]

LOOKED_FOR = ".png .jpg .webp and whatever else Pillow reads"


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """The file name endings, lower case with their dot, of the picture formats that Pillow reads."""
    Image.init()
    readable = set(Image.OPEN) - NOT_PICTURES
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


def find_pictures(folder: Path) -> list[Path]:
    """The picture files under a folder, by name, sorted; hidden files and folders are left out.

    Links are followed, but no folder is searched twice. Raises DataError for a folder that cannot be searched.
    """
    return [Path(folder, name) for name in picture_names(folder)]


@dataclass(frozen=True)
class Missed:
    """What a search for pictures came past.

    closed: one line for each folder that cannot be searched. others: the files that are no pictures by their names,
    counted by their endings, lower case with the dot; hidden ones do not count.
    """

    closed: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def picture_names(folder: Path, missed: Missed | None = None) -> Iterator[str]:
    """The paths of the picture files of `find_pictures` below their folder, in its order, one after the other: a
    million need not be held. missed: notes what is left out; without, a folder that cannot be searched is an error.
    """
    there = False
    with _noting(folder, missed):
        there = folder.is_dir()
    if not there:
        return
    searched: set[tuple[int, int]] = set()  # links can lead back to where one has been
    waiting = [iter([("", True)])]
    while waiting:
        name, is_folder = next(waiting[-1], (None, False))
        if name is None:
            waiting.pop()
        elif not is_folder:
            yield name
        else:
            waiting.append(iter(_listed(folder, name, searched, missed)))


def _listed(
    folder: Path, below: str, searched: set[tuple[int, int]], missed: Missed | None
) -> list[tuple[str, bool]]:
    """The pictures and the folders of a folder, sorted, each with whether it is a folder; nothing the second time."""
    here, suffixes = folder / below, picture_suffixes()
    found: list[tuple[str, bool]] = []
    with _noting(here, missed):
        status = here.stat()
        if (status.st_dev, status.st_ino) in searched:
            return []
        searched.add((status.st_dev, status.st_ino))
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                is_folder = _is_folder(entry)
                suffix = os.path.splitext(entry.name)[1].lower()
                if is_folder or suffix in suffixes:
                    found.append((f"{below}/{entry.name}" if below else entry.name, is_folder))
                elif missed is not None:
                    missed.others[suffix] += 1
    return sorted(found)


@contextlib.contextmanager
def _noting(folder: Path, missed: Missed | None) -> Iterator[None]:
    """Within the context a folder that cannot be searched is noted, or raises DataError where nobody takes notes."""
    try:
        yield
    except OSError as error:
        line = f"{error.filename or folder}: cannot be searched for pictures ({reason(error)})"
        if missed is None:
            raise DataError(line) from None
        missed.closed.append(line)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself: whoever reads it is told so
            return False
        raise


def read_picture(path: Path) -> Picture:
    """The picture in a file as RGB uint8 of shape (h, w, 3), turned as its EXIF orientation says.

    Gray, palette, CMYK and transparent pictures become RGB, transparency over white; 16 bits are scaled to 8. May
    be called from several threads.
    Raises DataError, one line, for whatever cannot be read whole.
    """
    return read_with_format(path)[0]


def read_with_format(path: Path) -> tuple[Picture, str]:
    """The picture in a file, as `read_picture` reads it, and its format in Pillow's words: "PNG", for example."""
    with opened(path) as image:
        width, height = image.size
        if (limit := Image.MAX_IMAGE_PIXELS) is not None and width * height > limit:
            raise DataError(
                f"has {width} x {height} pixels, more than the {limit:,} that are read; is it a decompression bomb?"
            )
        image.load()
        return to_rgb(image), image.format or ""


def to_rgb(image: Image.Image) -> Picture:
    """A Pillow image as RGB uint8 of shape (h, w, 3), upright. Raises DataError for float values out of any
    range.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        gray = _gray_to_uint8(np.asarray(image))
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def write_picture(picture: Picture, path: Path) -> None:
    """Writes a picture in the format of the path's suffix, whole or not at all. Raises DataError when it
    cannot.
    """
    Image.init()
    file_format = Image.EXTENSION.get(path.suffix.lower(), "PNG")
    with written_whole(path) as unfinished:
        Image.fromarray(picture).save(unfinished, format=file_format)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write into, which takes its place at the end of the context, or is removed when
    something goes wrong. Folders are made. A failure becomes a DataError, one line with the system's reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            yield unfinished
    except DataError:
        raise
    except Exception as error:
        raise DataError(unwritten(path, error)) from None


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A hidden file beside `path`, which takes its place at the end of the context, or is removed when anything, Ctrl-C
    too, goes wrong. sync: only once it is on the disk. Raises whatever went wrong.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.unlink(missing_ok=True)  # a link there could lead anywhere
        yield unfinished
        if sync:
            with open(unfinished, "rb") as file:
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def resize_picture(picture: Picture, size: int, how: Resize) -> Picture:
    """The picture with its shorter side `size` pixels ("short_side"), `size` square ("squash"), or as it is
    ("none").

    Bicubic with antialiasing (Pillow's), as the published recipes resize.
    """
    height, width = picture.shape[:2]
    if how == "none":
        return picture
    if how == "squash":
        target = (size, size)
    else:
        scale = size / min(height, width)
        target = (max(size, round(width * scale)), max(size, round(height * scale)))
    if target == (width, height):
        return picture
    return np.array(Image.fromarray(picture).resize(target, Image.Resampling.BICUBIC))


def shrink_picture(picture: Picture, size: int | None) -> Picture:
    """The picture with its shorter side `size` pixels, or as it is where that is no smaller or `size` is None."""
    short = min(picture.shape[:2])
    return resize_picture(picture, min(size or short, short), "short_side")


def bands(height: int, width: int, pixels: int = 1 << 19) -> Iterator[slice]:
    """A picture's rows in slices of about `pixels` pixels, for work whose memory must not grow with the picture."""
    rows = max(1, pixels // max(1, width))
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def to_float(pictures: Tensor) -> Tensor:
    """uint8 pictures (..., h, w) as float32 in [-1, 1]: 0 becomes -1, 255 becomes 1."""
    return pictures.to(torch.float32) / 127.5 - 1


def to_uint8(pictures: Tensor) -> Tensor:
    """Float pictures in [-1, 1] as uint8, rounded; values outside the range are clipped."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_tensor(picture: Picture) -> Tensor:
    """A picture (h, w, 3) as a uint8 tensor (3, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def to_picture(tensor: Tensor) -> Picture:
    """A uint8 tensor (3, h, w) as a picture (h, w, 3)."""
    picture: Picture = np.ascontiguousarray(tensor.cpu().numpy().transpose(1, 2, 0))
    return picture


def _gray_to_uint8(values: NDArray[np.generic]) -> Picture:
    """Gray values of more than 8 bits, scaled by the range their type or their values show."""
    return np.round(values.astype(np.float64) * (255 / white_of(values))).astype(np.uint8)


def white_of(values: NDArray[np.generic]) -> int:
    """What white is among values of more than 8 bits: 65535, or 1 or 255 where floats show it. Raises DataError for
    values out of any range.
    """
    floats = values.dtype.kind == "f"
    if floats and not np.isfinite(values).all():
        raise DataError("has values that are not finite")
    largest = values.max(initial=0)
    if values.min(initial=0) < 0 or largest > 65535:
        raise DataError("has values outside 0 to 65535, whose range is unknown")
    if floats and largest <= 255:
        return 1 if largest <= 1 else 255
    return 65535
