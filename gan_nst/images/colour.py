"""Converts images with any ICC profile to sRGB: 8 bits with LittleCMS, 16 bits with the profile's curves and matrix,
as Pillow's LittleCMS has no 16-bit mode.
"""

import functools
import io
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gan_nst.core.errors import DataError
from gan_nst.images.arrays import bands

Floats = NDArray[np.float32]

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}  # Pillow's mode: ICC's colour space
_NODES = 52  # per side of a sampled table: 5 levels apart
_WHITE = 65535


class _Shaper(NamedTuple):
    """A profile of curves and a matrix. curves: linear light of the 65536 values, (1 or 3, 65536). matrix: from there
    to linear sRGB, (3, 3).
    """

    curves: Floats
    matrix: Floats


@functools.cache
def srgb_profile() -> bytes:
    """The sRGB profile to embed in images; always the same bytes, as its creation date is fixed."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return bytes(profile)


def to_linear(encoded: Floats) -> Floats:
    """Linear light, 0 to 1, of sRGB values in 0 to 1 (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def from_linear(linear: Floats) -> Floats:
    """sRGB values, 0 to 1, of linear light, which is clipped to 0 to 1; the inverse of `to_linear`."""
    linear = np.clip(linear, 0, 1)
    curved = 1.055 * np.power(np.maximum(linear, 0.003), np.float32(1 / 2.4)) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, curved).astype(np.float32)


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Converts a Pillow image, RGB, L, CMYK or LAB, to RGB in sRGB. Raises DataError when the profile is broken or does
    not match the mode.

    Relative colorimetric with black point compensation. A profile that is already sRGB changes nothing.
    """
    if image.mode == "L" and _space(icc) == "RGB":
        image = image.convert("RGB")
    transform = _transform(icc, image.mode)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is None for conversions in place
    return converted


def to_srgb16(pixels: NDArray[np.uint16], icc: bytes, is_gray: bool) -> None:
    """Converts 16-bit RGB pixels, (h, w, 3), to sRGB in place. is_gray: whether they are gray in their file. Raises
    DataError like `to_srgb`.

    Exact up to rounding for profiles of curves and a matrix; for other RGB profiles by a table of `_NODES`^3 colours
    that LittleCMS converts at 8 bits, with errors below one 8-bit level.
    """
    gray = is_gray and _space(icc) == "GRAY"
    if _transform(icc, "L" if gray else "RGB") is None:
        return
    shaper = _shaper(icc)
    table = None if shaper else _sampled(icc)
    for rows in bands(*pixels.shape[:2]):
        band = pixels[rows]
        if shaper:
            linear = np.stack([shaper.curves[c % len(shaper.curves)][band[..., c]] for c in range(3)], -1)
            encoded = from_linear(linear if gray else linear @ shaper.matrix.T)
        else:
            assert table is not None
            encoded = _interpolate(table, band)
        np.rint(encoded * _WHITE, out=encoded)
        band[:] = np.clip(encoded, 0, _WHITE)


def _open(icc: bytes) -> ImageCms.ImageCmsProfile:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc))
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        raise DataError("its colour profile is broken") from None


def _space(icc: bytes) -> str:
    return _open(icc).profile.xcolor_space.strip()


@functools.lru_cache(maxsize=32)
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB; None if it would move no colour by more than a level, as the profile is sRGB."""
    source, space = _open(icc), _space(icc)
    if space != _SPACES[mode]:
        raise DataError(f"its colour profile is for {space} images, its pixels are {mode}")
    try:
        transform = ImageCms.buildTransform(
            source,
            _open(srgb_profile()),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except ImageCms.PyCMSError:
        raise DataError("its colour profile is broken") from None
    if mode == "RGB":
        colours = _cube(18)
        moved = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
        if np.abs(moved.astype(int) - colours).max() <= 1:
            return None
    return transform


def _cube(side: int) -> NDArray[np.uint8]:
    """A grid of colours over the full range, red slowest: (side * side, side, 3)."""
    levels = np.rint(np.linspace(0, 255, side)).astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, side, 3)


@functools.lru_cache(maxsize=8)
def _sampled(icc: bytes) -> Floats:
    """The profile's conversion as a table of sRGB values, 0 to 1: (nodes, nodes, nodes, 3)."""
    converted = np.asarray(to_srgb(Image.fromarray(_cube(_NODES)), icc))
    return (converted.reshape(_NODES, _NODES, _NODES, 3) / 255).astype(np.float32)


def _interpolate(table: Floats, band: NDArray[np.uint16]) -> Floats:
    """Looks up 16-bit values in the table, with trilinear interpolation."""
    place = band.astype(np.float32) * ((_NODES - 1) / _WHITE)
    low = np.minimum(place.astype(np.intp), _NODES - 2)
    share = place - low
    colours = np.zeros(band.shape, np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, share, 1 - share), -1, keepdims=True)
        colours += weight * table[tuple(np.moveaxis(low + corner, -1, 0))]
    return colours


@functools.lru_cache(maxsize=8)
def _shaper(icc: bytes) -> _Shaper | None:
    """A profile's curves and matrix (ICC.1:2022, 10.6, 10.18, F.3); None if it has other tables."""
    tags = _tags(icc)
    try:
        if "kTRC" in tags:
            return _Shaper(_curve(tags["kTRC"])[None], np.eye(3, dtype=np.float32))
        if "rTRC" not in tags or any(name.startswith(("A2B", "D2B")) for name in tags):
            return None
        curves = np.stack([_curve(tags[f"{c}TRC"]) for c in "rgb"])
        matrix = np.linalg.inv(_colorants(_tags(srgb_profile()))) @ _colorants(tags)
        return _Shaper(curves, matrix.astype(np.float32))
    except (KeyError, ValueError, IndexError, struct.error):
        raise DataError("its colour profile is broken") from None


def _tags(icc: bytes) -> dict[str, bytes]:
    (count,) = struct.unpack_from(">I", icc, 128)
    found = {}
    for index in range(min(count, len(icc) // 12)):
        name, start, size = struct.unpack_from(">4sII", icc, 132 + 12 * index)
        found[name.decode("latin-1")] = icc[start : start + size]
    return found


def _colorants(tags: dict[str, bytes]) -> NDArray[np.float64]:
    """The XYZ of red, green and blue under D50, as columns."""
    return np.stack([_fixed(tags[f"{c}XYZ"], 8, 3) for c in "rgb"], 1)


def _fixed(data: bytes, start: int, count: int) -> NDArray[np.float64]:
    """Reads s15Fixed16 numbers."""
    return np.frombuffer(data, ">i4", count, start) / 65536


def _curve(data: bytes) -> Floats:
    """The linear light, 0 to 1, of the 65536 values."""
    x = np.arange(_WHITE + 1) / _WHITE
    if data[:4] == b"curv":
        (count,) = struct.unpack_from(">I", data, 8)
        table = np.frombuffer(data, ">u2", count, 12)
        if count == 0:
            y = x
        elif count == 1:
            y = x ** (table[0] / 256)
        else:
            y = np.interp(x, np.linspace(0, 1, count), table / _WHITE)
    elif data[:4] == b"para":
        (kind,) = struct.unpack_from(">H", data, 8)
        numbers = _fixed(data, 12, (1, 3, 4, 5, 7)[kind])
        g, a, b, c, d, e, f = _parameters(kind, numbers)
        y = np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)
    else:
        raise ValueError("a curve of an unknown kind")
    return np.clip(y, 0, 1).astype(np.float32)


def _parameters(kind: int, n: NDArray[np.float64]) -> tuple[float, ...]:
    """The seven parameters of ICC.1's most general curve: (a x + b)^g + e from d on, c x + f below it."""
    if kind == 0:
        return n[0], 1, 0, 0, 0, 0, 0
    if kind in (1, 2):
        offset = n[3] if kind == 2 else 0
        return n[0], n[1], n[2], 0, -n[2] / n[1], offset, offset
    if kind == 3:
        return n[0], n[1], n[2], n[3], n[4], 0, 0
    return tuple(n)
