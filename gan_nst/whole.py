"""Whether a picture's file is whole, by the marks and checksums of its format that Pillow passes over.

A bit of a JPEG's or GIF's pixels may be another without anybody seeing it; a PNG's may not.
"""

import re
import struct
import zlib
from typing import IO

from gan_nst.errors import DataError

_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"GIF87a", b"GIF89a")
_PIECE = 1 << 20  # bytes read at once
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # JPEG's, but for those within its pixels
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
        _check_jpeg(head + file.read())
    elif head.startswith(_GIF):
        _check_gif(head + file.read())


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


def _check_jpeg(data: bytes) -> None:
    """ITU T.81, annex B: marked segments with a length, pixels after some of them, and the mark of the end."""
    place = 2
    while found := _MARKER.search(data, place):
        place, marker = found.end(), found[0][-1]
        if marker == 0xD9:
            return
        if 0x02 <= marker <= 0xBF:  # reserved: libjpeg would end the pixels here and paint the rest gray
            raise DataError("not a readable picture (is damaged: has a mark that no JPEG has)")
        if marker not in (0x01, 0xD8):
            place += int.from_bytes(data[place : place + 2])
    raise DataError(_CUT)


def _check_gif(data: bytes) -> None:
    """GIF89a, 15 to 27: a header, then pictures and extensions in blocks, and the trailer."""
    place = 13 + _palette(data, 10)
    while (kind := data[place : place + 1]) and kind != b";":
        place += 1
        if kind == b"!":
            place = _after_blocks(data, place + 1)
        elif kind == b",":
            place = _after_blocks(data, place + 9 + _palette(data, place + 8) + 1)
        # Pillow passes over any other byte, and so does this.
    if not kind:
        raise DataError(_CUT)


def _palette(data: bytes, place: int) -> int:
    """How many bytes the palette takes that these flags announce."""
    flags = data[place] if place < len(data) else 0
    return 3 << (flags % 8 + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, place: int) -> int:
    """Where the blocks end that begin here: each has its length first, the last none."""
    while place < len(data) and (length := data[place]):
        place += 1 + length
    return place + 1
