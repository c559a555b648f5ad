"""EXIF: kept byte for byte but for the orientation, which pixels that stand upright must not have, and the thumbnail,
which would show the picture as it was.
"""

import struct

from PIL import Image
from PIL.ExifTags import IFD, Base

_HEAD = b"Exif\0\0"  # what JPEG and Pillow put before it

# What a TIFF's own directory says of the picture, and not of how its pixels are stored.
_DESCRIPTIVE = {
    Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
    Base.Copyright, Base.Rating, Base.RatingPercent, Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords,
    Base.XPSubject, Base.DocumentName, Base.PageName, Base.XResolution, Base.YResolution, Base.ResolutionUnit,
    Base.PrintImageMatching, IFD.Exif, IFD.GPSInfo,
}  # fmt: skip


def exif_of(image: Image.Image) -> bytes | None:
    """A loaded picture's EXIF, its orientation 1 and without the thumbnail; none where there is none to be read."""
    try:
        stored = image.info.get("exif")
        if isinstance(stored, bytes) and image.format != "TIFF":
            return _upright(stored)
        exif = described(image.getexif())
        return exif.tobytes().removeprefix(_HEAD) if exif else None
    except Exception:  # Pillow raises whatever broken EXIF makes it stumble over
        return None


def described(exif: Image.Exif) -> Image.Exif:
    """Of EXIF what describes the picture, and not how its file stores pixels."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag in _DESCRIPTIVE:
            kept[tag] = exif.get_ifd(tag) if tag in (IFD.Exif, IFD.GPSInfo) else value
    return kept


def _upright(stored: bytes) -> bytes | None:
    exif = bytearray(stored.removeprefix(_HEAD))
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]))
    if order is None:
        return None
    (first,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, first)
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
        if tag == Base.Orientation:
            struct.pack_into(f"{order}I" if kind == 4 else f"{order}H", exif, entry + 8, 1)
    after = first + 2 + 12 * count
    if after + 4 <= len(exif):
        _forget_thumbnail(exif, order, struct.unpack_from(f"{order}I", exif, after)[0])
        struct.pack_into(f"{order}I", exif, after, 0)
    return bytes(exif)


def _forget_thumbnail(exif: bytearray, order: str, directory: int) -> None:
    """Cuts off, or blanks where other data lie behind it, the thumbnail of EXIF's second directory."""
    if not 0 < directory <= len(exif) - 2:
        return
    (count,) = struct.unpack_from(f"{order}H", exif, directory)
    found: dict[int, int] = {}
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(exif) - 11), 12):
        tag, value = struct.unpack_from(f"{order}H6xI", exif, entry)
        found[tag] = value
    start, size = found.get(Base.JpegIFOffset, 0), found.get(Base.JpegIFByteCount, 0)
    if start and start + size >= len(exif) - 1:  # often padded to an even length
        del exif[start:]
    elif start:
        exif[start : start + size] = bytes(size)
