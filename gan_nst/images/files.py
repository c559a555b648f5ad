"""Finds, checks, reads and writes image files as RGB uint8 of shape (h, w, 3)."""

import contextlib
import errno
import functools
import os
import re
import stat
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from gan_nst.core.errors import DataError, reason
from gan_nst.core.files import atomic_output
from gan_nst.images.arrays import ImageArray, white_of

# Pillow warns of odd EXIF and the like; only the pixels matter. Once for the process: filters are not per thread.
warnings.filterwarnings("ignore", module=r"PIL\.")

_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"GIF87a", b"GIF89a")
_PIECE = 1 << 20  # bytes read at a time
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # JPEG's, except those within its pixel data
_BLOCKS = re.compile(rb"[!,;]")  # the beginnings of GIF's parts, and its end; Pillow skips any other byte
_TRUNCATED = "not a readable image (it is truncated)"


def check_complete(file: IO[bytes]) -> None:
    """Raises DataError for a PNG with a wrong checksum and for a PNG, JPEG or GIF without an end; other files pass.

    It takes at most a twentieth of the time to decode the image. Data after its end are ignored.
    """
    file.seek(0)
    head = file.read(len(_PNG))
    if head == _PNG:
        _check_png(file)
    elif head.startswith(_JPEG):
        _check_jpeg(_Bytes(file))
    elif head.startswith(_GIF):
        _check_gif(_Bytes(file))


def _check_png(file: IO[bytes]) -> None:
    """ISO/IEC 15948, 5.3: chunks of a length, a name, the content, and a checksum of name and content."""
    name = b""
    while name != b"IEND":
        length, name = struct.unpack(">I4s", _read(file, 8))
        found = zlib.crc32(name)
        while length > 0:
            piece = _read(file, min(length, _PIECE))
            found = zlib.crc32(piece, found)
            length -= len(piece)
        if struct.unpack(">I", _read(file, 4))[0] != found:
            raise DataError("not a readable image (it is damaged: a checksum is wrong)")


def _read(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise DataError(_TRUNCATED)
    return content


class _Bytes:
    """Random access to a file's bytes, holding one piece at a time, which begins at `start`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.start, self.piece = 0, b""

    def at(self, place: int, size: int) -> bytes:
        """Returns `size` bytes from `place` on, fewer at the file's end."""
        begin = place - self.start
        if not 0 <= begin <= len(self.piece) - size:
            self._file.seek(place)
            self.start, self.piece, begin = place, self._file.read(_PIECE), 0
        return self.piece[begin : begin + size]

    def number(self, place: int, size: int) -> int:
        """Returns the number in `size` bytes; 0 beyond the file's end."""
        return int.from_bytes(self.at(place, size))

    def find(self, mark: re.Pattern[bytes], place: int) -> tuple[int, int]:
        """Returns the last byte of the first mark, of one or two bytes, from a place on, and the place after it.

        Raises DataError when there is none.
        """
        while self.at(place, 2):
            if found := mark.search(self.piece, place - self.start):
                return found[0][-1], self.start + found.end()
            end = self.start + len(self.piece)
            place = end - 1 if place < end - 1 else end  # a mark may begin with the last byte
        raise DataError(_TRUNCATED)


def _check_jpeg(data: _Bytes) -> None:
    """ITU T.81, annex B: marked segments with a length, pixel data after some of them, and an end mark."""
    marker, place = data.find(_MARKER, 2)
    while marker != 0xD9:
        if 0x02 <= marker <= 0xBF:  # reserved: libjpeg would stop here and fill the rest with gray
            raise DataError("not a readable image (it is damaged: invalid JPEG marker)")
        if marker not in (0x01, 0xD8):
            place += data.number(place, 2)
        marker, place = data.find(_MARKER, place)


def _check_gif(data: _Bytes) -> None:
    """GIF89a, 15 to 27: a header, then images and extensions in blocks, then the trailer."""
    kind, place = data.find(_BLOCKS, 13 + _palette(data, 10))
    while kind != ord(";"):
        before = 1 if kind == ord("!") else 9 + _palette(data, place + 8) + 1
        kind, place = data.find(_BLOCKS, _after_blocks(data, place + before))


def _palette(data: _Bytes, place: int) -> int:
    """Returns the size of the palette that the flags at this place announce."""
    flags = data.number(place, 1)
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def _after_blocks(data: _Bytes, place: int) -> int:
    """Returns the end of the blocks that begin here: each starts with its length, the last is empty."""
    while data.at(place, 1):
        piece, here = data.piece, place - data.start  # no call for each of thousands of blocks
        while here < len(piece) and (length := piece[here]):
            here += 1 + length
        place = data.start + here
        if here < len(piece):
            break
    return place + 1


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Opens the image in a file like `Image.open`, but without Pillow's process-wide limit of pixels and without the
    formats that run another program.

    Within the context any error with the file becomes a DataError, one line that names it. Thread-safe.
    """
    with _reading(path), open(path, "rb") as file:
        check_complete(file)
        with _open(file) as image:
            yield image


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Within the context any error with an image file becomes a DataError, one line that names it."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe would block
            raise DataError("not a file but a pipe, socket or device")
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a broken file makes Pillow's plugins raise anything
        raise DataError(f"{path}: not a readable image ({reason(error)})") from None


def _open(file: IO[bytes]) -> ImageFile.ImageFile:
    Image.preinit()
    Image.init()
    file.seek(0)
    head = file.read(16)
    if not head:
        raise DataError("not a readable image (it is empty)")
    for name in Image.ID:
        factory, accept = Image.OPEN[name]
        try:
            fits = name not in NOT_IMAGES and (accept is None or accept(head))
            if fits and not isinstance(fits, str):  # a string says why a format is unsupported
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # how plugins decline a file
    raise DataError("not a readable image (unknown format)")


LOOKED_FOR = ".png .jpg .webp and other formats that Pillow reads"


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The suffixes, lower case with the dot, of the image formats that Pillow reads."""
    Image.init()
    readable = set(Image.OPEN) - NOT_IMAGES
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


def find_images(folder: Path) -> list[Path]:
    """Returns the image files under a folder, by suffix, sorted; hidden files and folders are skipped.

    Links are followed, but no folder is searched twice. Raises DataError for a folder that cannot be searched.
    """
    return [Path(folder, name) for name in image_names(folder)]


@dataclass(frozen=True)
class Missed:
    """What a search for images skipped.

    closed: one line for each folder that cannot be searched. others: counts, by suffix (lower case with the dot), of
    the files that are not images by their names; hidden ones do not count.
    """

    closed: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def image_names(folder: Path, missed: Missed | None = None) -> Iterator[str]:
    """Yields the paths that `find_images` returns, relative to their folder and in its order, without holding them all.

    missed: records what is skipped; without it, a folder that cannot be searched is an error.
    """
    there = False
    with _recording(folder, missed):
        there = folder.is_dir()
    if not there:
        return
    searched: set[tuple[int, int]] = set()  # links can form circles
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
    """The images and folders in a folder, sorted, each with whether it is a folder; nothing on a second visit."""
    here, suffixes = folder / below, image_suffixes()
    found: list[tuple[str, bool]] = []
    with _recording(here, missed):
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
def _recording(folder: Path, missed: Missed | None) -> Iterator[None]:
    """Within the context a folder that cannot be searched is recorded, or raises DataError without a record."""
    try:
        yield
    except OSError as error:
        line = f"{error.filename or folder}: cannot be searched for images ({reason(error)})"
        if missed is None:
            raise DataError(line) from None
        missed.closed.append(line)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself, reported when it is read
            return False
        raise


def read_image(path: Path) -> ImageArray:
    """Reads the image in a file as RGB uint8 of shape (h, w, 3), upright by its EXIF orientation.

    Gray, palette, CMYK and transparent images become RGB, transparency over white; 16 bits are scaled to 8.
    Thread-safe. Raises DataError, one line, for a file that cannot be read completely.
    """
    return read_with_format(path)[0]


def read_with_format(path: Path) -> tuple[ImageArray, str]:
    """Reads the image in a file like `read_image`, and its format by Pillow's name, "PNG" for example."""
    with opened(path) as image:
        width, height = image.size
        if (limit := Image.MAX_IMAGE_PIXELS) is not None and width * height > limit:
            raise DataError(
                f"has {width} x {height} pixels, more than the {limit:,} allowed; is it a decompression bomb?"
            )
        image.load()
        return to_rgb(image), image.format or ""


def to_rgb(image: Image.Image) -> ImageArray:
    """A Pillow image as RGB uint8 of shape (h, w, 3), upright. Raises DataError for values of unknown range."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        gray = _gray_to_uint8(np.asarray(image))
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def write_image(image: ImageArray, path: Path) -> None:
    """Writes an image atomically, in the format of the path's suffix. Raises DataError when it cannot be written."""
    Image.init()
    file_format = Image.EXTENSION.get(path.suffix.lower(), "PNG")
    with atomic_output(path) as unfinished:
        Image.fromarray(image).save(unfinished, format=file_format)


def _gray_to_uint8(values: NDArray[np.generic]) -> ImageArray:
    """Gray values of more than 8 bits, scaled by the range that their type or values imply."""
    return np.round(values.astype(np.float64) * (255 / white_of(values))).astype(np.uint8)


# Formats that Pillow opens but that are not images, or whose pixels need another program.
NOT_IMAGES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}
