"""Images with all that their files say of them: alpha, 16 bits, EXIF, colour profile."""

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


_HEAD = b"Exif\0\0"  # what JPEG and Pillow put before it

# What a TIFF's own directory says of the image, and not of how its pixels are stored.
_DESCRIPTIVE = {
    Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer,
    Base.Copyright, Base.Rating, Base.RatingPercent, Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords,
    Base.XPSubject, Base.DocumentName, Base.PageName, Base.XResolution, Base.YResolution, Base.ResolutionUnit,
    Base.PrintImageMatching, IFD.Exif, IFD.GPSInfo,
}  # fmt: skip


def exif_of(image: Image.Image) -> bytes | None:
    """A loaded image's EXIF, its orientation 1 and without the thumbnail; none where there is none to be read."""
    try:
        stored = image.info.get("exif")
        if isinstance(stored, bytes) and image.format != "TIFF":
            return _tag_upright(stored)
        exif = described(image.getexif())
        return exif.tobytes().removeprefix(_HEAD) if exif else None
    except Exception:  # Pillow raises whatever broken EXIF makes it stumble over
        return None


def described(exif: Image.Exif) -> Image.Exif:
    """Of EXIF what describes the image, and not how its file stores pixels."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag in _DESCRIPTIVE:
            kept[tag] = exif.get_ifd(tag) if tag in (IFD.Exif, IFD.GPSInfo) else value
    return kept


def _tag_upright(stored: bytes) -> bytes | None:
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


Deep = NDArray[np.uint16]
_WHITE = 65535
_PNG = b"\x89PNG\r\n\x1a\n"


def stored_as(image: Image.Image) -> str:
    """How an opened, not yet loaded PNG or TIFF stores its pixels, in Pillow's words: "RGB;16B" is big-endian colour
    of 16 bits.
    """
    if not image.tile:  # type: ignore[attr-defined]
        return ""
    arguments = image.tile[0].args  # type: ignore[attr-defined]
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


def is_deep(image: Image.Image) -> bool:
    """Whether an opened, not yet loaded image has colour of 16 bits that Pillow would reduce. Raises DataError for
    colour of 16 bits that cannot be read.
    """
    if image.format == "TIFF" and image.mode in ("RGB", "RGBA"):
        tags = image.tag_v2  # type: ignore[attr-defined]
        if max(tags.get(258, (8,))) > 8 and tags.get(284) == 2:
            raise DataError("16-bit colour stored plane by plane is not read; store its channels together")
    return image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA") and ";16" in stored_as(image)


def decode(data: bytes, stored: str) -> tuple[Deep, Deep | None]:
    """RGB, (h, w, 3), and alpha, (h, w), of the bytes of a PNG or TIFF of 16 bits; a TIFF's are turned upright. Raises
    ValueError when OpenCV cannot read it.
    """
    if data.startswith(_PNG):
        data = _essential(data)
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("its 16-bit pixels cannot be read")
    if values.shape[2] == 3:
        return cv2.cvtColor(values, cv2.COLOR_BGR2RGB, dst=values), None  # type: ignore[return-value]
    pixels: Deep = cv2.cvtColor(values, cv2.COLOR_BGRA2RGB)  # type: ignore[assignment]
    if stored.startswith("RGBX"):
        return pixels, None
    alpha: Deep = np.ascontiguousarray(values[..., 3]).view(np.uint16)
    if stored.startswith("RGBa"):  # multiplied by alpha
        for rows in bands(*alpha.shape):
            whole = pixels[rows] * (_WHITE / np.maximum(alpha[rows], 1).astype(np.float32))[..., None]
            pixels[rows] = np.minimum(np.rint(whole), _WHITE)
    return pixels, alpha


def _essential(data: bytes) -> bytes:
    """A PNG's chunks that say what its pixels are; of others libpng would print warnings."""
    kept, start = [_PNG], len(_PNG)
    while start < len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(data[start : start + 12 + length])
        start = len(data) if kind == b"IEND" else start + 12 + length
    return b"".join(kept)


def encode_png(pixels: Deep, alpha: Deep | None, icc: bytes, exif: bytes | None) -> bytes:
    """A PNG of 16 bits: OpenCV's, with a profile (iCCP) and EXIF (eXIf) put in behind its header."""
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
    header = 8 + 12 + 13  # signature; length, type and sum of the chunk IHDR; its content
    whole = encoded.tobytes()
    return b"".join([whole[:header], chunks, whole[header:]])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def encode_tiff(
    pixels: NDArray[np.uint8] | Deep, alpha: NDArray[np.uint8] | Deep | None, icc: bytes, exif: bytes | None
) -> bytes:
    """A TIFF of 8 or 16 bits, in strips that are differenced and deflated, with a profile and EXIF.

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
        raise ValueError("larger than the 4 GiB that TIFF can be")
    tags = ImageFileDirectory_v2()
    image = Image.Exif()
    image.load(exif or b"")
    for tag, value in described(image).items():
        tags[tag] = value
    samples = 3 if alpha is None else 4
    tags[256], tags[257] = width, height
    tags[258] = (8 * pixels.itemsize,) * samples
    tags[259], tags[317] = 8, 2  # deflated, of differences
    tags[262], tags[277], tags[284] = 2, samples, 1  # RGB, channels together
    tags[273] = tuple(accumulate(counts[:-1], initial=0))  # from the directory's end, which Pillow adds
    tags[278], tags[279] = rows, tuple(counts)
    if alpha is not None:
        tags[338] = 2  # colours are not multiplied by alpha
    tags.tagtype[34675] = TiffTags.UNDEFINED
    tags[34675] = icc
    return b"".join([b"II*\0", struct.pack("<I", 8), tags.tobytes(8), *strips])


Pixels = NDArray[np.uint8] | NDArray[np.uint16]
LARGEST = TranslateOptions.max_pixels

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "AVIF": 32768}  # what their libraries write, and read again
_LONGEST_EXIF = 65533 - 6  # in JPEG
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Photo:
    """An image, upright and in sRGB.

    pixels: RGB, (h, w, 3), uint8, or uint16 where its file has more than 8 bits. alpha: (h, w), of the same type.
    exif: its file's, with the orientation reset.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    exif: bytes | None = None


def read_photo(path: Path, largest: int = LARGEST) -> Photo:
    """The image in a file. Raises DataError, one line, for what cannot be read whole, or has more pixels than
    `largest`.

    By its content, whatever its name; of an animation the first frame. 16 bits are kept of colour in PNG and TIFF,
    and of gray in any format. Colours become sRGB by the file's profile, and are taken for sRGB without one. May be
    called from several threads.
    """
    with opened(path) as image:
        width, height = image.size
        if width * height > largest:
            raise DataError(
                f"has {width} x {height} pixels, {width * height:,}, more than the {largest:,} that are allowed; "
                "--max-pixels allows more"
            )
        if image.format not in ("MPO", "PSD") and getattr(image, "n_frames", 1) > 1:
            log.warning(f"{path}: has several images; the first one is taken")
        stored = stored_as(image)
        deep = is_deep(image)
        image.load()  # also where OpenCV decodes it, which fills up what a broken file lacks
        pixels: Pixels
        alpha: Pixels | None
        if deep:
            pixels, alpha = decode(path.read_bytes(), stored)
        else:
            pixels, alpha = _gray16(image) if _is_deep_gray(image) else _colour8(image, path)
        if pixels.dtype == np.uint16 and (icc := image.info.get("icc_profile")):
            with _profile_or_not(path):
                to_srgb16(pixels.view(np.uint16), icc, is_gray=not deep or stored.startswith("L"))
        orientation = _orientation(image)  # of a TIFF 1 by now: Pillow turned it, and OpenCV too
        exif = exif_of(image)
    return Photo(_upright(pixels, orientation), None if alpha is None else _upright(alpha, orientation), exif)


def write_photo(photo: Photo, path: Path, encoding: Encoding | None = None) -> None:
    """Writes an image in the format of the path's suffix, whole or not at all. Raises DataError when it cannot.

    16 bits are kept in PNG and TIFF and rounded to 8 in the others; alpha is kept but in JPEG, where it lies over
    white. With the EXIF and an sRGB profile; equal images give equal files.
    """
    name = FORMATS.get(path.suffix.lower())
    if name is None:
        raise DataError(f"{path}: no format that is written; the suffix must be one of {' '.join(FORMATS)}")
    height, width = photo.pixels.shape[:2]
    if max(height, width) > (longest := _LONGEST_SIDE.get(name, 1 << 31)):
        raise DataError(f"{path}: {name} images have at most {longest} pixels a side, not {width} x {height}")
    if name == "JPEG" and len(photo.exif or b"") > _LONGEST_EXIF:
        log.warning(f"{path}: written without its EXIF, which is larger than JPEG's may be")
        photo = Photo(photo.pixels, photo.alpha)
    with atomic_output(path) as unfinished:
        unfinished.write_bytes(_encode(photo, name, encoding or Encoding()))


def _is_deep_gray(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _gray16(image: Image.Image) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None]:
    """A loaded image of gray values of more than 8 bits, as RGB, with alpha where one value is transparent."""
    values = np.asarray(image)
    scale = 65535 / white_of(values)
    pixels = np.empty((*values.shape, 3), np.uint16)
    for rows in bands(*values.shape):
        pixels[rows] = np.rint(values[rows].astype(np.float64) * scale)[..., None]
    transparent = image.info.get("transparency")
    if transparent is None:
        return pixels, None
    return pixels, np.where(values == transparent, 0, 65535).astype(np.uint16)


def _colour8(image: Image.Image, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """A loaded image of any mode of 8 bits or less, as RGB in sRGB, and its alpha."""
    gray = image.mode in ("1", "L", "LA", "La")
    icc, alpha = image.info.get("icc_profile"), None
    if image.has_transparency_data:
        image = image.convert("LA" if gray else "RGBA")
        alpha = _array(image.getchannel("A"))
    image = image.convert("L" if gray else image.mode if image.mode in ("CMYK", "LAB") else "RGB")
    if icc:
        with _profile_or_not(path):
            image = to_srgb(image, icc)
    return _array(image.convert("RGB")), alpha


def _array(image: Image.Image) -> NDArray[np.uint8]:
    """An image's values in an array of its own, copied in bands to need no second copy of all."""
    values = np.empty((image.height, image.width, *((3,) if image.mode == "RGB" else ())), np.uint8)
    for rows in bands(image.height, image.width):
        values[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return values


@contextlib.contextmanager
def _profile_or_not(path: Path) -> Iterator[None]:
    """A colour profile that cannot be used is passed over, with a warning."""
    try:
        yield
    except DataError as error:
        log.warning(f"{path}: {error}; its colours are taken for sRGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises whatever broken EXIF makes it stumble over
        return 1


def _upright(values: Pixels, orientation: int) -> Pixels:
    """Values (h, w, ...) turned and mirrored as EXIF's orientation asks."""
    swapped = values.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else values
    down = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    right = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    upright: Pixels = np.ascontiguousarray(swapped[down, right])  # type: ignore[assignment]
    return upright


def _encode(photo: Photo, name: str, encoding: Encoding) -> bytes:
    """The image's file, in memory: encoders that write to disk hide the system's reason when it is full."""
    icc, exif = srgb_profile(), photo.exif
    if name == "TIFF":
        return encode_tiff(photo.pixels, photo.alpha, icc, exif)
    if name == "PNG" and photo.pixels.dtype == np.uint16:
        alpha = None if photo.alpha is None else photo.alpha.view(np.uint16)
        return encode_png(photo.pixels.view(np.uint16), alpha, icc, exif)
    options: dict[str, object] = {"icc_profile": icc}
    if exif:
        options["exif"] = exif if name == "AVIF" else b"Exif\0\0" + exif
    if name != "PNG":
        options["quality"] = encoding.quality
    if name in ("JPEG", "AVIF"):
        options["subsampling"] = encoding.chroma
    file = io.BytesIO()
    Image.fromarray(_eight_bits(photo, opaque=name == "JPEG")).save(file, format=name, **options)
    return file.getvalue()


def _eight_bits(photo: Photo, opaque: bool) -> NDArray[np.uint8]:
    """RGB, or RGBA where there is alpha and the format has it; else alpha lies over white."""
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
