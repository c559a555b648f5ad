"""Unpacks the images of an untrusted archive, and arranges them as a data set.

Extraction is done here rather than by `TarFile.extractall(filter="data")`, as that filter covers tars alone and accepts
links within the folder: one check of names and kinds serves both formats.
"""

import errno
import logging
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self, cast

from gan_nst.core.errors import DataError, cannot_write, counted, format_size, listed
from gan_nst.core.pretrained import digest
from gan_nst.data.domains import DOMAINS, layouts
from gan_nst.images.files import image_suffixes

log = logging.getLogger(__name__)

_MAX_RATIO, _SMALL = 100, 64 << 20  # images hardly compress: 100 times the archive, or 64 MiB, is a bomb
_MAX_MEMBERS = 1_000_000
_MAX_DEPTH = 16  # folders in a name
_CHUNK = 1 << 20  # bytes; longer headers, which are read into memory, are refused
# The system's errors that an archive can cause, and None for those of the libraries, which have no number.
_CAUSED = (None, errno.EINVAL, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


class ArchiveRefused(DataError):
    """An archive is damaged, hostile, or not an archive at all; trying again does not help."""


def unpack(archive: Path, folder: Path, *, largest: int, called: str, sha256: str | None = None) -> None:
    """Extracts an archive's images into a new folder, under their own names.

    Other files are skipped, as are hidden ones and those of __MACOSX. largest: bytes that the archive may contain.
    called: what errors call it. sha256: the expected one. Raises ArchiveRefused if it is a different file, damaged, too
    large, or has a member that no data set has (a link, a name that leads out of the folder), and DataError if an image
    cannot be written or the archive cannot be read; images extracted until then remain.
    """
    skipped = 0
    try:
        if sha256 and (found := digest(archive)) != sha256:
            raise ArchiveRefused(f"its SHA-256 is {found}, expected {sha256}; it is a different file")
        for number, (name, problem, opened) in enumerate(_members(archive, largest), 1):
            if number > _MAX_MEMBERS:
                raise ArchiveRefused(f"more than {_MAX_MEMBERS} members; unpack it yourself if you trust it")
            path = PurePosixPath(name)
            if _leads_out(name):
                problem = "a name that leads out of the folder, or is too deeply nested"
            elif opened and (folder / path).exists():
                problem = "it appears twice, or differs from another name only in case"
            if problem:
                raise ArchiveRefused(f"{name[:100]}: {problem}; unpack it yourself if you trust it")
            if opened and _is_wanted(path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, open(folder / path, "xb") as file:
                    shutil.copyfileobj(source, file)
            elif opened:
                skipped += 1
    except ArchiveRefused as error:
        raise ArchiveRefused(f"{called}: {error}") from None
    except Exception as error:
        kind = ArchiveRefused if getattr(error, "errno", None) in _CAUSED else DataError
        raise kind(cannot_write(called, error, "could not be unpacked")) from None
    if skipped:
        log.info(f"{called}: {counted(skipped, 'other file')} skipped")


def _leads_out(name: str) -> bool:
    parts = name.split("/")
    windows = "\\" in name or re.match("[A-Za-z]:", name) is not None
    return windows or name.startswith("/") or ".." in parts or len(parts) > _MAX_DEPTH


def _is_wanted(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in image_suffixes()


_Member = tuple[str, str | None, Callable[[], Any] | None]
"""A file or folder in an archive: its name; why it must not be extracted, if so; what opens it, None for a folder."""


def _members(archive: Path, largest: int) -> Iterator[_Member]:
    """The members of an archive, in its order. Each can be opened until the next one is asked for."""
    plausible = max(_MAX_RATIO * archive.stat().st_size, _SMALL)

    def check(total: int) -> None:
        if total > largest:
            raise ArchiveRefused(f"it contains more than {format_size(largest)}; allow more with --max-size")
        if total > plausible:
            raise ArchiveRefused(
                f"it expands to more than {_MAX_RATIO} times its size, like a decompression bomb; unpack it yourself"
            )

    with open(archive, "rb") as file:
        head = file.read(16)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise ArchiveRefused("a web page, not an archive; open it in a browser")
    yield from (_zip_members if head[:4] in (b"PK\3\4", b"PK\5\6") else _tar_members)(archive, check)


def _zip_members(archive: Path, check: Callable[[int], None]) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as packed:
        check(sum(entry.file_size for entry in packed.infolist()))
        for entry in packed.infolist():
            problem = None
            if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "a link, a pipe or a device"
            elif entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                problem = "encrypted, or compressed in a rare way"  # zipfile inflates those in memory
            yield entry.filename, problem, None if entry.is_dir() else partial(packed.open, entry)


def _tar_members(archive: Path, check: Callable[[int], None]) -> Iterator[_Member]:
    try:
        with tarfile.open(archive, tarinfo=_TarInfo) as packed:
            for member in packed:
                packed.members = []  # type: ignore[attr-defined] # it would keep all of them in memory
                check(packed.offset)
                problem = None
                if member.size < 0 or member.issparse() or not (member.isreg() or member.isdir()):
                    problem = "a link, a pipe, a device or a sparse file"
                yield member.name, problem, None if member.isdir() else partial(packed.extractfile, member)
            stream = cast(BinaryIO, packed.fileobj)
            stream.seek(packed.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes damage for the end
                raise ArchiveRefused("damaged (it ends early)")
            while stream.read(_CHUNK):  # the checksum of compressed data comes last
                check(stream.tell())
    except tarfile.ReadError:
        raise ArchiveRefused("neither a zip nor a tar, or damaged") from None


class _TarInfo(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.size > _CHUNK and not (header.isreg() or header.isdir())):
            raise ArchiveRefused(f"damaged (a header of {header.size} bytes)")
        return header


_SPLITS = ("train", "val", "test")
_ADVICE = "unpack it yourself and train with data.a=FOLDER data.b=FOLDER"


def arrange(folder: Path, target: Path, called: object) -> dict[str, int]:
    """Moves the folders of a data set from anywhere below `folder` to a new folder, as trainA, trainB, testA ...

    Returns the number of images in each. Without a known layout, exactly two folders of images become the domains.
    called: what errors call the archive. Raises DataError unless there is exactly one data set.
    """
    parents = [path.relative_to(folder).parent for path in folder.rglob("*") if path.is_file()]
    known = _known_layouts(parents)
    if len(known) > 1:
        firsts = [str(next(iter(found.values()))) for found in known]
        raise DataError(f"{called}: {len(known)} data sets found ({listed(firsts, 5)}); {_ADVICE}")
    found = known[0] if known else _two_folders(parents)
    if not found:
        held = [f"{path} ({counted(count, 'image')})" for path, count in sorted(Counter(parents).items())]
        raise DataError(
            f"{called}: no data set found; it contains {listed(held, 8) or 'no images'}; {_ADVICE}"
        )
    counts = {name: sum(parent.is_relative_to(path) for parent in parents) for name, path in found.items()}
    target.mkdir()
    for name, path in found.items():
        (folder / path).rename(target / name)
    if not known:
        a, b = found["trainA"], found["trainB"]
        log.info(f"{a} became trainA and {b} became trainB, by name; swap them if you want the reverse")
    if skipped := len(parents) - sum(counts.values()):
        log.info(f"{called}: {counted(skipped, 'image')} in other folders skipped")
    return counts


def _known_layouts(parents: Sequence[Path]) -> list[dict[str, Path]]:
    """The sets in a layout that training reads, those with the most folders: the folders by their future names."""
    filled = {folder for parent in parents for folder in (parent, *parent.parents)}
    candidates = [_folders_at(root, filled) for root in sorted(filled)]
    most = max(map(len, candidates), default=0)
    return [found for found in candidates if len(found) == most > 0]


def _folders_at(root: Path, filled: set[Path]) -> dict[str, Path]:
    return {
        f"{split}{domain.upper()}": root / layout
        for split in _SPLITS
        for domain in DOMAINS
        for layout in reversed(layouts(split, domain))  # so that the first one wins
        if root / layout in filled
    }


def _two_folders(parents: Sequence[Path]) -> dict[str, Path]:
    """The only two folders of images as domains a and b, unless they, or folders in them, are named like splits."""
    top = Path(os.path.commonpath(parents)) if parents else Path()
    below = {parent.relative_to(top).parts for parent in parents}
    names = sorted({parts[0] for parts in below if parts})
    is_split = re.compile("(train|test|val)(ing|id|idation)?", re.IGNORECASE).fullmatch
    if () in below or len(names) != 2 or any(is_split(part) for parts in below for part in parts):
        return {}
    return {"trainA": top / names[0], "trainB": top / names[1]}
