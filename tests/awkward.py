"""One file for every awkward kind of image, and the pixels it must be read as, computed without the package.

python tests/awkward.py FOLDER
"""

import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from awkward_files import (
    ADOBE,
    ADOBE_XY,
    CMYK,
    INKS,
    LIGHT,
    LIGHTS,
    LINEAR,
    P3,
    P3_XY,
    SRGB,
    SRGB_XY,
    TABLE,
    as_srgb,
    chunk,
    decode_srgb,
    encode_srgb,
    exif,
    gamma,
    gray_profile,
    icc_chunk,
    lab_as_srgb,
    matrix_profile,
    png,
    saved,
    tiff,
)
from PIL import Image

HEIGHT, WIDTH = 18, 26
_y, _x = np.mgrid[:HEIGHT, :WIDTH] / np.array([HEIGHT - 1, WIDTH - 1])[:, None, None]
# Smooth, with four different corners.
VALUES = np.stack([0.1 + 0.8 * _x, 0.15 + 0.7 * _y, 0.5 + 0.4 * (_x - _y)], -1)
RGB = np.rint(VALUES * 255).astype(np.uint8)
RGB16 = np.rint(VALUES * 65535).astype(np.uint16)
GRAY, GRAY16 = RGB[..., 0], RGB16[..., 0]
# With rows entirely transparent and entirely opaque.
ALPHA = np.rint(np.clip(1.4 * _y - 0.2, 0, 1) * 255).astype(np.uint8)
ALPHA16 = np.rint(np.clip(1.4 * _y - 0.2, 0, 1) * 65535).astype(np.uint16)


@dataclass(frozen=True)
class Case:
    """A file. expected: its pixels, (h, w, 3), to be matched within `tolerance` levels where visible; None if the file
    must be refused, with `says` in the message. warns: text that a warning must contain.
    """

    name: str
    content: bytes
    expected: np.ndarray | None = None
    alpha: np.ndarray | None = None
    tolerance: float = 0
    says: str = ""
    warns: str = ""


def cases() -> list[Case]:
    """Every awkward case, each with a unique name."""
    groups = (turned, plain, deep, profiled, shaped, broken)
    return [case for group in groups for case in group()]


def write(folder: Path) -> dict[str, Path]:
    """Writes every case into a folder; returns the paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases():
        (folder / case.name).write_bytes(case.content)
    return {case.name: folder / case.name for case in cases()}


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels to store so that a viewer shows `upright`: EXIF 2.32 defines on which side of the image the first row
    and the first column are.
    """
    height, width = upright.shape[:2]
    y, x = np.mgrid[:height, :width]
    down, right = height - 1 - y, width - 1 - x
    row, column = {
        1: (y, x),  # top, left
        2: (y, right),  # top, right
        3: (down, right),  # bottom, right
        4: (down, x),  # bottom, left
        5: (x, y),  # left, top
        6: (right, y),  # right, top
        7: (right, down),  # right, bottom
        8: (x, down),  # left, bottom
    }[orientation]
    file = np.empty((row.max() + 1, column.max() + 1, *upright.shape[2:]), upright.dtype)
    file[row, column] = upright
    return file


def turned() -> Iterator[Case]:
    rgba, rgba16 = np.dstack([RGB, ALPHA]), np.dstack([RGB16, ALPHA16])
    for n in range(1, 9):
        data, tag = exif(n, thumbnail=saved(Image.new("RGB", (8, 8), "red"), "JPEG")), chunk(b"eXIf", exif(n))
        jpeg = saved(
            Image.fromarray(stored(RGB, n)), "JPEG", quality=98, subsampling=0, exif=b"Exif\0\0" + data
        )
        yield Case(f"turned{n}.jpg", jpeg, RGB, tolerance=6)
        yield Case(f"turned{n}.png", png(stored(rgba, n), tag), RGB, ALPHA)
        yield Case(f"turned{n}_16.png", png(stored(rgba16, n), tag), RGB16, ALPHA16)
        yield Case(f"turned{n}.tif", tiff(stored(RGB, n), t274=n), RGB)
        yield Case(f"turned{n}_16.tif", tiff(stored(rgba16, n), t274=n, t338=2), RGB16, ALPHA16)
        yield Case(f"turned{n}_gray16.tif", tiff(stored(GRAY16, n), t274=n), as_rgb(GRAY16))
        webp = saved(Image.fromarray(stored(RGB, n)), "WEBP", lossless=True, exif=exif(n))
        yield Case(f"turned{n}.webp", webp, RGB)
    yield Case("turned_nowhere.png", png(RGB, chunk(b"eXIf", exif(9))), RGB)
    yield Case("exif_is_garbage.png", png(RGB, chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff garbage")), RGB)
    noise = saved(
        Image.fromarray(RGB),
        "JPEG",
        quality=98,
        subsampling=0,
        exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffgarbage",
    )
    yield Case("exif_is_garbage.jpg", noise, RGB, tolerance=6)


def as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, 2)


def hiding(values: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Alpha, of the values' type, that makes exactly that value transparent."""
    equal = np.equal(values, one).reshape(*values.shape[:2], -1).all(-1)
    return np.where(equal, 0, np.iinfo(values.dtype).max).astype(values.dtype)


def plain() -> Iterator[Case]:
    """Modes with 8 bits or fewer."""
    ones = np.full_like(ALPHA, 255)
    levels = np.rint(np.linspace(0, 255, 6)).astype(np.uint8)
    indices = (np.arange(HEIGHT)[:, None] // 6 + np.arange(WIDTH) // 5) % 6
    palette = Image.fromarray(indices.astype(np.uint8), "L").convert("L")
    palette.putpalette(np.stack([levels, levels[::-1], np.roll(levels, 2)], 1).tobytes())
    colours = np.stack([levels, levels[::-1], np.roll(levels, 2)], 1)[indices]
    yield Case("gray.png", png(GRAY), as_rgb(GRAY))
    yield Case("gray_alpha.png", png(np.dstack([GRAY, ALPHA])), as_rgb(GRAY), ALPHA)
    yield Case("alpha.png", png(np.dstack([RGB, ALPHA])), RGB, ALPHA)
    yield Case("alpha_that_is_full.png", png(np.dstack([RGB, ones])), RGB, ones)
    yield Case("alpha_that_is_zero.png", png(np.dstack([RGB, 0 * ones])), RGB, 0 * ones)
    yield Case(
        "alpha.webp", saved(Image.fromarray(np.dstack([RGB, ALPHA])), "WEBP", lossless=True), RGB, ALPHA
    )
    yield Case("alpha.tif", tiff(np.dstack([RGB, ALPHA]), t338=2), RGB, ALPHA)
    yield Case("gray_of_one_colour_clear.png", png(GRAY, chunk(b"tRNS", b"\0" + GRAY[:1, 5].tobytes())),
               as_rgb(GRAY), hiding(GRAY, GRAY[0, 5]))  # fmt: skip
    key = RGB[4, 7].astype(">u2").tobytes()
    clear = hiding(RGB, RGB[4, 7])
    yield Case("one_colour_clear.png", png(RGB, chunk(b"tRNS", key)), RGB, clear)
    yield Case("palette.png", saved(palette, "PNG"), colours)
    yield Case("palette.gif", saved(palette, "GIF"), colours)
    yield Case("palette_one_clear.png", saved(palette, "PNG", transparency=2), colours,
               hiding(indices.astype(np.uint8), 2))  # fmt: skip
    yield Case("palette_one_clear.gif", saved(palette, "GIF", transparency=2), colours,
               hiding(indices.astype(np.uint8), 2))  # fmt: skip
    yield Case("palette_half_clear.png", saved(palette, "PNG", transparency=bytes([0, 50, 100, 150, 200, 255])),
               colours, np.array([0, 50, 100, 150, 200, 255], np.uint8)[indices])  # fmt: skip
    black = np.where(GRAY > 120, 255, 0).astype(np.uint8)
    yield Case("one_bit.png", saved(Image.fromarray(black).convert("1"), "PNG"), as_rgb(black))
    yield Case("one_bit.tif", saved(Image.fromarray(black).convert("1"), "TIFF"), as_rgb(black))
    inks = np.dstack([255 - RGB, GRAY // 3])
    mixed = np.rint((1 - inks[..., :3] / 255) * (1 - inks[..., 3:] / 255) * 255).astype(np.uint8)
    yield Case(
        "cmyk.tif",
        saved(Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()), "TIFF"),
        mixed,
        tolerance=1,
    )
    cmyk = Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes())
    yield Case("cmyk.jpg", saved(cmyk, "JPEG", quality=98, subsampling=0), mixed, tolerance=6)
    neutral = np.dstack([GRAY, 0 * GRAY + 127, 0 * GRAY + 127, 0 * GRAY])  # Pillow inverts: chroma 128, K 255
    ycck = saved(
        Image.frombytes("CMYK", (WIDTH, HEIGHT), neutral.tobytes()), "JPEG", quality=98, subsampling=0
    )
    place = ycck.index(b"Adobe") + 11
    yield Case("ycck.jpg", ycck[:place] + b"\2" + ycck[place + 1 :], as_rgb(GRAY), tolerance=6)
    yield Case("colour.bmp", saved(Image.fromarray(RGB), "BMP"), RGB)
    yield Case("colour.ppm", saved(Image.fromarray(RGB), "PPM"), RGB)
    yield Case("colour.jp2", saved(Image.fromarray(RGB), "JPEG2000", irreversible=False), RGB)
    yield Case(
        "lossy.avif", saved(Image.fromarray(RGB), "AVIF", quality=95, subsampling="4:4:4"), RGB, tolerance=8
    )


def deep() -> Iterator[Case]:
    """Modes with more than 8 bits."""
    rgba, grays = np.dstack([RGB16, ALPHA16]), as_rgb(GRAY16)
    for kind, write_one in (("png", png), ("tif", tiff)):
        yield Case(f"gray16.{kind}", write_one(GRAY16), grays)
        yield Case(f"colour16.{kind}", write_one(RGB16), RGB16)
    yield Case("alpha16.png", png(rgba), RGB16, ALPHA16)
    yield Case("gray_alpha16.png", png(np.dstack([GRAY16, ALPHA16])), grays, ALPHA16)
    yield Case("alpha16.tif", tiff(rgba, t338=2), RGB16, ALPHA16)
    yield Case("colour16_motorola.tif", tiff(RGB16, ">"), RGB16)
    yield Case("gray16_motorola.tif", tiff(GRAY16, ">"), grays)
    yield Case("unknown_fourth16.tif", tiff(rgba, t338=0), RGB16)
    multiplied = np.rint(RGB16 * (ALPHA16[..., None] / 65535)).astype(np.uint16)
    visible = np.where(ALPHA16[..., None] > 6000, RGB16, 0)
    premultiplied = tiff(np.dstack([multiplied, np.where(ALPHA16 > 6000, ALPHA16, 0)]), t338=1)
    yield Case(
        "premultiplied16.tif", premultiplied, visible, np.where(ALPHA16 > 6000, ALPHA16, 0), tolerance=6
    )
    clear = hiding(RGB16, RGB16[4, 7])
    yield Case(
        "one_colour_clear16.png",
        png(RGB16, chunk(b"tRNS", RGB16[4, 7].astype(">u2").tobytes())),
        RGB16,
        clear,
    )
    yield Case("one_gray_clear16.png", png(GRAY16, chunk(b"tRNS", struct.pack(">H", GRAY16[0, 5]))), grays,
               hiding(GRAY16, GRAY16[0, 5]))  # fmt: skip
    yield Case("interlaced16.png", png(RGB16, interlaced=True), RGB16)
    integers = np.rint(GRAY16.astype(float)).astype(np.int32)
    yield Case("gray32.tif", saved(Image.fromarray(integers), "TIFF"), grays)
    for top in (1, 255, 65535):
        values = (GRAY16 / 65535 * top).astype(np.float32)
        values.flat[0] = top  # reveals the range
        expected = as_rgb(np.rint(values.astype(np.float64) * (65535 / top)).astype(np.uint16))
        yield Case(f"float_to_{top}.tif", tiff(values), expected, tolerance=1)
    yield Case("float_not_finite.tif", tiff(np.full((4, 4), np.nan, np.float32)), says="not finite")
    yield Case("float_of_unknown_range.tif", tiff(np.full((4, 4), -7, np.float32)), says="range is unknown")
    yield Case("float_colour.tif", tiff(VALUES.astype(np.float32)), says="not a readable image")
    planes = np.concatenate(list(RGB16.transpose(2, 0, 1)))
    by_plane = tiff(planes, t256=WIDTH, t257=HEIGHT, t262=2, t277=3, t284=2)
    yield Case("planes16.tif", by_plane, says="plane by plane")


def profiled() -> Iterator[Case]:
    """Images with a colour profile, valid or invalid."""
    linears = {"adobe": (ADOBE, ADOBE_XY, lambda v: v**2.19921875), "p3": (P3, P3_XY, decode_srgb)}
    linears |= {"linear": (LIGHT, SRGB_XY, lambda v: v), "srgb": (SRGB, SRGB_XY, decode_srgb)}
    near = matrix_profile(SRGB_XY, gamma(2.0))  # close to sRGB, but different
    linears["near"] = (near, SRGB_XY, lambda v: v**2.0)
    for name, (icc, xys, decode) in linears.items():
        eight = to_levels(as_srgb(decode(RGB / 255), xys), np.uint8)
        sixteen = to_levels(as_srgb(decode(RGB16 / 65535), xys), np.uint16)
        yield Case(f"{name}.png", png(RGB, icc_chunk(icc)), eight, tolerance=1)
        jpeg = saved(Image.fromarray(RGB), "JPEG", quality=98, subsampling=0, icc_profile=icc)
        yield Case(f"{name}.jpg", jpeg, eight, tolerance=40 if name == "linear" else 16)
        yield Case(
            f"{name}_alpha.png", png(np.dstack([RGB, ALPHA]), icc_chunk(icc)), eight, ALPHA, tolerance=1
        )
        yield Case(f"{name}16.png", png(RGB16, icc_chunk(icc)), sixteen, tolerance=96)  # 0.4 levels of 8 bits
        yield Case(
            f"{name}16.tif",
            tiff(np.dstack([RGB16, ALPHA16]), icc=icc, t338=2),
            sixteen,
            ALPHA16,
            tolerance=96,
        )
        gray = to_levels(as_srgb(decode(as_rgb(GRAY) / 255), xys), np.uint8)
        yield Case(f"{name}_in_gray.png", png(GRAY, icc_chunk(icc)), gray, tolerance=1)
    icc, gray = gray_profile(gamma(1.8)), encode_srgb((GRAY / 255) ** (461 / 256))
    yield Case("gray_profile.png", png(GRAY, icc_chunk(icc)), as_rgb(to_levels(gray, np.uint8)), tolerance=1)
    alpha = png(np.dstack([GRAY, ALPHA]), icc_chunk(icc))
    yield Case("gray_profile_alpha.png", alpha, as_rgb(to_levels(gray, np.uint8)), ALPHA, tolerance=1)
    gray16 = encode_srgb((GRAY16 / 65535) ** (461 / 256))
    expected = as_rgb(to_levels(gray16, np.uint16))
    yield Case("gray_profile16.png", png(GRAY16, icc_chunk(icc)), expected, tolerance=8)
    alpha = png(np.dstack([GRAY16, ALPHA16]), icc_chunk(icc))
    yield Case("gray_profile_alpha16.png", alpha, expected, ALPHA16, tolerance=8)
    inks = np.dstack([255 - RGB, GRAY // 3])
    cmyk = Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes())
    expected = to_levels(lab_as_srgb(np.array([100, 0, 0]) + inks / 255 @ INKS), np.uint8)
    yield Case("cmyk_profile.tif", saved(cmyk, "TIFF", icc_profile=CMYK), expected, tolerance=2)
    jpeg = saved(cmyk, "JPEG", quality=98, subsampling=0, icc_profile=CMYK)
    yield Case("cmyk_profile.jpg", jpeg, expected, tolerance=8)
    table = lab_as_srgb(VALUES @ LIGHTS)
    yield Case("table.png", png(RGB, icc_chunk(TABLE)), to_levels(table, np.uint8), tolerance=2)
    yield Case("table16.png", png(RGB16, icc_chunk(TABLE)), to_levels(table, np.uint16), tolerance=257)
    for name, icc in {
        "garbage": b"not a profile",
        "cut": ADOBE[:200],
        "cmyk": CMYK,
        "gray": gray_profile(LINEAR),
    }.items():
        yield Case(f"profile_{name}.png", png(RGB, icc_chunk(icc)), RGB, warns="colour profile")
        yield Case(f"profile_{name}16.png", png(RGB16, icc_chunk(icc)), RGB16, warns="colour profile")


def to_levels(values: np.ndarray, kind: type) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * np.iinfo(kind).max).astype(kind)


def shaped() -> Iterator[Case]:
    """Unusual sizes, names and encodings."""
    dot, line = np.full((1, 1, 3), 77, np.uint8), np.tile(RGB[:1], (1, 12, 1))[:, :300]
    yield Case("one_pixel.png", png(dot), dot)
    yield Case("one_pixel.gif", saved(Image.fromarray(dot[..., 0]), "GIF"), dot)
    yield Case("one_pixel16.png", png(dot.astype(np.uint16) * 257), dot.astype(np.uint16) * 257)
    yield Case("one_pixel16.tif", tiff(dot.astype(np.uint16) * 257), dot.astype(np.uint16) * 257)
    yield Case("one_row.png", png(line), line)
    yield Case("one_column.png", png(line.swapaxes(0, 1)), line.swapaxes(0, 1))
    yield Case("a name with spaces.png", png(RGB), RGB)
    yield Case("ünïcödé 絵 🎨.png", png(RGB), RGB)
    yield Case("no_suffix", png(RGB), RGB)
    yield Case("a_png.jpg", png(RGB), RGB)
    yield Case("a_png16.jpg", png(RGB16), RGB16)
    yield Case("a_jpeg.png", saved(Image.fromarray(RGB), "JPEG", quality=98, subsampling=0), RGB, tolerance=6)
    yield Case("interlaced.png", png(RGB, interlaced=True), RGB)
    options = {"quality": 98, "subsampling": 0}
    yield Case(
        "progressive.jpg", saved(Image.fromarray(RGB), "JPEG", progressive=True, **options), RGB, tolerance=6
    )
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    several = {"save_all": True, "append_images": frames[1:]}
    grays = [Image.fromarray(GRAY // 8 * 8), Image.fromarray(255 - GRAY // 8 * 8)]
    gif = saved(grays[0], "GIF", save_all=True, append_images=grays[1:])
    yield Case("animated.gif", gif, as_rgb(GRAY // 8 * 8), warns="several images")
    yield Case(
        "animated.webp", saved(frames[0], "WEBP", lossless=True, **several), RGB, warns="several images"
    )
    yield Case("animated.png", saved(frames[0], "PNG", **several), RGB, warns="several images")
    yield Case("pages.tif", saved(frames[0], "TIFF", **several), RGB, warns="several images")


def broken() -> Iterator[Case]:
    """Files that must be refused."""
    noise = np.random.default_rng(0).integers(0, 65536, (40, 40, 3)).astype(np.uint16)
    image = Image.fromarray((noise >> 8).astype(np.uint8))
    intact = {kind: saved(image, name) for kind, name in _NAMES.items()}
    intact |= {"16.png": png(noise), "16.tif": tiff(noise)}
    for kind, content in intact.items():
        for share in (1, 5, 9):
            name = f"cut{share}{kind}" if kind[0] == "1" else f"cut{share}.{kind}"
            yield Case(name, content[: max(4, len(content) * share // 10)])
    yield Case("zero_bytes.png", b"", says="is empty")
    yield Case("zero_bytes.jpg", b"", says="is empty")
    yield Case("text.png", b"Hello, this is not an image.\n" * 20, says="not a readable image")
    yield Case("html.jpg", b"<html>\n<body>not found</body>\n</html>\n", says="not a readable image")
    yield Case(
        "postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", says="not a readable image"
    )
    huge = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", huge) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    yield Case("bomb.png", bomb + chunk(b"IEND", b""), says="100000 x 100000 pixels")
    yield Case("bomb.tif", tiff(RGB16, t256=100_000, t257=100_000), says="100000 x 100000 pixels")
    yield Case("wrong_sum.png", png(RGB).replace(b"IDAT", b"IDAX"))


_NAMES = {
    "png": "PNG",
    "jpg": "JPEG",
    "webp": "WEBP",
    "tif": "TIFF",
    "avif": "AVIF",
    "gif": "GIF",
    "bmp": "BMP",
}


if __name__ == "__main__":
    for path in write(Path(sys.argv[1])).values():
        print(path)
