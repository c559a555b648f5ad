"""Intact image files in every format, and faults made from them, which a seed determines."""

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import awkward
import numpy as np
from awkward_files import chunk, png, saved, tiff
from PIL import Image

HEIGHT, WIDTH = 40, 56

# Formats that mark their end or state their length, so that truncation is always detected. Files in the other formats
# may lose their footer and still contain the complete image.
_TRUNCATION_DETECTED = {"png", "jpg", "gif", "webp", "bmp", "ppm", "tif", "avif", "jp2", "sgi", "pcx", "dds"}
_NO_MAGIC = {"tga", "pcx", "jp2"}  # Pillow recognises them by so few bytes that others may pass


@dataclass(frozen=True)
class Fault:
    """A damaged or hostile file, and the name of the intact file that it was made from.

    must: "be refused"; "be intact" (the original image); "be refused or intact"; or "be read or refused", since formats
    without checksums cannot reveal that a bit of a pixel was flipped.
    """

    name: str
    content: bytes
    of: str
    must: str


def faults(seed: int, mutations: int) -> Iterator[Fault]:
    """Every file truncated, zeroed, with wrong magic bytes and with a wrong suffix; hostile headers; and mutations."""
    files = intact_files()
    for name, content in files.items():
        stem, kind = name.split(".")
        for place in (*(len(content) * tenth // 10 for tenth in range(10)), len(content) - 1):
            must = "be refused" if kind in _TRUNCATION_DETECTED or place == 0 else "be refused or intact"
            yield Fault(f"{stem}-cut{place}.{kind}", content[:place], name, must)
        must = "be read or refused" if kind in _NO_MAGIC else "be refused"
        yield Fault(f"{stem}-magic.{kind}", b"\x93NIX" + content[4:], name, must)
        other = "png" if kind != "png" else "jpg"
        yield Fault(f"{stem}-as.{other}", content, name, "be intact")
        yield Fault(f"{stem}-zeros.{kind}", bytes(len(content)), name, "be refused")
        half = len(content) // 2
        unseen = kind not in ("png", "jpg", "gif")
        zeroed = content[:half] + bytes(len(content) - half)
        yield Fault(
            f"{stem}-zeroed-end.{kind}", zeroed, name, "be read or refused" if unseen else "be refused"
        )
    yield from hostile_headers()
    rng = random.Random(seed)
    for number in range(mutations):
        name = rng.choice(list(files))
        stem, kind = name.split(".")
        content = mutated(files[name], rng)
        must = "be refused or intact" if kind == "png" else "be read or refused"
        yield Fault(f"{stem}-mutation{seed}-{number}.{kind}", content, name, must)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Flips a bit, or inserts, deletes, swaps, zeroes, repeats or maximises bytes; one, two or four times."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 200))
        if rng.random() < 0.3:  # headers are the most sensitive
            place = rng.randrange(min(64, len(data)))
        match rng.randrange(7):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place:place] = rng.randbytes(length)
            case 2:
                del data[place : place + min(length, len(data) - 1)]
            case 3:
                other = rng.randrange(len(data))
                data[place], data[other] = data[other], data[place]
            case 4:
                data[place : place + length] = bytes(len(data[place : place + length]))
            case 5:
                data[place:place] = data[place : place + length]
            case 6:
                extreme = rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff\xff"))
                data[place : place + len(extreme)] = extreme
    return bytes(data)


def hostile_headers() -> Iterator[Fault]:
    """Sizes that would fill the memory, loops, and counts that exceed the data."""
    rgb = awkward.RGB
    for width, height in (
        (0, 5),
        (5, 0),
        (60_000, 60_000),
        (2**31 - 1, 2**31 - 1),
        (12_000, 8_000),
        (1, 2**30),
    ):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        pixels = chunk(b"IDAT", zlib.compress(bytes(2000)))
        content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
        yield Fault(f"huge-{width}x{height}.png", content, "", "be refused")
        sized = tiff(rgb, t256=width, t257=height, t278=height)
        yield Fault(f"huge-{width}x{height}.tif", sized, "", "be refused")
        yield Fault(
            f"huge-{width}x{height}.ppm", b"P6 %d %d 255\n" % (width, height) + bytes(999), "", "be refused"
        )
        bmp = bytearray(saved(Image.fromarray(rgb), "BMP"))
        struct.pack_into("<ii", bmp, 18, width, height)
        yield Fault(f"huge-{width}x{height}.bmp", bytes(bmp), "", "be refused")
        if max(width, height) < 65536:
            gif = bytearray(saved(Image.fromarray(rgb).quantize(9), "GIF"))
            struct.pack_into("<HH", gif, 6, width, height)
            yield Fault(f"huge-{width}x{height}.gif", bytes(gif), "", "be read or refused")
            jpeg = bytearray(saved(Image.fromarray(rgb), "JPEG"))
            struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, height, width)
            yield Fault(f"huge-{width}x{height}.jpg", bytes(jpeg), "", "be read or refused")
    bomb = zlib.compress(bytes(300 << 20), 9)
    for name, parts in {"text": b"zTXta\0\0", "profile": b"iCCPa\0\0"}.items():
        yield Fault(
            f"bomb-{name}.png", png(rgb, chunk(parts[:4], parts[4:] + bomb)), "", "be read or refused"
        )
    pixels = png(rgb)[:33] + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")
    yield Fault("bomb-pixels.png", pixels, "", "be read or refused")
    loop = bytearray(tiff(rgb))
    (entries,) = struct.unpack_from("<H", loop, 8)
    struct.pack_into("<I", loop, 10 + 12 * entries, 8)
    yield Fault("loop.tif", bytes(loop), "", "be read or refused")
    for tag in range(entries):
        many = bytearray(tiff(rgb))
        struct.pack_into("<I", many, 10 + 12 * tag + 4, 2**32 - 1)
        yield Fault(f"many-{tag}.tif", bytes(many), "", "be read or refused")
    one = saved(Image.new("L", (1, 1)), "GIF")
    frame = one[one.index(b",") : -1]
    yield Fault("frames.gif", one[:-1] + frame * 20_000 + b";", "", "be read or refused")
    yield Fault("comments.ppm", b"P6 " + b"# and so on\n" * 100_000, "", "be refused")
    yield Fault("digits.ppm", b"P6 " + b"9" * 100_000, "", "be refused")
    segments = b"\xff\xe1\xff\xff" + bytes(65533)
    jpeg = saved(Image.fromarray(rgb), "JPEG")
    yield Fault("segments.jpg", jpeg[:2] + segments * 100 + jpeg[2:], "", "be read or refused")
    yield Fault("nan.tif", tiff(np.full((9, 9), np.nan, np.float32)), "", "be refused")
    yield Fault("one-nan.tif", tiff(np.array([[0.5, np.nan], [1, 0]], np.float32)), "", "be refused")


def intact_files() -> dict[str, bytes]:
    """One file for each way of storing an image, by name."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rng = np.random.default_rng(0)
    rgb = np.stack([4 * x + y, 5 * y, 3 * x + 2 * y], -1) + rng.integers(0, 25, (HEIGHT, WIDTH, 3))
    rgb = np.clip(rgb, 0, 255).astype(np.uint8)
    rgb16, gray = rgb.astype(np.uint16) * 257, rgb[..., 0]
    alpha = np.dstack([rgb, np.clip(6 * x, 0, 255).astype(np.uint8)])
    image, other = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    palette = image.quantize(32)
    several = {"save_all": True, "append_images": [other]}
    inks = Image.frombytes("CMYK", image.size, np.dstack([255 - rgb, gray // 3]).tobytes())
    return {
        "rgb.png": png(rgb),
        "rgb16.png": png(rgb16),
        "gray.png": png(gray),
        "alpha.png": png(alpha),
        "interlaced.png": png(rgb, interlaced=True),
        "palette.png": saved(palette, "PNG", transparency=bytes(range(0, 256, 8))),
        "chunks.png": _in_small_chunks(png(rgb)),
        "animated.png": saved(image, "PNG", **several),
        "rgb.jpg": saved(image, "JPEG", quality=95),
        "gray.jpg": saved(Image.fromarray(gray), "JPEG"),
        "cmyk.jpg": saved(inks, "JPEG"),
        "progressive.jpg": saved(image, "JPEG", progressive=True),
        "thumbnail.jpg": saved(image, "JPEG", exif=awkward.exif(1, saved(Image.new("RGB", (8, 8)), "JPEG"))),
        "lossy.webp": saved(image, "WEBP"),
        "lossless.webp": saved(image, "WEBP", lossless=True),
        "animated.webp": saved(image, "WEBP", lossless=True, **several),
        "rgb.tif": tiff(rgb),
        "rgb16.tif": tiff(rgb16),
        "float.tif": tiff(gray.astype(np.float32) / 255),
        "cmyk.tif": saved(inks, "TIFF"),
        "deflated.tif": saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "lzw.tif": saved(image, "TIFF", compression="tiff_lzw"),
        "palette.gif": saved(palette, "GIF"),
        "animated.gif": saved(palette, "GIF", save_all=True, append_images=[other.quantize(32)]),
        "rgb.bmp": saved(image, "BMP"),
        "lossy.avif": saved(image, "AVIF"),
        "rgb.ppm": saved(image, "PPM"),
        "icon.ico": saved(image, "ICO", sizes=[(48, 32)]),
        "rgb.jp2": saved(image, "JPEG2000"),
        "rgb.tga": saved(image, "TGA", compression="tga_rle"),
        "rgb.sgi": saved(image, "SGI"),
        "rgb.pcx": saved(image, "PCX"),
        "rgb.qoi": saved(image, "QOI"),
        "rgb.dds": saved(image, "DDS"),
    }


def _in_small_chunks(content: bytes) -> bytes:
    """The PNG with its pixels split into many IDAT chunks."""
    start = content.index(b"IDAT")
    (length,) = struct.unpack_from(">I", content, start - 4)
    pixels = content[start + 4 : start + 4 + length]
    parts = [chunk(b"IDAT", pixels[place : place + 500]) for place in range(0, length, 500)]
    return content[: start - 4] + b"".join(parts) + chunk(b"IEND", b"")
