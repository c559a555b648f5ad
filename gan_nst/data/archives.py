"""Takes the pictures out of an archive that a stranger may have made.

Every file is made here, under a name that was looked at, with no mode, link or owner of the archive's.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gan_nst.core.errors import DataError, one_line, reason, unwritten
from gan_nst.data.members import ArchiveRefused, Member, read_members
from gan_nst.images.files import picture_suffixes

_MEMBERS = 1_000_000
_DEPTH, _NAME, _PATH = 16, 255, 1000  # folders in a name; bytes of a part of it, and of all of it


@dataclass(frozen=True)
class Unpacked:
    """The pictures that were taken out, by their paths below the folder, and how many other files were not."""

    pictures: tuple[PurePosixPath, ...]
    left_out: int


def unpack(archive: Path, folder: Path, *, largest: int, called: str) -> Unpacked:
    """Takes an archive's pictures out into a new folder, under their own names.

    largest: bytes at most that come out. called: what errors call the archive. Other files, hidden ones and those of
    __MACOSX are left out. Raises ArchiveRefused, one line, for what is no archive, is damaged, or has a member that
    no data set has (a link, a name that leads out), and DataError when a picture cannot be written or the archive not
    be read; what was taken out until then stays.
    """
    pictures, left_out = [], 0
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
                pictures.append(place)
            else:
                left_out += 1
    return Unpacked(tuple(pictures), left_out)


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
    """Where below its folder a member goes. Raises ArchiveRefused for a name that no picture has."""
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
    return not hidden and place.suffix.lower() in picture_suffixes()


def _write(member: Member, path: Path, called: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            for piece in _data(member, called):
                file.write(piece)
    except (FileExistsError, NotADirectoryError):
        raise ArchiveRefused(f"{member.name} is in it twice, if only in another case") from None
    except OSError as error:
        raise DataError(unwritten(path, error)) from None


def _data(member: Member, called: str) -> Iterator[bytes]:
    """A member's bytes; an OSError of theirs is no full disk."""
    try:
        yield from member.data()
    except OSError as error:
        if _is_of_the_machine(error):
            raise DataError(_not_unpacked(called, error)) from None
        raise ArchiveRefused(f"damaged ({reason(error)})") from None
