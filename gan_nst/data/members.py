"""Reads the members of an archive that a stranger may have made: zip, tar, tar.gz, tar.bz2 and tar.xz.

The libraries only read, and no more at once than memory holds; every byte that comes out is counted, whatever the
archive says of its sizes.
"""

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from gan_nst.core.errors import DataError, counted, reason, sized

_RATIO, _SMALL = 100, 64 << 20  # an archive may grow a hundredfold, or to 64 MiB; pictures hardly shrink
_CHUNK = 1 << 20
_TAR_HEADER, _ZIP_DIRECTORY = 64 << 10, 128 << 20  # bytes at most that are read in one piece
_TAR_HEADERS = 256 << 10  # bytes at most of all headers of a member; tarfile makes ten times as many of them
_KEYS, _KEY = 100, 500  # what a tar may say of all its members; bytes in the name of such a thing
_RECORD = re.compile(rb"(\d+) ([^=]+)=")  # as tarfile finds them

_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ": lzma.LZMAFile}


class ArchiveRefused(DataError):
    """An archive is damaged, hostile or none, and will be so another time."""


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive. problem: why it may not be taken out, for whatever is neither.

    data: gives its bytes in pieces; only while the archive is at this member.
    """

    name: str
    is_folder: bool
    problem: str | None
    data: Callable[[], Iterator[bytes]]


def read_members(archive: Path, largest: int) -> Iterator[Member]:
    """The members of an archive, in its order.

    largest: bytes at most that may come out. Raises ArchiveRefused, or whatever the libraries stumble over.
    """
    budget = _Budget(archive, largest)
    with open(archive, "rb") as file:
        head = file.read(6)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        yield from _zip_members(archive, budget)
        return
    if head.lstrip().startswith(b"<"):
        raise ArchiveRefused("a web page, no archive; look at it in a browser")
    opened = next((opened for magic, opened in _PACKED.items() if head.startswith(magic)), io.FileIO)
    with opened(archive) as unpacked:
        yield from _tar_members(unpacked, budget)


class _Budget:
    """How many bytes may still come out of an archive."""

    def __init__(self, archive: Path, largest: int) -> None:
        grown = max(_RATIO * archive.stat().st_size, _SMALL)
        self._left = min(largest, grown)
        self._over = f"more comes out of it than {sized(largest)}; allow more with --max-size"
        if grown < largest:
            self._over = (
                f"more than {_RATIO} times its size comes out of it, as of a bomb; unpack it yourself"
            )

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ArchiveRefused(self._over)


def _zip_members(archive: Path, budget: _Budget) -> Iterator[Member]:
    with _ZipFile(io.FileIO(archive)) as file, zipfile.ZipFile(file) as packed:
        entries = packed.infolist()
        _refuse_overlap(entries, packed.start_dir)
        for entry in entries:

            def data(entry: zipfile.ZipInfo = entry) -> Iterator[bytes]:
                with packed.open(entry) as file:
                    for piece in _pieces(file.read, entry.file_size):
                        budget.spend(len(piece))
                        yield piece

            yield Member(entry.filename, entry.is_dir(), _zip_problem(entry), data)


class _ZipFile(io.BufferedReader):
    """Refuses to read a list of members that would fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _ZIP_DIRECTORY:
            raise ArchiveRefused(f"its list of members would have {sized(size)}")
        return super().read(size)


def _zip_problem(entry: zipfile.ZipInfo) -> str | None:
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link, a pipe or a device"
    if entry.flag_bits & 1:
        return "encrypted; unpack it yourself"
    if entry.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):  # zipfile bounds no other's memory
        return "compressed in a rare way; unpack it yourself"
    return None


def _refuse_overlap(entries: list[zipfile.ZipInfo], end: int) -> None:
    """Raises ArchiveRefused where members share their data, as a small archive needs to become a large tree."""
    for entry in sorted(entries, key=lambda entry: entry.header_offset, reverse=True):
        if entry.header_offset + 30 + len(entry.orig_filename) + entry.compress_size > end:
            raise ArchiveRefused(f"{entry.filename} lies over another member")
        end = entry.header_offset


def _tar_members(file: IO[bytes], budget: _Budget) -> Iterator[Member]:
    tape = _Tape(file, budget)
    try:
        packed = tarfile.TarFile(fileobj=cast(IO[bytes], tape))
    except tarfile.ReadError as error:
        raise ArchiveRefused(f"neither a zip nor a tar ({reason(error)})") from None
    count = 0
    while (member := packed.next()) is not None:
        packed.members = []  # type: ignore[attr-defined] # it keeps all: a million of them fill the memory
        count += 1
        tape.headers = 0
        if len(packed.pax_headers) > _KEYS:  # it copies them for each member
            raise ArchiveRefused(f"damaged (it says more than {_KEYS} things of all its members)")

        def data(size: int = member.size) -> Iterator[bytes]:
            return _pieces(tape.take, size)

        yield Member(member.name, member.isdir(), _tar_problem(member), data)
    if tape.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes damage for the end
        raise ArchiveRefused(f"damaged (it breaks off after {counted(count, 'member')})")
    while tape.take(_CHUNK):  # the checksum of what is compressed comes last
        pass


def _tar_problem(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname[:100]}"
    if member.size < 0 or member.issparse() or not (member.isreg() or member.isdir()):
        return "a pipe, a device or a file with holes"
    return None


class _Tape:
    """What tarfile reads: goes forward only, gives no more than headers have, and spends the budget.

    headers: bytes that it gave of the member that tarfile is about to find.
    """

    def __init__(self, file: IO[bytes], budget: _Budget) -> None:
        self._file, self._budget = file, budget
        self._place = 0
        self.headers = 0
        self.last = b""

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> None:
        if place < self._place:
            raise ArchiveRefused("damaged (a size in it is negative)")
        while self._place < place and self.take(min(_CHUNK, place - self._place)):
            pass

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _TAR_HEADER:
            raise ArchiveRefused(f"damaged (a header in it has {size} bytes)")
        self.headers += size
        if self.headers > _TAR_HEADERS:
            raise ArchiveRefused(f"damaged (the headers of a member have more than {sized(_TAR_HEADERS)})")
        self.last = self.take(size)
        if size > tarfile.BLOCKSIZE:
            _refuse_quadratic(self.last)
        return self.last

    def take(self, size: int) -> bytes:
        data = self._file.read(size)
        self._place += len(data)
        self._budget.spend(len(data))
        return data


def _refuse_quadratic(header: bytes) -> None:
    """Raises ArchiveRefused for a header on which tarfile would spend the square of its length, in time or memory."""
    if re.search(rb"\d{100}", header):
        raise ArchiveRefused("damaged (a number in it has 100 digits)")
    place = 0
    while found := _RECORD.match(header, place):
        if len(found[2]) > _KEY:
            raise ArchiveRefused(f"damaged (a key in it has {len(found[2])} bytes)")
        place += int(found[1]) or len(header)


def _pieces(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """A member's data in pieces. Raises ArchiveRefused when it is shorter than it says."""
    while size > 0:
        piece = read(min(_CHUNK, size))
        if not piece:
            raise ArchiveRefused("damaged (it breaks off, or a size in it is wrong)")
        size -= len(piece)
        yield piece
