"""Whether a picture's file is whole, by the marks and checksums of its format that Pillow passes over.

A bit of a JPEG's or GIF's pixels may be another without anybody seeing it; a PNG's may not.
"""

import re
import struct
import zlib
from typing import IO

from gan_nst.core.errors import DataError

_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"GIF87a", b"GIF89a")
_PIECE = 1 << 20  # bytes read at once
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # JPEG's, but for those within its pixels
_BLOCKS = re.compile(rb"[!,;]")  # what GIF's parts begin with, and its end; Pillow passes over any other byte
_CUT = "not a readable picture (is cut short)"


def check_whole(file: IO[bytes]) -> None:
    """Raises DataError for a PNG with a wrong checksum and for a PNG, JPEG or GIF that has no end; other files pass.

    Costs at most a twentieth of decoding the picture. What follows its end is not looked at.
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
            raise DataError("not a readable picture (is damaged: a checksum is wrong)")


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
            raise DataError("not a readable picture (is damaged: has a mark that no JPEG has)")
        if marker not in (0x01, 0xD8):
            place += data.number(place, 2)
        marker, place = data.find(_MARKER, place)


def _check_gif(data: _Places) -> None:
    """GIF89a, 15 to 27: a header, then pictures and extensions in blocks, and the trailer."""
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
