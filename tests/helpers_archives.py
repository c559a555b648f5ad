"""Archives for tests; `hostile_archives()` returns those that must not be unpacked.

Each is refused by `gan_nst.data_get(FILE, FOLDER)` with a one-line DataError, and leaves nothing behind.
"""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import warnings
import zipfile
from functools import cache

from PIL import Image

MIB = 1 << 20


@cache
def image(number=0):
    """A small PNG, a different one for each number."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, 30, 200)).save(file, "PNG")
    return file.getvalue()


def data_set(top="", count=3, splits=("trainA", "trainB", "testA", "testB")):
    """The files, by name, of a data set: `count` images in each folder below `top`."""
    return {
        f"{top}{split}/{number}.png": image(10 * place + number)
        for place, split in enumerate(splits)
        for number in range(count)
    }


def zip_of(files, method=zipfile.ZIP_STORED):
    """A zip of files by name, or of pairs (name or ZipInfo, bytes) in which names may repeat."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a repeated name
        for name, data in _pairs(files):
            archive.writestr(name, data, compress_type=method)
    return file.getvalue()


def tar_of(files, pack=bytes, form=tarfile.PAX_FORMAT):
    """A tar of files by name, or of pairs (name or TarInfo, bytes). pack: compresses it, such as `gzip.compress`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in _pairs(files):
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data))
    return pack(file.getvalue())


@cache
def hostile_archives():
    """Pairs (file name, bytes) of archives that must be refused, although each contains a valid data set."""
    return [*_hostile_zips(), *_hostile_tars(), *_hostile_files()]


BAD_NAMES = {
    "up": "../up.png",
    "up-inside": "trainA/../../../up.png",
    "absolute": "/tmp/absolute.png",
    "double-slash": "//host/share/x.png",
    "drive": "C:/drive.png",
    "drive-relative": "C:drive.png",
    "backslash": "..\\..\\back.png",
    "backslash-inside": "trainA\\..\\..\\back.png",
    "long": f"trainA/{'x' * 300}.png",
    "long-path": "/".join(["trainA", *["y" * 200] * 30, "x.png"]),
    "deep": "/".join(["trainA", *["d"] * 3000, "x.png"]),
    "under-a-file": "trainA/0.png/x.png",
    "twice": "trainA/0.png",
    "twice-by-dots": "./trainA/./0.png",
}
"""Invalid image names, by what is wrong with them."""

_KINDS = {"link": stat.S_IFLNK, "pipe": stat.S_IFIFO, "device": stat.S_IFCHR, "socket": stat.S_IFSOCK}


def _hostile_zips():
    good = list(data_set().items())
    for what, name in BAD_NAMES.items():
        yield f"zip-{what}.zip", zip_of([*good, (name, image())])
    for what, kind in _KINDS.items():
        yield (
            f"zip-{what}.zip",
            zip_of([*good, (_special(f"trainA/{what}.png", kind), b"../../../etc/passwd")]),
        )
    through = [(_special("trainA/out", stat.S_IFLNK), b"/tmp"), ("trainA/out/x.png", image())]
    yield "zip-through-link.zip", zip_of([*good, *through])
    archive = zip_of(good, zipfile.ZIP_DEFLATED)
    central = archive.index(b"PK\x01\x02")
    yield "zip-encrypted.zip", _patched(archive, {6: b"\x01", central + 8: b"\x01"})
    yield "zip-unknown-method.zip", _patched(archive, {8: b"\x62\x00", central + 10: b"\x62\x00"})
    yield "zip-two-names.zip", _patched(archive, {30: b"../../"})
    yield "zip-size-too-small.zip", _patched(archive, {central + 24: struct.pack("<I", 5)})
    yield "zip-size-too-large.zip", _patched(archive, {central + 24: struct.pack("<I", 3 << 30)})
    yield "zip-wrong-sum.zip", _patched(archive, {central + 16: b"\0\0\0\0"})
    yield "zip-bad-data.zip", _patched(archive, {45: b"\xff" * 20})
    yield "zip-bad-text.zip", _patched(archive, {central + 9: b"\x08", central + 46: b"\xff"})
    yield "zip-overlap.zip", _overlapping(zip_of(good))
    zeros = ("trainA/zeros.png", bytes(70 * MIB))
    yield "zip-bomb.zip", zip_of([*good, zeros], zipfile.ZIP_DEFLATED)
    yield (
        "zip-bomb-many.zip",
        zip_of(
            [*good, *((f"trainA/zeros{number}.png", bytes(10 * MIB)) for number in range(8))],
            zipfile.ZIP_DEFLATED,
        ),
    )
    few = ("trainA/zeros.png", bytes(MIB))  # Python's zipfile would unpack these in memory
    yield "zip-bz2.zip", zip_of([*good, few], zipfile.ZIP_BZIP2)
    yield "zip-lzma.zip", zip_of([*good, few], zipfile.ZIP_LZMA)
    yield "zip-directory-size.zip", _patched(archive, {len(archive) - 10: b"\xff\xff\xff\x7f"})
    yield "zip-directory-place.zip", _patched(archive, {len(archive) - 6: b"\xff\xff\xff\x7f"})


def _hostile_tars():
    good = list(data_set().items())
    for what, name in BAD_NAMES.items():
        yield f"tar-{what}.tar", tar_of([*good, (name, image())])
    links = {"link": tarfile.SYMTYPE, "hard-link": tarfile.LNKTYPE}
    for what, kind in links.items():
        for where, target in {"out": "/etc/passwd", "up": "../../../x", "inside": "trainA/0.png"}.items():
            yield f"tar-{what}-{where}.tar", tar_of([*good, (_member("trainA/l.png", kind, target), b"")])
    through = [(_member("trainA/out", tarfile.SYMTYPE, "/tmp"), b""), ("trainA/out/x.png", image())]
    yield "tar-through-link.tar.gz", tar_of([*good, *through], gzip.compress)
    kinds = {"pipe": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE, "disk": tarfile.BLKTYPE, "unknown": b"Z"}
    for what, kind in kinds.items():
        yield f"tar-{what}.tar", tar_of([*good, (_member(f"trainA/{what}.png", kind), b"")])
    yield (
        "tar-link-in-long-name.tar",
        tar_of(
            [*good, (_member(f"trainA/{'x' * 150}.png", tarfile.SYMTYPE, "/" * 150), b"")],
            form=tarfile.GNU_FORMAT,
        ),
    )
    zeros = [*good, ("trainA/zeros.png", bytes(70 * MIB))]
    for suffix, pack in {"gz": lambda data: gzip.compress(data, 1), "bz2": bz2.compress, "xz": _xz}.items():
        yield f"tar-bomb.tar.{suffix}", tar_of(zeros, pack)
    yield "tar-bomb-skipped.tar.gz", tar_of([*good, ("zeros.bin", bytes(70 * MIB))], gzip.compress)
    plain = tar_of(good)
    yield "tar-bomb-header.tar.gz", _before(_header(b"x", 70 * MIB) + bytes(70 * MIB), plain, gzip.compress)
    yield "tar-bomb-name.tar.gz", _before(_header(b"L", 70 * MIB) + bytes(70 * MIB), plain, gzip.compress)
    yield "tar-negative-size.tar", _before(_header(b"0", -512), plain)
    yield "tar-negative-header.tar", _before(_header(b"x", -512), plain)
    yield "tar-huge-size.tar", _before(_header(b"0", 1 << 60), plain)
    yield "tar-sparse.tar", _before(_sparse(1 << 40), plain)
    sparse = _record("GNU.sparse.major", "1") + _record("GNU.sparse.minor", "0")
    yield (
        "tar-sparse-pax.tar",
        _before(_pax(sparse) + _header(b"0", 512) + b"9\n1\n".ljust(512, b"\0"), plain),
    )
    # Each becomes a number in memory.
    holes = (b"%d\n" % MIB + b"999\n" * 2 * MIB).ljust(8 * MIB + 512, b"\0")
    yield (
        "tar-bomb-sparse.tar.gz",
        _before(_pax(sparse) + _header(b"0", len(holes)) + holes, plain, gzip.compress),
    )
    yield "tar-path-up.tar", _before(_pax(_record("path", "../../up.png")) + _header(b"0", 0), plain)
    yield "tar-size-in-words.tar", _before(_pax(_record("size", "-9")) + _header(b"0", 0), plain)
    yield "tar-bad-sum.tar", plain[:148] + b"7777777\0" + plain[156:]
    half = len(plain) // 1024 * 512
    yield "tar-bad-middle.tar", plain[:half] + b"\xff" * 512 + plain[half + 512 :]


def _hostile_files():
    archive = zip_of(data_set())
    yield "empty.zip", b""
    yield "empty-inside.zip", zip_of({})
    yield "page.zip", b"<!DOCTYPE html><title>404 not found</title>"
    yield "noise.zip", bytes(range(256)) * 64
    yield "image.zip", image()
    yield "gzip-of-zip.tar.gz", gzip.compress(archive)
    yield "gzip-twice.tar.gz", gzip.compress(gzip.compress(tar_of(data_set())))
    yield "zip-in-zip.zip", zip_of({"inner.zip": archive})
    yield "no-images.zip", zip_of({"trainA/run.sh": b"#!/bin/sh\n", "trainB/x.py": b"import os\n"})
    for share in range(1, 10):
        cut = len(archive) * share // 10
        yield f"cut-{share}0.zip", archive[:cut]
        for suffix, pack in {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": _xz}.items():
            tar = tar_of(data_set(), pack)
            tar = tar.rstrip(b"\0") if not suffix else tar  # a tar ends with empty blocks
            yield f"cut-{share}0.tar{suffix}", tar[: len(tar) * share // 10]


def _pairs(files):
    return files.items() if isinstance(files, dict) else files


def _xz(data):
    return lzma.compress(data, preset=0)


def _special(name, kind):
    """The entry of a special file in a zip made on Unix."""
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


def _member(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _patched(data, changes):
    """The bytes, overwritten at some positions."""
    data = bytearray(data)
    for place, new in changes.items():
        data[place : place + len(new)] = new
    return bytes(data)


def _overlapping(archive):
    """A zip with two more entries that share the data of the first, as in a small file that becomes a large tree."""
    end = archive.rindex(b"PK\x05\x06")
    size, start = struct.unpack("<II", archive[end + 12 : end + 20])
    first = archive[start : archive.index(b"PK\x01\x02", start + 4)]
    copies = first + first
    count = struct.unpack("<H", archive[end + 10 : end + 12])[0] + 2
    tail = struct.pack("<HHIIH", count, count, size + len(copies), start, 0)
    return archive[:end] + copies + archive[end : end + 8] + tail


def _header(kind, size, name=b"trainA/x.png"):
    """A tar header with a correct checksum and a size that may be false."""
    number = b"%011o\0" % size if 0 <= size < 8**11 else b"\xff\xff\xff\xff" + struct.pack(">q", size)
    if size >= 8**11:
        number = b"\x80\0\0\0" + struct.pack(">q", size)
    fields = [name.ljust(100, b"\0"), b"0000644\0", b"0000000\0" * 2, number, b"00000000000\0", b" " * 8]
    header = b"".join([*fields, kind]).ljust(257, b"\0") + b"ustar\x0000"
    return _summed(header.ljust(512, b"\0"))


def _summed(header):
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _sparse(size):
    """A sparse file of GNU tar, without data and with the size it would have."""
    header = bytearray(_header(b"S", 0))
    header[148:156] = b" " * 8
    header[257:265] = b"ustar  \0"
    header[386:410] = b"00000000000\0" * 2
    header[483:495] = b"\x80\0\0\0" + struct.pack(">q", size)
    return _summed(bytes(header))


def _record(key, value):
    """One record of a pax header; its length counts itself."""
    text = f" {key}={value}\n".encode()
    length = len(text) + 2
    return str(length).encode() + text


def _pax(records):
    return _header(b"x", len(records)) + records.ljust(-(-len(records) // 512) * 512, b"\0")


def _before(blocks, tar, pack=bytes):
    return pack(blocks + tar)
