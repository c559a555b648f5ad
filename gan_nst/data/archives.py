"""Finds the data set in a tree of images that came from elsewhere, and gives it the layout of ours."""

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from gan_nst.core.errors import DataError, cannot_write, counted, format_size, one_line, reason
from gan_nst.data.domains import DOMAINS, layouts
from gan_nst.images.files import image_suffixes

_RATIO, _SMALL = 100, 64 << 20  # an archive may grow a hundredfold, or to 64 MiB; images hardly shrink
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
        self._over = f"more comes out of it than {format_size(largest)}; allow more with --max-size"
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
            raise ArchiveRefused(f"its list of members would have {format_size(size)}")
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
            raise ArchiveRefused(
                f"damaged (the headers of a member have more than {format_size(_TAR_HEADERS)})"
            )
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


_MEMBERS = 1_000_000
_DEPTH, _NAME, _PATH = 16, 255, 1000  # folders in a name; bytes of a part of it, and of all of it


@dataclass(frozen=True)
class Unpacked:
    """The images that were taken out, by their paths below the folder, and how many other files were not."""

    images: tuple[PurePosixPath, ...]
    left_out: int


def unpack(archive: Path, folder: Path, *, largest: int, called: str) -> Unpacked:
    """Takes an archive's images out into a new folder, under their own names.

    largest: bytes at most that come out. called: what errors call the archive. Other files, hidden ones and those of
    __MACOSX are left out. Raises ArchiveRefused, one line, for what is no archive, is damaged, or has a member that
    no data set has (a link, a name that leads out), and DataError when an image cannot be written or the archive not
    be read; what was taken out until then stays.
    """
    images, left_out = [], 0
    with _reading(called):
        for number, member in enumerate(read_members(archive, largest), 1):
            if number > _MEMBERS:
                raise ArchiveRefused(f"it has more than {_MEMBERS} members")
            place = _place(member.name)
            if member.problem is not None:
                raise ArchiveRefused(f"{member.name} is {member.problem}")
            if member.is_folder:
                continue
            if _wanted(place):
                _write(member, folder / place, called)
                images.append(place)
            else:
                left_out += 1
    return Unpacked(tuple(images), left_out)


@contextmanager
def _reading(called: str) -> Iterator[None]:
    """Within the context whatever the libraries stumble over becomes an ArchiveRefused that names the archive, or a
    DataError where it may go better another time.
    """
    try:
        yield
    except ArchiveRefused as error:
        raise ArchiveRefused(f"{called}: {error}; nothing was kept of it") from None
    except DataError:
        raise
    except Exception as error:
        if _is_of_the_machine(error):
            raise DataError(_not_unpacked(called, error)) from None
        raise ArchiveRefused(f"{called}: damaged ({reason(error)}); nothing was kept of it") from None


def _is_of_the_machine(error: Exception) -> bool:
    """Whether it is the machine's fault, not the archive's: the libraries' own OSErrors have no number, and an invalid
    argument is a place before the file that a zip names.
    """
    return isinstance(error, MemoryError) or getattr(error, "errno", None) not in (None, errno.EINVAL)


def _not_unpacked(called: str, error: Exception) -> str:
    return f"{called}: could not be unpacked ({reason(error)})"


def _place(name: str) -> PurePosixPath:
    """Where below its folder a member goes. Raises ArchiveRefused for a name that no image has."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    readable = name.encode(errors="ignore").decode()  # bytes that are no text are no harm
    problem = None
    if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
        problem = "it leads out of its folder"
    elif "\\" in name or one_line(readable) != readable:
        problem = "a backslash or a control character is in it"
    elif len(parts) > _DEPTH:
        problem = f"it lies deeper than {_DEPTH} folders"
    elif len(os.fsencode(name)) > _PATH or any(len(os.fsencode(part)) > _NAME for part in parts):
        problem = "it is too long"
    if problem is not None:
        raise ArchiveRefused(f"the name {name[:100]}: {problem}")
    return PurePosixPath(*parts)


def _wanted(place: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in place.parts)
    return not hidden and place.suffix.lower() in image_suffixes()


def _write(member: Member, path: Path, called: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            for piece in _data(member, called):
                file.write(piece)
    except (FileExistsError, NotADirectoryError):
        raise ArchiveRefused(f"{member.name} is in it twice, if only in another case") from None
    except OSError as error:
        raise DataError(cannot_write(path, error)) from None


def _data(member: Member, called: str) -> Iterator[bytes]:
    """A member's bytes; an OSError of theirs is no full disk."""
    try:
        yield from member.data()
    except OSError as error:
        if _is_of_the_machine(error):
            raise DataError(_not_unpacked(called, error)) from None
        raise ArchiveRefused(f"damaged ({reason(error)})") from None


SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Arranged:
    """A data set in our layout: how many images there are in `trainA`, `trainB` and so on; how many belonged to none.

    guessed: the folders that were taken for the domains a and b by the order of their names, if so.
    """

    counts: dict[str, int]
    left_out: int
    guessed: tuple[str, ...] = ()


def arrange(folder: Path, images: Sequence[PurePosixPath], target: Path) -> Arranged:
    """Moves the folders of a data set that lie anywhere below a folder into a new one, as trainA, trainB, testA ...

    images: all of them, by their paths below the folder. Without a known layout two folders of images are taken
    for the domains, with the splits in them. Raises DataError, which names no archive, when there is no data set, or
    more than one.
    """
    known = _known(images)
    places = known or _two_folders(images)
    if not places:
        raise DataError(f"no data set is in it, only {_holdings(images)}")
    counts: dict[str, int] = {}
    target.mkdir()
    for name, place in places.items():
        counts[name] = sum(place in image.parents for image in images)
        (folder / place).rename(target / name)
    guessed = () if known else (str(places["trainA"]), str(places["trainB"]))
    return Arranged(counts, len(images) - sum(counts.values()), guessed)


def _known(images: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """The folders by the names that they shall have, where they lie in one of the layouts that we read."""
    filled = {parent for image in images for parent in image.parents}
    found = [places for root in sorted(filled) if (places := dict(_at(root, filled)))]
    most = max(map(len, found), default=0)
    best = [places for places in found if len(places) == most]
    if len(best) > 1:
        roots = ", ".join(str(next(iter(places.values()))) for places in best[:5])
        raise DataError(f"{len(best)} data sets are in it ({roots})")
    return best[0] if best else {}


def _at(root: PurePosixPath, filled: set[PurePosixPath]) -> Iterator[tuple[str, PurePosixPath]]:
    for split in SPLITS:
        for domain in DOMAINS:
            place = next((root / place for place in layouts(split, domain) if root / place in filled), None)
            if place is not None:
                yield f"{split}{domain.upper()}", place


def _two_folders(images: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """The only two folders of images, if their names tell no split, as a and b: whole as the training images, or
    by the splits that the names of all folders in them tell.
    """
    if not images:
        return {}
    top = PurePosixPath(os.path.commonpath([image.parent for image in images]))
    below = {image.parent.relative_to(top).parts for image in images}
    names = sorted({parts[0] for parts in below if parts})
    if () in below or len(names) != 2 or any(map(_split, names)):
        return {}
    if not any(_split(part) for parts in below for part in parts):
        return {"trainA": top / names[0], "trainB": top / names[1]}
    found: dict[str, PurePosixPath] = {}
    for parts in below:
        split, *deeper = [_split(part) for part in parts[1:]] or [None]
        place = top.joinpath(*parts[:2])
        name = f"{split}{'AB'[names.index(parts[0])]}"
        if split is None or any(deeper) or found.setdefault(name, place) != place:
            return {}
    if not {"trainA", "trainB"} <= found.keys():
        return {}
    return {name: found[name] for split in SPLITS for name in (f"{split}A", f"{split}B") if name in found}


def _split(name: str) -> str | None:
    """The split that a folder's name tells."""
    found = re.match(r"(train|test|val)(ing|id|idation)?$", name, re.I)
    return found and found[1].lower()


def _holdings(images: Sequence[PurePosixPath]) -> str:
    """The folders that hold images, and how many, in one line."""
    counts = Counter(image.parent for image in images)
    shown = [f"{place} ({counted(count, 'image')})" for place, count in sorted(counts.items())[:8]]
    return ", ".join([*shown, *(["..."] if len(counts) > 8 else [])]) or "no images"
