"""Unpacks the images of an archive that came from elsewhere, and arranges them as a data set.

Extraction is done here rather than by `TarFile.extractall(filter="data")`, as that filter covers tars alone and accepts
links within the folder: one check of names and kinds serves both formats.
"""

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
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from gan_nst.core.errors import DataError, cannot_write, counted, format_size, one_line, reason
from gan_nst.data.domains import DOMAINS, layouts
from gan_nst.images.files import image_suffixes

_MAX_RATIO, _SMALL = (
    100,
    64 << 20,
)  # what comes out may be 100 times the archive, or 64 MiB; images hardly compress
_MAX_MEMBERS = 1_000_000
_MAX_DEPTH, _MAX_PART, _MAX_PATH = 16, 255, 1000  # folders in a name; bytes of each of its parts, and of all
_MAX_HEADER = 64 << 10  # bytes of a tar's header, which is read into memory
_CHUNK = 1 << 20

_DECOMPRESSORS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


class ArchiveRefused(DataError):
    """An archive is damaged, hostile, or not an archive at all; trying again does not help."""


@dataclass(frozen=True)
class Unpacked:
    """The extracted images, by their paths below the folder, and the number of files that were skipped."""

    images: tuple[PurePosixPath, ...]
    skipped: int


def unpack(archive: Path, folder: Path, *, largest: int, called: str) -> Unpacked:
    """Extracts an archive's images into a new folder, under their own names.

    Other files are skipped, as are hidden ones and those of __MACOSX. largest: bytes that may come out. called: what
    errors call the archive. Raises ArchiveRefused if it is damaged, too large, or has a member that no data set has (a
    link, a name that leads out of the folder), and DataError if an image cannot be written or the archive cannot be
    read; images extracted until then remain.
    """
    images, skipped = [], 0
    try:
        for number, member in enumerate(_members(archive, largest), 1):
            if number > _MAX_MEMBERS:
                raise ArchiveRefused(f"more than {_MAX_MEMBERS} members")
            path = _checked_path(member.name)
            if member.problem is not None:
                raise ArchiveRefused(f"{member.name} is {member.problem}")
            if not member.is_folder and _is_wanted(path):
                _write(member, folder / path)
                images.append(path)
            elif not member.is_folder:
                skipped += 1
    except ArchiveRefused as error:
        raise ArchiveRefused(f"{called}: {error}; nothing was extracted") from None
    except DataError:
        raise
    except Exception as error:
        if _is_environmental(error):
            raise DataError(f"{called}: could not be unpacked ({reason(error)})") from None
        raise ArchiveRefused(f"{called}: damaged ({reason(error)}); nothing was extracted") from None
    return Unpacked(tuple(images), skipped)


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive. problem: why it must not be extracted. data: yields its bytes, while the
    archive is read at this member.
    """

    name: str
    is_folder: bool
    problem: str | None
    data: Callable[[], Iterator[bytes]]


class _Budget:
    """The number of bytes that may still come out of an archive."""

    def __init__(self, archive: Path, largest: int) -> None:
        plausible = max(_MAX_RATIO * archive.stat().st_size, _SMALL)
        self._left = min(largest, plausible)
        self._exceeded = f"it contains more than {format_size(largest)}; allow more with --max-size"
        if plausible < largest:
            self._exceeded = (
                f"it expands to more than {_MAX_RATIO} times its size, like a bomb; unpack it yourself"
            )

    def spend(self, data: bytes) -> bytes:
        """Returns the data. Raises ArchiveRefused when it is more than is left."""
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveRefused(self._exceeded)
        return data


def _members(archive: Path, largest: int) -> Iterator[_Member]:
    """The members of an archive, in its order."""
    budget = _Budget(archive, largest)
    with open(archive, "rb") as file:
        head = file.read(6)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        yield from _zip_members(archive, budget)
        return
    if head.lstrip().startswith(b"<"):
        raise ArchiveRefused("a web page, not an archive; open it in a browser")
    opened = next((opened for magic, opened in _DECOMPRESSORS.items() if head.startswith(magic)), io.FileIO)
    with opened(archive) as file:
        yield from _tar_members(_Tape(file, budget))


def _zip_members(archive: Path, budget: _Budget) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            problem = None
            if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "a link, a pipe or a device"
            elif entry.flag_bits & 1:
                problem = "encrypted; unpack it yourself"
            elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                problem = "compressed in a rare way; unpack it yourself"  # zipfile inflates those in memory

            def data(entry: zipfile.ZipInfo = entry) -> Iterator[bytes]:
                with packed.open(entry) as file:
                    yield from _pieces(lambda size: budget.spend(file.read(size)), entry.file_size)

            yield _Member(entry.filename, entry.is_dir(), problem, data)


class _Tape:
    """What tarfile reads from: only goes forward, limits headers, and spends the budget. last: the last header."""

    def __init__(self, file: IO[bytes], budget: _Budget) -> None:
        self._file, self._budget = file, budget
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        while self._position < position and self.take(min(_CHUNK, position - self._position)):
            pass

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise ArchiveRefused(f"damaged (a header of {size} bytes)")
        self.last = self.take(size)
        return self.last

    def take(self, size: int) -> bytes:
        data = self._budget.spend(self._file.read(size))
        self._position += len(data)
        return data


def _tar_members(tape: _Tape) -> Iterator[_Member]:
    try:
        packed = tarfile.TarFile(fileobj=cast(IO[bytes], tape))
    except tarfile.ReadError as error:
        raise ArchiveRefused(f"neither a zip nor a tar ({reason(error)})") from None
    while (member := packed.next()) is not None:
        packed.members = []  # type: ignore[attr-defined] # it would keep all of them in memory
        problem = None
        if member.issym() or member.islnk():
            problem = f"a link to {member.linkname[:100]}"
        elif member.size < 0 or member.issparse() or not (member.isreg() or member.isdir()):
            problem = "a pipe, a device or a sparse file"

        def data(size: int = member.size) -> Iterator[bytes]:
            return _pieces(tape.take, size)

        yield _Member(member.name, member.isdir(), problem, data)
    if tape.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes damage for the end
        raise ArchiveRefused("damaged (it ends early)")
    while tape.take(_CHUNK):  # the checksum of compressed data comes last
        pass


def _pieces(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """A member's data. Raises ArchiveRefused when it is shorter than announced."""
    while size > 0:
        piece = read(min(_CHUNK, size))
        if not piece:
            raise ArchiveRefused("damaged (it ends early, or a size in it is wrong)")
        size -= len(piece)
        yield piece


def _checked_path(name: str) -> PurePosixPath:
    """Where below the folder a member goes. Raises ArchiveRefused for names that no image has."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    text = name.encode(errors="ignore").decode()  # bytes that are not text are harmless
    problem = None
    if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
        problem = "it leads out of the folder"
    elif "\\" in name or one_line(text) != text:
        problem = "it contains a backslash or a control character"
    elif (
        len(parts) > _MAX_DEPTH
        or len(os.fsencode(name)) > _MAX_PATH
        or any(len(os.fsencode(part)) > _MAX_PART for part in parts)
    ):
        problem = "it is too long or too deeply nested"
    if problem is not None:
        raise ArchiveRefused(f"the name {name[:100]}: {problem}")
    return PurePosixPath(*parts)


def _is_wanted(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in image_suffixes()


def _write(member: _Member, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.writelines(member.data())
    except (FileExistsError, NotADirectoryError):
        raise ArchiveRefused(
            f"{member.name} appears twice, or differs from another name only in case"
        ) from None
    except OSError as error:
        if not _is_environmental(error):
            raise
        raise DataError(cannot_write(path, error)) from None


def _is_environmental(error: Exception) -> bool:
    """Whether the machine is at fault, not the archive: the libraries' own OSErrors have no number, and an invalid
    argument is a position before the start of the file that a zip names.
    """
    return isinstance(error, MemoryError) or getattr(error, "errno", None) not in (None, errno.EINVAL)


SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Arranged:
    """A data set in our layout. counts: the images in `trainA`, `trainB` and so on. skipped: the images that belong to
    none of them. guessed: the folders that became the domains a and b by the order of their names, if any.
    """

    counts: dict[str, int]
    skipped: int
    guessed: tuple[str, ...] = ()


def arrange(folder: Path, images: Sequence[PurePosixPath], target: Path) -> Arranged:
    """Moves the folders of a data set from anywhere below `folder` to a new folder, as trainA, trainB, testA ...

    images: all of them, by their paths below the folder. Without a known layout, exactly two folders of images become
    the domains, with the splits within them. Raises DataError, without naming the archive, unless there is exactly one
    data set.
    """
    known = _known_layout(images)
    found = known or _two_folders(images)
    if not found:
        raise DataError(f"no data set found, only {_describe_folders(images)}")
    counts = {name: sum(path in image.parents for image in images) for name, path in found.items()}
    target.mkdir()
    for name, path in found.items():
        (folder / path).rename(target / name)
    guessed = () if known else (str(found["trainA"]), str(found["trainB"]))
    return Arranged(counts, len(images) - sum(counts.values()), guessed)


def _known_layout(images: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """The folders by their future names, if they are in one of the layouts that training reads: of several such sets
    the one with the most folders.
    """
    filled = {parent for image in images for parent in image.parents}
    candidates = [_folders_at(root, filled) for root in sorted(filled)]
    most = max(map(len, candidates), default=0)
    best = [found for found in candidates if len(found) == most > 0]
    if len(best) > 1:
        examples = ", ".join(str(next(iter(found.values()))) for found in best[:5])
        raise DataError(f"{len(best)} data sets found ({examples})")
    return best[0] if best else {}


def _folders_at(root: PurePosixPath, filled: set[PurePosixPath]) -> dict[str, PurePosixPath]:
    return {
        f"{split}{domain.upper()}": root / layout
        for split in SPLITS
        for domain in DOMAINS
        for layout in reversed(layouts(split, domain))  # so that the first one wins
        if root / layout in filled
    }


def _two_folders(images: Sequence[PurePosixPath]) -> dict[str, PurePosixPath]:
    """The only two folders of images as domains a and b, unless they are named like splits: all of their images for
    training, or each of their subfolders as the split it is named after.
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
        path = top.joinpath(*parts[:2])
        name = f"{split}{'AB'[names.index(parts[0])]}"
        if split is None or any(deeper) or found.setdefault(name, path) != path:
            return {}
    if not {"trainA", "trainB"} <= found.keys():
        return {}
    return {name: found[name] for split in SPLITS for name in (f"{split}A", f"{split}B") if name in found}


def _split(name: str) -> str | None:
    """The split that a folder is named after."""
    found = re.match(r"(train|test|val)(ing|id|idation)?$", name, re.I)
    return found and found[1].lower()


def _describe_folders(images: Sequence[PurePosixPath]) -> str:
    """The folders that hold images, and how many each, in one line."""
    counts = Counter(image.parent for image in images)
    shown = [f"{path} ({counted(count, 'image')})" for path, count in sorted(counts.items())[:8]]
    return ", ".join([*shown, *(["..."] if len(counts) > 8 else [])]) or "no images"
