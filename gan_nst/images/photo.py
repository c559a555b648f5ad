"""Pictures with all that their files say of them: alpha, 16 bits, EXIF, colour profile."""

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan_nst.core.errors import DataError, SettingsError
from gan_nst.images import sixteen
from gan_nst.images.exif import exif_of
from gan_nst.images.files import bands, white_of, written_whole
from gan_nst.images.opening import opened
from gan_nst.images.profiles import srgb_profile, to_srgb, to_srgb16

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Chroma = Literal["4:4:4", "4:2:2", "4:2:0"]

LARGEST = 512_000_000  # pixels

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
    """A picture, upright and in sRGB.

    pixels: RGB, (h, w, 3), uint8, or uint16 where its file has more than 8 bits. alpha: (h, w), of the same type.
    exif: its file's, with the orientation reset.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    exif: bytes | None = None


@dataclass(frozen=True)
class Encoding:
    """How pictures are written: JPEG's, WebP's and AVIF's quality, 1 to 100, and JPEG's and AVIF's chroma. Raises
    SettingsError.
    """

    quality: int = 92
    chroma: Chroma = "4:4:4"

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise SettingsError(f"--quality {self.quality}: must be from 1 to 100")
        if self.chroma not in get_args(Chroma):
            raise SettingsError(f"--chroma {self.chroma}: must be one of {', '.join(get_args(Chroma))}")


def read_photo(path: Path, largest: int = LARGEST) -> Photo:
    """The picture in a file. Raises DataError, one line, for what cannot be read whole, or has more pixels than
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
            log.warning(f"{path}: has several pictures; the first one is taken")
        stored = sixteen.stored_as(image)
        deep = sixteen.is_deep(image)
        image.load()  # also where OpenCV decodes it, which fills up what a broken file lacks
        pixels: Pixels
        alpha: Pixels | None
        if deep:
            pixels, alpha = sixteen.decode(path.read_bytes(), stored)
        else:
            pixels, alpha = _gray16(image) if _is_deep_gray(image) else _colour8(image, path)
        if pixels.dtype == np.uint16 and (icc := image.info.get("icc_profile")):
            with _profile_or_not(path):
                to_srgb16(pixels.view(np.uint16), icc, is_gray=not deep or stored.startswith("L"))
        orientation = _orientation(image)  # of a TIFF 1 by now: Pillow turned it, and OpenCV too
        exif = exif_of(image)
    return Photo(_upright(pixels, orientation), None if alpha is None else _upright(alpha, orientation), exif)


def write_photo(photo: Photo, path: Path, encoding: Encoding | None = None) -> None:
    """Writes a picture in the format of the path's suffix, whole or not at all. Raises DataError when it cannot.

    16 bits are kept in PNG and TIFF and rounded to 8 in the others; alpha is kept but in JPEG, where it lies over
    white. With the EXIF and an sRGB profile; equal pictures give equal files.
    """
    name = FORMATS.get(path.suffix.lower())
    if name is None:
        raise DataError(f"{path}: no format that is written; the suffix must be one of {' '.join(FORMATS)}")
    height, width = photo.pixels.shape[:2]
    if max(height, width) > (longest := _LONGEST_SIDE.get(name, 1 << 31)):
        raise DataError(
            f"{path}: {name} pictures have at most {longest} pixels a side, not {width} x {height}"
        )
    if name == "JPEG" and len(photo.exif or b"") > _LONGEST_EXIF:
        log.warning(f"{path}: written without its EXIF, which is larger than JPEG's may be")
        photo = Photo(photo.pixels, photo.alpha)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(_encode(photo, name, encoding or Encoding()))


def _is_deep_gray(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _gray16(image: Image.Image) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None]:
    """A loaded picture of gray values of more than 8 bits, as RGB, with alpha where one value is transparent."""
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
    """A loaded picture of any mode of 8 bits or less, as RGB in sRGB, and its alpha."""
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
    """The picture's file, in memory: encoders that write to disk hide the system's reason when it is full."""
    icc, exif = srgb_profile(), photo.exif
    if name == "TIFF":
        return sixteen.encode_tiff(photo.pixels, photo.alpha, icc, exif)
    if name == "PNG" and photo.pixels.dtype == np.uint16:
        alpha = None if photo.alpha is None else photo.alpha.view(np.uint16)
        return sixteen.encode_png(photo.pixels.view(np.uint16), alpha, icc, exif)
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
