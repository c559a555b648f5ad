"""Reads and writes photos with alpha, 16 bits, EXIF and colour profile."""

import contextlib
import io
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from gan_nst.core.errors import DataError
from gan_nst.core.files import atomic_output
from gan_nst.core.options import Encoding, TranslateOptions
from gan_nst.images.arrays import bands, white_of
from gan_nst.images.colour import srgb_profile, to_srgb, to_srgb16
from gan_nst.images.files import opened

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Pixels16 = NDArray[np.uint16]

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}
LARGEST = TranslateOptions.max_pixels

_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 32768}  # that their libraries can write and read back
_LONGEST_EXIF = 65533 - 6  # in JPEG
_WHITE = 65535
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_HEADER = b"Exif\0\0"  # which JPEG and Pillow prepend
# Tags that describe an image rather than how its file stores pixels. In a TIFF both share a directory.
_DESCRIPTIVE = {
    Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
    Base.Copyright, Base.Rating, Base.RatingPercent, Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords,
    Base.XPSubject, Base.DocumentName, Base.PageName, Base.XResolution, Base.YResolution, Base.ResolutionUnit,
    Base.PrintImageMatching, IFD.Exif, IFD.GPSInfo,
}  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """An image, upright and in sRGB.

    pixels: RGB, (h, w, 3), uint8, or uint16 if its file has more than 8 bits. alpha: (h, w), of the same type. exif:
    the file's, with the orientation reset.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    exif: bytes | None = None


def read_photo(path: Path, largest: int = LARGEST) -> Photo:
    """Reads the photo in a file. Raises DataError, one line, when it cannot be read completely, or has more pixels than
    `largest`.

    The format is detected by content; of an animation the first frame is read. 16 bits are kept for colour in PNG and
    TIFF, and for gray in any format. Colours are converted to sRGB by the file's profile; without one they are assumed
    to be sRGB. Thread-safe.
    """
    with opened(path) as image:
        width, height = image.size
        if width * height > largest:
            raise DataError(
                f"has {width} x {height} pixels, {width * height:,}, more than the {largest:,} allowed; raise "
                "--max-pixels"
            )
        if image.format not in ("MPO", "PSD") and getattr(image, "n_frames", 1) > 1:
            log.warning(f"{path}: has several images; using the first one")
        stored = _raw_mode(image)
        is_16_bit = _has_16_bit_colour(image)
        image.load()  # even if OpenCV decodes it, which would fill in what a broken file lacks
        pixels: Pixels
        alpha: Pixels | None
        if is_16_bit:
            pixels, alpha = _decode_16_bit(path.read_bytes(), stored)
        else:
            pixels, alpha = _gray_16(image) if _has_deep_gray(image) else _colour_8(image, path)
        if pixels.dtype == np.uint16 and (icc := image.info.get("icc_profile")):
            with _ignoring_bad_profiles(path):
                to_srgb16(pixels.view(np.uint16), icc, is_gray=not is_16_bit or stored.startswith("L"))
        orientation = _orientation(image)  # 1 for a TIFF by now: Pillow and OpenCV rotate it
        exif = _upright_exif(image)
    return Photo(_upright(pixels, orientation), None if alpha is None else _upright(alpha, orientation), exif)


def write_photo(photo: Photo, path: Path, encoding: Encoding | None = None) -> None:
    """Writes a photo atomically, in the format of the path's suffix. Raises DataError when it cannot be written.

    PNG and TIFF keep 16 bits, other formats are rounded to 8. Alpha is kept except in JPEG, where the image is
    composited over white. EXIF and an sRGB profile are included; equal photos give equal files.
    """
    name = FORMATS.get(path.suffix.lower())
    if name is None:
        raise DataError(f"{path}: unsupported format; the suffix must be one of {' '.join(FORMATS)}")
    height, width = photo.pixels.shape[:2]
    if max(height, width) > (longest := _LONGEST_SIDE.get(name, 1 << 31)):
        raise DataError(f"{path}: {name} images have at most {longest} pixels a side, not {width} x {height}")
    if name == "JPEG" and len(photo.exif or b"") > _LONGEST_EXIF:
        log.warning(f"{path}: written without its EXIF, which is too large for JPEG")
        photo = Photo(photo.pixels, photo.alpha)
    with atomic_output(path) as unfinished:
        unfinished.write_bytes(_encode(photo, name, encoding or Encoding()))


def _has_deep_gray(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _gray_16(image: Image.Image) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None]:
    """A loaded gray image of more than 8 bits as RGB, with alpha if one value is transparent."""
    values = np.asarray(image)
    scale = _WHITE / white_of(values)
    pixels = np.empty((*values.shape, 3), np.uint16)
    for rows in bands(*values.shape):
        pixels[rows] = np.rint(values[rows].astype(np.float64) * scale)[..., None]
    transparent = image.info.get("transparency")
    if transparent is None:
        return pixels, None
    return pixels, np.where(values == transparent, 0, _WHITE).astype(np.uint16)


def _colour_8(image: Image.Image, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """A loaded image of at most 8 bits as RGB in sRGB, and its alpha."""
    gray = image.mode in ("1", "L", "LA", "La")
    icc, alpha = image.info.get("icc_profile"), None
    if image.has_transparency_data:
        image = image.convert("LA" if gray else "RGBA")
        alpha = _array(image.getchannel("A"))
    image = image.convert("L" if gray else image.mode if image.mode in ("CMYK", "LAB") else "RGB")
    if icc:
        with _ignoring_bad_profiles(path):
            image = to_srgb(image, icc)
    return _array(image.convert("RGB")), alpha


def _array(image: Image.Image) -> NDArray[np.uint8]:
    """An image's values as a new array, copied in bands so that there is no second full copy."""
    values = np.empty((image.height, image.width, *((3,) if image.mode == "RGB" else ())), np.uint8)
    for rows in bands(image.height, image.width):
        values[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return values


@contextlib.contextmanager
def _ignoring_bad_profiles(path: Path) -> Iterator[None]:
    """Ignores an unusable colour profile, with a warning."""
    try:
        yield
    except DataError as error:
        log.warning(f"{path}: {error}; assuming sRGB colours")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(Base.Orientation, 1))
    except Exception:  # broken EXIF makes Pillow raise anything
        return 1


def _upright(values: Pixels, orientation: int) -> Pixels:
    """Values (h, w, ...) rotated and mirrored by an EXIF orientation."""
    swapped = values.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else values
    down = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    right = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    upright: Pixels = np.ascontiguousarray(swapped[down, right])  # type: ignore[assignment]
    return upright


def _raw_mode(image: Image.Image) -> str:
    """Pillow's raw mode of an opened, not yet loaded image: "RGB;16B" is big-endian 16-bit colour."""
    if not image.tile:  # type: ignore[attr-defined]
        return ""
    arguments = image.tile[0].args  # type: ignore[attr-defined]
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


def _has_16_bit_colour(image: Image.Image) -> bool:
    """Whether an opened, not yet loaded image has 16-bit colour, which Pillow would reduce to 8 bits. Raises DataError
    for 16-bit colour that cannot be read.
    """
    if image.format == "TIFF" and image.mode in ("RGB", "RGBA"):
        tags = image.tag_v2  # type: ignore[attr-defined]
        if max(tags.get(258, (8,))) > 8 and tags.get(284) == 2:
            raise DataError(
                "16-bit colour stored plane by plane is not supported; save it with interleaved channels"
            )
    return image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA") and ";16" in _raw_mode(image)


def _decode_16_bit(data: bytes, stored: str) -> tuple[Pixels16, Pixels16 | None]:
    """Decodes a 16-bit PNG or TIFF to RGB, (h, w, 3), and alpha, (h, w); a TIFF comes out upright. Raises ValueError
    when OpenCV cannot read it.
    """
    if data.startswith(_PNG_SIGNATURE):
        data = _critical_chunks(data)
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("its 16-bit pixels cannot be read")
    if values.shape[2] == 3:
        return cv2.cvtColor(values, cv2.COLOR_BGR2RGB, dst=values), None  # type: ignore[return-value]
    pixels: Pixels16 = cv2.cvtColor(values, cv2.COLOR_BGRA2RGB)  # type: ignore[assignment]
    if stored.startswith("RGBX"):
        return pixels, None
    alpha: Pixels16 = np.ascontiguousarray(values[..., 3]).view(np.uint16)
    if stored.startswith("RGBa"):  # premultiplied
        for rows in bands(*alpha.shape):
            straight = pixels[rows] * (_WHITE / np.maximum(alpha[rows], 1).astype(np.float32))[..., None]
            pixels[rows] = np.minimum(np.rint(straight), _WHITE)
    return pixels, alpha


def _critical_chunks(data: bytes) -> bytes:
    """A PNG without its ancillary chunks, about which libpng would print warnings."""
    kept, start = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while start < len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[start : start + 12 + length])
        start = len(data) if kind == b"IEND" else start + 12 + length
    return b"".join(kept)


def _encode(photo: Photo, name: str, encoding: Encoding) -> bytes:
    """The photo's file, in memory: encoders that write to disk hide the reason when it is full."""
    icc, exif = srgb_profile(), photo.exif
    if name == "TIFF":
        return _encode_tiff(photo.pixels, photo.alpha, icc, exif)
    if name == "PNG" and photo.pixels.dtype == np.uint16:
        alpha = None if photo.alpha is None else photo.alpha.view(np.uint16)
        return _encode_png_16(photo.pixels.view(np.uint16), alpha, icc, exif)
    options: dict[str, object] = {"icc_profile": icc}
    if exif:
        options["exif"] = exif if name == "AVIF" else _EXIF_HEADER + exif
    if name != "PNG":
        options["quality"] = encoding.quality
    if name in ("JPEG", "AVIF"):
        options["subsampling"] = encoding.chroma
    file = io.BytesIO()
    Image.fromarray(_as_8_bit(photo, opaque=name == "JPEG")).save(file, format=name, **options)
    return file.getvalue()


def _as_8_bit(photo: Photo, opaque: bool) -> NDArray[np.uint8]:
    """The photo as 8-bit RGB or RGBA; opaque: composited over white."""
    pixels, alpha = photo.pixels, photo.alpha
    white = np.iinfo(pixels.dtype).max
    if alpha is None and pixels.dtype == np.uint8:
        return pixels.view(np.uint8)
    values = np.empty((*pixels.shape[:2], 3 if opaque or alpha is None else 4), np.uint8)
    for rows in bands(*pixels.shape[:2]):
        colour: NDArray[np.floating] = pixels[rows].astype(np.float32)
        if alpha is not None:
            share = alpha[rows, :, None].astype(np.float32)
            if opaque:
                colour = white - (white - colour) * (share / white)
            else:
                values[rows, :, 3:] = np.rint(share * (255 / white))
        values[rows, :, :3] = np.rint(colour * (255 / white))
    return values


def _encode_png_16(pixels: Pixels16, alpha: Pixels16 | None, icc: bytes, exif: bytes | None) -> bytes:
    """Encodes a 16-bit PNG with OpenCV, and inserts a profile (iCCP) and EXIF (eXIf) after its header."""
    if alpha is None:
        values = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    else:
        values = cv2.merge([pixels[..., 2], pixels[..., 1], pixels[..., 0], alpha])
    done, encoded = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ValueError("OpenCV cannot encode it")
    chunks = _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif:
        chunks += _chunk(b"eXIf", exif)
    header = 8 + 12 + 13  # signature; length, type and checksum of the IHDR chunk; its content
    data = encoded.tobytes()
    return b"".join([data[:header], chunks, data[header:]])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _encode_tiff(
    pixels: NDArray[np.uint8] | Pixels16,
    alpha: NDArray[np.uint8] | Pixels16 | None,
    icc: bytes,
    exif: bytes | None,
) -> bytes:
    """Encodes a TIFF of 8 or 16 bits, deflated with horizontal differencing, with a profile and EXIF.

    TIFF 6.0; Adobe's technical notes of 2002 for deflate. Raises ValueError beyond TIFF's 4 GiB.
    """
    height, width = pixels.shape[:2]
    strips, rows = [], next(bands(height, width, pixels=1 << 18)).stop
    for band in bands(height, width, pixels=1 << 18):
        strip = pixels[band] if alpha is None else np.concatenate([pixels[band], alpha[band, :, None]], 2)
        differences = strip.astype(strip.dtype.newbyteorder("<"))
        differences[:, 1:] -= strip[:, :-1]
        strips.append(zlib.compress(differences.tobytes()))
    counts = [len(strip) for strip in strips]
    if sum(counts) >= (1 << 32) - (1 << 20):
        raise ValueError("larger than TIFF's limit of 4 GiB")
    tags = ImageFileDirectory_v2()
    image = Image.Exif()
    image.load(exif or b"")
    for tag, value in _descriptive(image).items():
        tags[tag] = value
    samples = 3 if alpha is None else 4
    tags[256], tags[257] = width, height
    tags[258] = (8 * pixels.itemsize,) * samples
    tags[259], tags[317] = 8, 2  # deflate, horizontal differencing
    tags[262], tags[277], tags[284] = 2, samples, 1  # RGB, interleaved
    # Relative to the directory's end, which Pillow adds.
    tags[273] = tuple(accumulate(counts[:-1], initial=0))
    tags[278], tags[279] = rows, tuple(counts)
    if alpha is not None:
        tags[338] = 2  # not premultiplied
    tags.tagtype[34675] = TiffTags.UNDEFINED
    tags[34675] = icc
    return b"".join([b"II*\0", struct.pack("<I", 8), tags.tobytes(8), *strips])


def _upright_exif(image: Image.Image) -> bytes | None:
    """A loaded image's EXIF, with orientation 1 and without thumbnail; None when there is no readable one."""
    try:
        stored = image.info.get("exif")
        if isinstance(stored, bytes) and image.format != "TIFF":
            return _reset_orientation(stored)
        exif = _descriptive(image.getexif())
        return exif.tobytes().removeprefix(_EXIF_HEADER) if exif else None
    except Exception:  # broken EXIF makes Pillow raise anything
        return None


def _descriptive(exif: Image.Exif) -> Image.Exif:
    """The part of EXIF that describes the image rather than how its file stores pixels."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag in _DESCRIPTIVE:
            kept[tag] = exif.get_ifd(tag) if tag in (IFD.Exif, IFD.GPSInfo) else value
    return kept


def _reset_orientation(stored: bytes) -> bytes | None:
    exif = bytearray(stored.removeprefix(_EXIF_HEADER))
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
        _remove_thumbnail(exif, order, struct.unpack_from(f"{order}I", exif, after)[0])
        struct.pack_into(f"{order}I", exif, after, 0)
    return bytes(exif)


def _remove_thumbnail(exif: bytearray, order: str, directory: int) -> None:
    """Truncates the EXIF at the thumbnail of its second directory, or blanks it where other data follow."""
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
