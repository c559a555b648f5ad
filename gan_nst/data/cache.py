"""Images decoded once: uint8 at load size in one file, kept up to date with the files behind it.

A view is what is made of each image before it is kept: "image", the image itself, or another of `VIEWS`.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, cannot_write
from gan_nst.core.files import atomic_write, remove_temporaries
from gan_nst.core.terminal import track
from gan_nst.data.domains import DataSettings, Files, Folder, Names
from gan_nst.data.smoothing import smooth_edges
from gan_nst.images.arrays import ImageArray, resize_image
from gan_nst.images.files import read_image

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
    with atomic_write(path, sync=True) as unfinished, open(unfinished, "wb") as file:
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
        log.warning(f"{path}: damaged, or not of a cache ({error}); its images are decoded anew")
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
        raise ValueError("an image of no size")
    if (rows["offset"] > end - lengths(rows)).any():
        raise ValueError("an image beyond the data")
    told = {int(row): str(text) for row, text in problems.items()}
    without = np.flatnonzero(rows["height"] == 0)
    if set(without.tolist()) != told.keys() or (np.delete(sides.min(0), without) == 0).any():
        raise ValueError("an image without pixels")
    return Index(data, end, names, rows, told)


class Images(Protocol):
    """Training images by index: RGB uint8 of shape (h, w, 3), at load size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImageArray: ...

    def file(self, index: int) -> Path:
        """The file that an image was read from."""


class CachedImages:
    """Images from the file that holds them decoded; processes that read it share its memory, which is the system's.

    It is read, not mapped: a file cut short under a mapping kills its reader. An image whose checksum differs from the
    one it was written with is decoded anew.

    rows: (n,) of `index.ROW`. decoded: the same images from the files they are of.
    """

    def __init__(self, path: Path, rows: NDArray[Any], decoded: Images) -> None:
        self._path, self._rows, self._decoded = path, rows, decoded
        self._warned = False
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> ImageArray:
        row = self._rows[index]
        content = _read(self._file, int(lengths(row)), int(row["offset"]))
        if zlib.crc32(content) != row["checksum"]:
            if not self._warned:
                log.warning(
                    f"{self._path}: damaged, the image of {self.file(index)} first; what is damaged is decoded anew "
                    "every time; delete the file and resume to have it written anew"
                )
            self._warned = True
            return self._decoded[index]
        return np.frombuffer(content, np.uint8).reshape(row["height"], row["width"], 3)

    def file(self, index: int) -> Path:
        """The file that an image was read from."""
        return self._decoded.file(index)

    def __reduce__(self) -> tuple[object, ...]:  # a process that is no fork of this one opens the file itself
        return _reopen, (self._path, self._rows, self._decoded)


def _reopen(path: Path, rows: NDArray[Any], decoded: Images) -> CachedImages:
    try:
        return CachedImages(path, rows, decoded)
    except FileNotFoundError:
        raise DataError(f"{path}: the cache was begun anew by another run; start again") from None


def _read(file: int, length: int, offset: int) -> bytearray:
    """So many bytes from there on; fewer where the file is shorter or cannot be read."""
    content = bytearray(length)
    view, done = memoryview(content), 0
    try:
        while done < length and (count := os.preadv(file, [view[done:]], offset + done)):
            done += count
    except OSError:
        pass
    view.release()
    del content[done:]
    return content


Decode = Callable[[Path], tuple[ImageArray, int]]
"""A file's image as it is kept, and its shorter side before."""

_KEPT_EVERY = 60.0  # seconds of decoding after which what has been decoded stays, whatever ends the process
_PATIENCE = 1.0  # seconds to wait for the lock without a word


def bring_up_to_date(path: Path, files: Files, decode: Decode, what: str) -> tuple[Index, Path]:
    """What is known of the files, a row for each, and the file with their pixels, which holds all of them.

    path: of the index. The new and the changed are decoded, into the file that holds the others: who reads it goes on
    reading what it read. It is begun anew where less than half of it would be in use. Other files of the folder that
    are as they were, of another split, are kept. Raises OSError when the cache cannot be written, which then is as it
    was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock"), what):
        index = read_index(path)
        _sweep(path, index)
        rows, current = _find(index, files, decode, what)
        if not current.all():
            index, rows = _build(path, index, files, rows, current, decode, what)
        return index.select(rows), path.with_name(index.data)


@contextlib.contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        log.info(f"{path}: waiting for another process, which prepares {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sweep(path: Path, index: Index) -> None:
    """Removes what a process that was killed has left."""
    remove_temporaries(path.parent, {path.name})
    for data in path.parent.glob(f"{path.stem}-*.bin"):
        if data.name != index.data:
            data.unlink(missing_ok=True)
    if index.data:
        os.truncate(path.with_name(index.data), index.end)


def _find(
    index: Index, files: Files, decode: Decode, what: str
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The row of each file in the index (n,), and whether it still tells how the file is."""
    found = index.names.find(files.names)
    if not len(index.rows):
        return found, np.zeros(len(files), bool)
    looking = track(files, f"looking through {what}")
    stamps = np.fromiter(map(stamp, looking), np.dtype((np.int64, 2)), len(files))
    rows = index.rows[found]
    current = (found >= 0) & (rows["bytes"] == stamps[:, 0]) & (rows["time"] == stamps[:, 1])
    for number in np.flatnonzero(current & (rows["height"] == 0)).tolist():
        with contextlib.suppress(DataError):
            decode(files[number])
            current[number] = False  # mended without a change: its permissions were set, say
    return found, current


def _build(
    path: Path,
    index: Index,
    files: Files,
    found: NDArray[np.int64],
    current: NDArray[np.bool_],
    decode: Decode,
    what: str,
) -> tuple[Index, NDArray[np.int64]]:
    """The index with the files that are not current in it, and the row of each file."""
    others = np.setdiff1d(np.arange(len(index.names)), found)
    stamps = (stamp(files.root / index.names[row]) for row in others)
    same = [
        seen == tuple(index.rows[row][["bytes", "time"]]) for row, seen in zip(others, stamps, strict=True)
    ]
    others = others[np.array(same, bool)]
    kept = np.concatenate([others, found[current]])
    start = index.select(kept)
    if not index.data or 2 * lengths(start.rows).sum() < index.end:
        others, current = others[:0], np.zeros(len(files), bool)
        start = Index(f"{path.stem}-{secrets.token_hex(4)}.bin")
    missing = np.flatnonzero(~current)
    try:
        built = _decode_all(path, start, files.select(missing), decode, what)
    except OSError:
        _give_up(path, start.data, index)
        raise
    _sweep(path, built)
    rows = np.empty(len(files), np.int64)
    rows[current] = len(others) + np.arange(current.sum())
    rows[missing] = len(start.names) + np.arange(len(missing))
    return built, rows


def _decode_all(path: Path, start: Index, files: Files, decode: Decode, what: str) -> Index:
    """An index with files added to those it starts from; in the end, or when it is interrupted, it is written."""
    end, done = start.end, len(start.names)
    names = Names(chain(start.names, files.names))
    rows, problems = np.concatenate([start.rows, np.zeros(len(files), ROW)]), dict(start.problems)
    output = os.open(path.with_name(start.data), os.O_RDWR | os.O_CREAT, 0o666)

    def keep() -> Index:
        os.fsync(output)
        index = Index(start.data, end, names, rows, problems).select(np.arange(done))
        write_index(path, index)
        return index

    kept = time.monotonic()
    try:
        for file in track(files, f"decoding {what}"):
            seen = stamp(file)  # before it is read: what changes meanwhile has changed the next time
            try:
                image, side = decode(file)
            except DataError as error:
                rows[done], problems[done] = (*seen, end, 0, 0, 0, 0), str(error)
            else:
                content = image.tobytes()
                _write(output, content, end)
                rows[done] = (*seen, end, zlib.crc32(content), side, *image.shape[:2])
                end += len(content)
            done += 1
            if time.monotonic() - kept > _KEPT_EVERY:
                keep()
                kept = time.monotonic()
    except KeyboardInterrupt:
        keep()
        raise
    else:
        return keep()
    finally:
        os.close(output)


def _write(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count


def _give_up(path: Path, data: str, before: Index) -> None:
    """Gives back the room that was taken: the cache is as it was before, or is none."""
    with contextlib.suppress(OSError):
        if data != before.data:
            path.with_name(data).unlink(missing_ok=True)
        if before.data:
            os.truncate(path.with_name(before.data), before.end)
            write_index(path, before)
        else:
            path.unlink(missing_ok=True)


VIEWS: Mapping[str, Callable[[ImageArray], ImageArray]] = {
    "image": lambda image: image,
    "smoothed": smooth_edges,
}

_FORMAT = 4
_SHOWN = 10  # broken files named in an error


class DecodedImages:
    """Images decoded anew at each access, for data sets larger than the disk's free space.

    rows: (n,) of `index.ROW`; taking an image raises DataError when its file is no longer what it was then.
    """

    def __init__(self, files: Files, settings: DataSettings, view: str, rows: NDArray[Any]) -> None:
        self._files, self._settings, self._view = files, settings, view
        self._stamps = np.stack([rows["bytes"], rows["time"]], 1)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> ImageArray:
        file = self._files[index]
        try:
            image = _decode(file, self._settings, self._view)[0]
        finally:  # whatever comes of a file that is another one
            now = stamp(file)
            if now != tuple(self._stamps[index]):
                raise DataError(
                    f"{file}: {'changed' if now[0] >= 0 else 'vanished'} since this training began; put it back and "
                    "resume, or start anew (with data.cache=auto or a folder, a training keeps what it has read)"
                )
        return image

    def file(self, index: int) -> Path:
        """The file that an image is read from."""
        return self._files[index]


def open_images(
    folder: Folder, settings: DataSettings, what: str, view: str = "image"
) -> tuple[Images, Folder]:
    """A folder's images, each opened once to see that it is whole, and the folder without the unusable
    ones.

    what: names the set in progress bars and messages. Raises DataError with a list of the files that are
    broken or smaller than the crop, unless `skip_broken` leaves them out.
    """
    index, data = _opened(folder, settings, what, view)
    broken = _unusable(folder.files, index, settings)
    if broken and not settings.skip_broken:
        lines = list(broken.values())
        more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise DataError(
            f"{what}: {len(broken)} of {len(index.names)} images cannot be used (data.skip_broken=true leaves them "
            f"out): {'; '.join(lines[:_SHOWN])}{more}"
        )
    for line in broken.values():
        log.warning(f"left out: {line}")
    good = np.setdiff1d(np.arange(len(index.names)), list(broken))
    if not len(good):
        raise DataError(f"{what}: no usable images among {len(index.names)}")
    files, rows = folder.files.select(good), index.rows[good]
    images: Images = DecodedImages(files, settings, view, rows)
    if data is not None:
        images = CachedImages(data, rows, images)
    return images, replace(folder, files=files)


def _opened(folder: Folder, settings: DataSettings, what: str, view: str) -> tuple[Index, Path | None]:
    """What is known of a folder's images, a row for each, and the file that has their pixels, if there is one."""
    where = _cache_folder(folder, settings, view)
    if where is None:
        return _check(folder.files, settings, what), None
    path = _index_path(where, folder, settings, view)
    try:
        return bring_up_to_date(path, folder.files, lambda file: _decode(file, settings, view), what)
    except OSError as error:
        told = cannot_write(where, error, "the cache cannot be written")
        if settings.cache != "auto":
            raise DataError(f"{told}, or use data.cache=never") from None
        log.warning(f"{told}; images are decoded anew every time (data.cache=FOLDER caches elsewhere)")
        return _check(folder.files, settings, what), None


def _cache_folder(of: Folder, settings: DataSettings, view: str) -> Path | None:
    """Where the cache goes, or None for no cache."""
    if settings.cache == "never":
        return None
    if settings.cache != "auto":
        return Path(settings.cache)
    # An upper bound for images up to twice as long as high; "none" keeps sizes that only decoding tells.
    side = settings.load_size if settings.resize != "none" else 1024
    needed = len(of.files) * side * side * 2 * 3
    folder = settings.root / ".cache"
    if _index_path(folder, of, settings, view).exists():  # what lies there already takes no new room
        return folder
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        log.warning(
            f"{folder}: not writable; images are decoded anew every time (data.cache=FOLDER caches elsewhere)"
        )
        return None
    if needed > 0.5 * shutil.disk_usage(existing).free:
        log.warning(
            f"{folder}: not enough free disk to cache {len(of.files)} images; they are decoded anew every time"
        )
        return None
    return folder


def _index_path(where: Path, of: Folder, settings: DataSettings, view: str) -> Path:
    """The folder and the decoding settings name a cache; which files it holds may change."""
    name = json.dumps([_FORMAT, str(of.root.absolute()), settings.load_size, settings.resize, view])
    return where / (hashlib.sha256(name.encode()).hexdigest()[:16] + ".index")


def _decode(file: Path, settings: DataSettings, view: str) -> tuple[ImageArray, int]:
    """A view of the image at load size, and its shorter side before."""
    image = read_image(file)
    return VIEWS[view](resize_image(image, settings.load_size, settings.resize)), min(image.shape[:2])


def _check(files: Files, settings: DataSettings, what: str) -> Index:
    """What decoding each file once tells of it."""
    index = Index(names=files.names, rows=np.zeros(len(files), ROW))
    for number, file in enumerate(track(files, f"checking {what}")):
        index.rows[number]["bytes"], index.rows[number]["time"] = stamp(file)
        try:
            index.rows[number]["side"] = _decode(file, settings, "image")[1]
        except DataError as error:
            index.problems[number] = str(error)
    return index


def _unusable(files: Files, index: Index, settings: DataSettings) -> dict[int, str]:
    """By the number of its file, why an image cannot be used, in their order."""
    found = dict(index.problems)
    if not settings.upscale or settings.resize == "none":
        way = (
            "data.upscale=true enlarges it" if settings.resize != "none" else "data.resize=short_side fits it"
        )
        for number in np.flatnonzero(index.rows["side"] < settings.crop_size).tolist():
            side = index.rows["side"][number]
            found.setdefault(
                number,
                f"{files[number]}: {side} pixels are smaller than data.crop_size={settings.crop_size} ({way})",
            )
    return dict(sorted(found.items()))
