"""What a cache knows of the pictures in it: columns in one file, of which nothing is run and nothing believed."""

import json
import logging
import re
import stat
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_nst.data.files import Names
from gan_nst.images.files import replacing

log = logging.getLogger(__name__)

ROW = np.dtype(
    [
        ("bytes", "<i8"),
        ("time", "<i8"),
        ("offset", "<i8"),
        ("checksum", "<u4"),
        ("side", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
    ]
)
"""Of one file: size and time as it was decoded, which tell a change; where its pixels lie, and their CRC-32; its
shorter side before resizing; height and width after it, 0 where it could not be decoded.
"""

_MAGIC = b"gan_nst cache, format 4\n"
_LARGEST = 1 << 28  # pixels of a side; of more the product has no room in 64 bits


@dataclass(frozen=True)
class Index:
    """data: the file that holds the pixels, up to byte `end`; what lies beyond is of no use. names: the files below
    their folder. rows: (n,) of ROW. problems: why a file could not be decoded, by its row.
    """

    data: str = ""
    end: int = 0
    names: Names = field(default_factory=Names)
    rows: NDArray[Any] = field(default_factory=lambda: np.zeros(0, ROW))
    problems: dict[int, str] = field(default_factory=dict)

    def select(self, which: NDArray[np.int64]) -> "Index":
        """The same of some rows."""
        places = np.flatnonzero(np.isin(which, list(self.problems))).tolist()
        problems = {place: self.problems[int(which[place])] for place in places}
        return Index(self.data, self.end, self.names.select(which), self.rows[which], problems)


def stamp(file: Path) -> tuple[int, int]:
    """A file's size in bytes and its time in nanoseconds; -1 each when it is not there."""
    try:
        status = file.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def lengths(rows: NDArray[Any]) -> NDArray[np.int64]:
    """How many bytes the pixels of each row take."""
    found: NDArray[np.int64] = rows["height"].astype(np.int64) * rows["width"] * 3
    return found


def write_index(path: Path, index: Index) -> None:
    """Writes an index, whole or not at all, onto the disk."""
    letters, ends = index.names.joined()
    header = {"data": index.data, "end": index.end, "count": len(ends), "letters": len(letters)}
    problems = {str(row): text for row, text in index.problems.items()}
    parts = [json.dumps({**header, "problems": problems}).encode() + b"\n"]
    parts += [index.rows.tobytes(), ends.astype("<i8").tobytes(), letters]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    with replacing(path, sync=True) as unfinished, open(unfinished, "wb") as file:
        file.writelines([_MAGIC, b"%08x\n" % checksum, *parts])


def read_index(path: Path) -> Index:
    """The index in a file; an empty one, with a warning, where the file or its data is not what was written."""
    if not path.exists() and not path.is_symlink():
        return Index()
    try:
        if not path.is_file():
            raise ValueError("not a file")
        return _parse(path.read_bytes(), path)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        log.warning(f"{path}: damaged, or not of a cache ({error}); its pictures are decoded anew")
        return Index()


def _parse(content: bytes, path: Path) -> Index:
    """Raises whatever goes wrong with a content that was not written by `write_index`."""
    start = len(_MAGIC) + 9
    if content[:start] != _MAGIC + b"%08x\n" % zlib.crc32(memoryview(content)[start:]):
        raise ValueError("a checksum differs")
    rows_start = content.index(b"\n", start) + 1
    header = json.loads(content[start:rows_start])
    data, problems = header["data"], header["problems"]
    end, count, letters = (header[key] for key in ("end", "count", "letters"))
    if not isinstance(problems, dict):
        raise ValueError("problems of no rows")
    if not all(type(number) is int and number >= 0 for number in (end, count, letters)):
        raise ValueError("a negative number")
    if rows_start + count * (ROW.itemsize + 8) + letters != len(content):
        raise ValueError("other sizes than it says")
    rows = np.frombuffer(content, ROW, count, rows_start)
    ends = np.frombuffer(content, "<i8", count, rows_start + count * ROW.itemsize)
    names = Names.of_letters(content[len(content) - letters :], ends.astype(np.int64))
    if not re.fullmatch(rf"{re.escape(path.stem)}-[0-9a-f]{{8}}\.bin", data):
        raise ValueError("of another cache's data")
    status = path.with_name(data).lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size < end:
        raise ValueError("the data is not all there")
    sides = np.stack([rows["height"], rows["width"], rows["side"]])
    if (sides < 0).any() or (sides > _LARGEST).any() or (rows["offset"] < 0).any():
        raise ValueError("a picture of no size")
    if (rows["offset"] > end - lengths(rows)).any():
        raise ValueError("a picture beyond the data")
    told = {int(row): str(text) for row, text in problems.items()}
    without = np.flatnonzero(rows["height"] == 0)
    if set(without.tolist()) != told.keys() or (np.delete(sides.min(0), without) == 0).any():
        raise ValueError("a picture without pixels")
    return Index(data, end, names, rows, told)
