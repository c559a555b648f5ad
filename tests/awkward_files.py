"""Image files and colour profiles written byte by byte, and the colours they must be read as, all computed from the
definitions without the package.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

# Formats, written by hand where Pillow does not write them


def saved(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG of (h, w) or (h, w, c) values of 8 or 16 bits."""
    values = values.reshape(*values.shape[:2], -1)
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * values.itemsize, kind, 0, 0, interlaced)
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = []
    for top, left, down, right in adam7 if interlaced else [(0, 0, 1, 1)]:
        part = values[top::down, left::right]
        rows += [
            b"\0" + row.astype(">u2" if values.itemsize == 2 else "u1").tobytes() for row in part if row.size
        ]
    pixels = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, pixels, chunk(b"IEND", b"")])


def icc_chunk(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"p\0\0" + zlib.compress(profile))


def tiff(values: np.ndarray, order: str = "<", icc: bytes = b"", **tags: int) -> bytes:
    """An uncompressed TIFF of (h, w) or (h, w, c) values in one strip."""
    values = values.reshape(*values.shape[:2], -1)
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = struct.pack(f"{order}{channels}H", *[8 * values.itemsize] * channels)
    photometric = 2 if channels >= 3 else 1
    entries = {256: width, 257: height, 259: 1, 262: photometric, 277: channels, 278: height, 279: len(data)}
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    blocks = {258: (3, channels, bits), 273: (4, 1, b""), **({34675: (7, len(icc), icc)} if icc else {})}
    if values.dtype.kind == "f":
        entries[339] = 3
    numbers = sorted({*entries, *blocks})
    after = 8 + 2 + 12 * len(numbers) + 4
    tail, directory = b"", struct.pack(f"{order}H", len(numbers))
    for tag in numbers:
        if tag == 273:
            place = after + sum(
                len(block) + len(block) % 2 for _, _, block in blocks.values() if len(block) > 4
            )
            directory += struct.pack(f"{order}HHII", tag, 4, 1, place)
        elif tag in blocks:
            kind, count, block = blocks[tag]
            if len(block) <= 4:
                directory += struct.pack(f"{order}HHI", tag, kind, count) + block.ljust(4, b"\0")
            else:
                directory += struct.pack(f"{order}HHII", tag, kind, count, after + len(tail))
                tail += block + bytes(len(block) % 2)
        else:
            directory += struct.pack(f"{order}HHII", tag, 4, 1, entries[tag])
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}I", 8) + directory + bytes(4) + tail + data


def exif(orientation: int = 1, thumbnail: bytes = b"") -> bytes:
    """Big-endian EXIF: maker, orientation, a date in its own directory, GPS and an optional thumbnail."""
    ifd0 = 8
    gps_ifd = (exif_ifd := ifd0 + 2 + 4 * 12 + 4) + 2 + 12 + 4
    maker = gps_ifd + 2 + 12 + 4
    ifd1 = (date := maker + 8) + 20
    data = struct.pack(">2sHIH", b"MM", 42, ifd0, 4)
    data += struct.pack(">HHII", 0x010F, 2, 7, maker)
    data += struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    data += struct.pack(">HHII", 0x8769, 4, 1, exif_ifd) + struct.pack(">HHII", 0x8825, 4, 1, gps_ifd)
    data += struct.pack(">I", ifd1 if thumbnail else 0)
    data += struct.pack(">HHHIII", 1, 0x9003, 2, 20, date, 0)
    data += struct.pack(">HHHI4sI", 1, 0x0001, 2, 2, b"N\0\0\0", 0)
    data += b"Camera\0\0" + b"2020:01:02 03:04:05\0"
    if thumbnail:
        start = ifd1 + 2 + 3 * 12 + 4
        data += struct.pack(">H", 3) + struct.pack(">HHIHH", 0x0103, 3, 1, 6, 0)
        data += struct.pack(">HHII", 0x0201, 4, 1, start) + struct.pack(">HHII", 0x0202, 4, 1, len(thumbnail))
        data += bytes(4) + thumbnail
    return data


# Colour, from the definitions

SRGB_XY = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_XY = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3_XY = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
D65, D50 = (0.3127, 0.3290), (0.345703, 0.358539)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def xyz(xy: tuple[float, float]) -> np.ndarray:
    return np.array([xy[0] / xy[1], 1, (1 - xy[0] - xy[1]) / xy[1]])


def primaries(xys) -> np.ndarray:
    """The matrix from linear RGB to XYZ, both with white point D65."""
    directions = np.stack([xyz(xy) for xy in xys], 1)
    return directions * np.linalg.solve(directions, xyz(D65))


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def decode_srgb(encoded: np.ndarray) -> np.ndarray:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def as_srgb(linear: np.ndarray, xys) -> np.ndarray:
    """Linear light of other primaries as sRGB, 0 to 1."""
    return encode_srgb(linear @ np.linalg.solve(primaries(SRGB_XY), primaries(xys)).T)


def lab_as_srgb(lab: np.ndarray) -> np.ndarray:
    """CIELAB under D50 as sRGB, 0 to 1."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], -1)
    under_d50 = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * xyz(D50)
    return encode_srgb(under_d50 @ np.linalg.inv(adaptation() @ primaries(SRGB_XY)).T)


def adaptation() -> np.ndarray:
    """The Bradford matrix from D65 to D50."""
    return np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ xyz(D50)) / (BRADFORD @ xyz(D65))) @ BRADFORD


def fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *[round(number * 65536) for number in numbers])


def profile(space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    """An ICC profile, version 2."""
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78), **tags}
    tags |= {b"wtpt": b"XYZ " + bytes(4) + fixed(*0.9 * xyz(D65)), b"cprt": b"text" + bytes(4) + b"none\0"}
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", 0, b"\0\0\0\0", 0x02100000, kind, space, connection)
    header += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(*xyz(D50))
    content = bytearray(header.ljust(128, b"\0") + table + data)
    struct.pack_into(">I", content, 0, len(content))
    return bytes(content)


def gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


LINEAR = b"curv" + bytes(4) + struct.pack(">I", 0)
SRGB_CURVE = (
    b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
)
SRGB_TABLE = b"curv" + bytes(4) + struct.pack(">I", 4096)
SRGB_TABLE += np.rint(decode_srgb(np.linspace(0, 1, 4096)) * 65535).astype(">u2").tobytes()


def matrix_profile(xys, curve: bytes) -> bytes:
    colorants = adaptation() @ primaries(xys)
    tags = {}
    for index, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*colorants[:, index])
        tags[name + b"TRC"] = curve
    return profile(b"RGB ", b"XYZ ", tags)


def gray_profile(curve: bytes) -> bytes:
    return profile(b"GRAY", b"XYZ ", {b"kTRC": curve})


def table_profile(space: bytes, weights: np.ndarray, offset: np.ndarray) -> bytes:
    """A profile whose table gives CIELAB as offset + channels (0 to 1) @ weights, which interpolation preserves."""
    channels = len(weights)
    corners = np.stack(np.meshgrid(*[[0, 1]] * channels, indexing="ij"), -1).reshape(-1, channels)
    lab = offset + corners @ weights
    coded = np.rint(np.stack([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], -1))
    lut = b"mft2" + bytes(4) + struct.pack(">4B", channels, 3, 2, 0) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += struct.pack(">HH", 2, 2) + struct.pack(">HH", 0, 65535) * channels
    lut += coded.astype(">u2").tobytes() + struct.pack(">HH", 0, 65535) * 3
    return profile(space, b"Lab ", {b"A2B0": lut}, kind=b"prtr" if channels == 4 else b"mntr")


ADOBE = matrix_profile(ADOBE_XY, gamma(2.19921875))
P3 = matrix_profile(P3_XY, SRGB_CURVE)
LIGHT = matrix_profile(SRGB_XY, LINEAR)
SRGB = matrix_profile(SRGB_XY, SRGB_TABLE)
INKS = np.array([[-30, -12, -15], [-20, 25, -3], [-10, -3, 30], [-40, 0, 0]])
CMYK = table_profile(b"CMYK", INKS, np.array([100, 0, 0]))
LIGHTS = np.array([[25, 20, 10], [60, -25, 15], [15, 5, -25]])
TABLE = table_profile(b"RGB ", LIGHTS, np.array([0, 0, 0]))
