"""The one place that knows image files and ranges: uint8 RGB of shape (h, w, 3) outside, float [-1, 1]
inside.
"""

import contextlib
import errno
import functools
import os
import re
import stat
import struct
import threading
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

_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"GIF87a", b"GIF89a")
_PIECE = 1 << 20  # bytes read at once
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # JPEG's, but for those within its pixels
_BLOCKS = re.compile(rb"[!,;]")  # what GIF's parts begin with, and its end; Pillow passes over any other byte
_CUT = "not a readable image (is cut short)"


def check_whole(file: IO[bytes]) -> None:
    """Raises DataError for a PNG with a wrong checksum and for a PNG, JPEG or GIF that has no end; other files pass.

    Costs at most a twentieth of decoding the image. What follows its end is not looked at.
    """
    file.seek(0)
    head = file.read(len(_PNG))
    if head == _PNG:
        _check_png(file)
    elif head.startswith(_JPEG):
        _check_jpeg(_Places(file))
    elif head.startswith(_GIF):
        _check_gif(_Places(file))


def _check_png(file: IO[bytes]) -> None:
    """ISO/IEC 15948, 5.3: chunks of a length, a name, the content and a sum of name and content."""
    name = b""
    while name != b"IEND":
        length, name = struct.unpack(">I4s", _read(file, 8))
        found = zlib.crc32(name)
        while length > 0:
            piece = _read(file, min(length, _PIECE))
            found = zlib.crc32(piece, found)
            length -= len(piece)
        if struct.unpack(">I", _read(file, 4))[0] != found:
            raise DataError("not a readable image (is damaged: a checksum is wrong)")


def _read(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise DataError(_CUT)
    return content


class _Places:
    """A file's bytes by their place in it, of which one piece is held at a time, from `start` on."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.start, self.piece = 0, b""

    def at(self, place: int, size: int) -> bytes:
        """So many bytes, fewer at the file's end."""
        begin = place - self.start
        if not 0 <= begin <= len(self.piece) - size:
            self._file.seek(place)
            self.start, self.piece, begin = place, self._file.read(_PIECE), 0
        return self.piece[begin : begin + size]

    def number(self, place: int, size: int) -> int:
        """The number in so many bytes; 0 where the file has ended."""
        return int.from_bytes(self.at(place, size))

    def find(self, mark: re.Pattern[bytes], place: int) -> tuple[int, int]:
        """The last byte of the first mark, of one or two bytes, from a place on, and the place after it.

        Raises DataError when there is none.
        """
        while self.at(place, 2):
            if found := mark.search(self.piece, place - self.start):
                return found[0][-1], self.start + found.end()
            end = self.start + len(self.piece)
            place = end - 1 if place < end - 1 else end  # a mark may have begun with the last byte
        raise DataError(_CUT)


def _check_jpeg(data: _Places) -> None:
    """ITU T.81, annex B: marked segments with a length, pixels after some of them, and the mark of the end."""
    marker, place = data.find(_MARKER, 2)
    while marker != 0xD9:
        if 0x02 <= marker <= 0xBF:  # reserved: libjpeg would end the pixels here and paint the rest gray
            raise DataError("not a readable image (is damaged: has a mark that no JPEG has)")
        if marker not in (0x01, 0xD8):
            place += data.number(place, 2)
        marker, place = data.find(_MARKER, place)


def _check_gif(data: _Places) -> None:
    """GIF89a, 15 to 27: a header, then images and extensions in blocks, and the trailer."""
    kind, place = data.find(_BLOCKS, 13 + _palette(data, 10))
    while kind != ord(";"):
        before = 1 if kind == ord("!") else 9 + _palette(data, place + 8) + 1
        kind, place = data.find(_BLOCKS, _after_blocks(data, place + before))


def _palette(data: _Places, place: int) -> int:
    """How many bytes the palette takes that these flags announce."""
    flags = data.number(place, 1)
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def _after_blocks(data: _Places, place: int) -> int:
    """Where the blocks end that begin here: each has its length first, the last none."""
    while data.at(place, 1):
        piece, here = data.piece, place - data.start  # there are thousands of blocks: no call for each
        while here < len(piece) and (length := piece[here]):
            here += 1 + length
        place = data.start + here
        if here < len(piece):
            break
    return place + 1


_lock, _readers, _filters = threading.Lock(), 0, contextlib.ExitStack()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The image in a file, opened as `Image.open` does, but without its limit of pixels, which is the process's, and
    without the formats that run another program.

    Within the context whatever goes wrong with the file becomes a DataError, one line that names it, and Pillow does
    not warn of odd EXIF and the like: the pixels count. May be called from several threads.
    """
    with _reading(path), _pillow_silenced(), open(path, "rb") as file:
        check_whole(file)
        with _open(file) as image:
            yield image


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Within the context whatever goes wrong with an image file becomes a DataError, one line that names it."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would keep its reader waiting
            raise DataError("not a file, but a pipe, a socket or a device")
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them stumble over
        raise DataError(f"{path}: not a readable image ({reason(error)})") from None


@contextlib.contextmanager
def _pillow_silenced() -> Iterator[None]:
    """Within the context Pillow does not warn.

    The filters are the process's, so the first thread to come in sets them and the last to go out resets them.
    """
    global _readers
    with _lock:
        _readers += 1
        if _readers == 1:
            _filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _filters.close()


def _open(file: IO[bytes]) -> ImageFile.ImageFile:
    Image.preinit()
    Image.init()
    file.seek(0)
    head = file.read(16)
    if not head:
        raise DataError("not a readable image (is empty)")
    for name in Image.ID:
        factory, accept = Image.OPEN[name]
        try:
            fits = name not in NOT_IMAGES and (accept is None or accept(head))
            if fits and not isinstance(fits, str):  # a string says why a format is not supported here
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # how plugins say that it is none of theirs
    raise DataError("not a readable image (of no known format)")


LOOKED_FOR = ".png .jpg .webp and whatever else Pillow reads"


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The file name endings, lower case with their dot, of the image formats that Pillow reads."""
    Image.init()
    readable = set(Image.OPEN) - NOT_IMAGES
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


def find_images(folder: Path) -> list[Path]:
    """The image files under a folder, by name, sorted; hidden files and folders are left out.

    Links are followed, but no folder is searched twice. Raises DataError for a folder that cannot be searched.
    """
    return [Path(folder, name) for name in image_names(folder)]


@dataclass(frozen=True)
class Missed:
    """What a search for images came past.

    closed: one line for each folder that cannot be searched. others: the files that are no images by their names,
    counted by their endings, lower case with the dot; hidden ones do not count.
    """

    closed: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def image_names(folder: Path, missed: Missed | None = None) -> Iterator[str]:
    """The paths of the image files of `find_images` below their folder, in its order, one after the other: a
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
    """The images and the folders of a folder, sorted, each with whether it is a folder; nothing the second time."""
    here, suffixes = folder / below, image_suffixes()
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
        line = f"{error.filename or folder}: cannot be searched for images ({reason(error)})"
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


def read_image(path: Path) -> ImageArray:
    """The image in a file as RGB uint8 of shape (h, w, 3), turned as its EXIF orientation says.

    Gray, palette, CMYK and transparent images become RGB, transparency over white; 16 bits are scaled to 8. May
    be called from several threads.
    Raises DataError, one line, for whatever cannot be read whole.
    """
    return read_with_format(path)[0]


def read_with_format(path: Path) -> tuple[ImageArray, str]:
    """The image in a file, as `read_image` reads it, and its format in Pillow's words: "PNG", for example."""
    with opened(path) as image:
        width, height = image.size
        if (limit := Image.MAX_IMAGE_PIXELS) is not None and width * height > limit:
            raise DataError(
                f"has {width} x {height} pixels, more than the {limit:,} that are read; is it a decompression bomb?"
            )
        image.load()
        return to_rgb(image), image.format or ""


def to_rgb(image: Image.Image) -> ImageArray:
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


def write_image(image: ImageArray, path: Path) -> None:
    """Writes an image in the format of the path's suffix, whole or not at all. Raises DataError when it
    cannot.
    """
    Image.init()
    file_format = Image.EXTENSION.get(path.suffix.lower(), "PNG")
    with atomic_output(path) as unfinished:
        Image.fromarray(image).save(unfinished, format=file_format)


def _gray_to_uint8(values: NDArray[np.generic]) -> ImageArray:
    """Gray values of more than 8 bits, scaled by the range their type or their values show."""
    return np.round(values.astype(np.float64) * (255 / white_of(values))).astype(np.uint8)


# Formats that Pillow opens but that are no images, or whose pixels need another program.
NOT_IMAGES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}
