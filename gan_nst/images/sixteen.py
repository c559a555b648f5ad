"""Colour of 16 bits a channel, which Pillow reduces to 8: read by OpenCV, written as PNG and TIFF with what OpenCV
leaves out, colour profile and EXIF.
"""

import struct
import zlib
from itertools import accumulate

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from gan_nst.core.errors import DataError
from gan_nst.images.exif import described
from gan_nst.images.files import bands

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
    """Whether an opened, not yet loaded picture has colour of 16 bits that Pillow would reduce. Raises DataError for
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
    picture = Image.Exif()
    picture.load(exif or b"")
    for tag, value in described(picture).items():
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
