"""Pictures decoded once: uint8 at load size in one memory-mapped file, kept up to date with the files behind
it.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock

from gan_nst.data.folders import Folder
from gan_nst.data.settings import DataSettings
from gan_nst.errors import DataError
from gan_nst.images import Picture, read_picture, resize_picture
from gan_nst.progress import track

log = logging.getLogger(__name__)

_FORMAT = 1
_SHOWN = 10  # broken files named in an error


class Pictures(Protocol):
    """Training pictures by index: RGB uint8 of shape (h, w, 3), at load size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Picture: ...


@dataclass(frozen=True)
class Entry:
    """One file as it was when decoded: its size and time tell a change; `side` is its shorter side before
    resizing.
    """

    path: str
    bytes: int
    time: int
    side: int
    offset: int
    height: int
    width: int

    @property
    def length(self) -> int:
        return self.height * self.width * 3


class CachedPictures:
    """Pictures from the memory-mapped file; processes that read it share its memory."""

    def __init__(self, path: Path, entries: Sequence[Entry]) -> None:
        self._path = path
        self._places = np.array([(e.offset, e.height, e.width) for e in entries], np.int64).reshape(-1, 3)
        self._data = np.memmap(path, np.uint8, "r") if len(entries) else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Picture:
        offset, height, width = self._places[index].tolist()
        return np.array(self._data[offset : offset + height * width * 3]).reshape(height, width, 3)

    def __reduce__(self) -> tuple[object, ...]:  # a process that does not share memory maps the file itself
        return _reopen, (self._path, self._places)


class DecodedPictures:
    """Pictures decoded anew at each access, for data sets larger than the disk's free space."""

    def __init__(self, files: Sequence[Path], settings: DataSettings) -> None:
        self._files = list(files)
        self._settings = settings

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Picture:
        return _decode(self._files[index], self._settings)[0]


def open_pictures(folder: Folder, settings: DataSettings, what: str) -> tuple[Pictures, Folder]:
    """A folder's pictures, each opened once to see that it is whole, and the folder without the unusable
    ones.

    what: names the set in progress bars and messages. Raises DataError with a list of the files that are
    broken or smaller than the crop, unless `skip_broken` leaves them out.
    """
    files = folder.files
    where = _cache_folder(files, settings)
    if where is None:
        good, broken = _check(files, settings, what)
        pictures: Pictures = DecodedPictures(good, settings)
    else:
        pictures, good, broken = _update(where, files, settings, what)
    if broken and not settings.skip_broken:
        more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise DataError(
            f"{what}: {len(broken)} of {len(files)} pictures cannot be used (data.skip_broken=true leaves them out): "
            + "; ".join(broken[:_SHOWN])
            + more
        )
    for line in broken:
        log.warning(f"left out: {line}")
    if not good:
        raise DataError(f"{what}: no usable pictures among {len(files)}")
    return pictures, replace(folder, files=tuple(good))


def _cache_folder(files: Sequence[Path], settings: DataSettings) -> Path | None:
    """Where the cache goes, or None for no cache."""
    if settings.cache == "never":
        return None
    if settings.cache != "auto":
        return Path(settings.cache)
    # An upper bound for pictures up to twice as long as high; "none" keeps sizes that only decoding tells.
    side = settings.load_size if settings.resize != "none" else 1024
    needed = len(files) * side * side * 2 * 3
    folder = settings.root / ".cache"
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        log.warning(
            f"{folder}: not writable; pictures are decoded anew every time (data.cache=FOLDER caches elsewhere)"
        )
        return None
    if needed > 0.5 * shutil.disk_usage(existing).free:
        log.warning(
            f"{folder}: not enough free disk to cache {len(files)} pictures; they are decoded anew every time"
        )
        return None
    return folder


def _decode(file: Path, settings: DataSettings) -> tuple[Picture, int]:
    """The picture at load size, and its shorter side before."""
    picture = read_picture(file)
    return resize_picture(picture, settings.load_size, settings.resize), min(picture.shape[:2])


def _too_small(file: Path | str, side: int, settings: DataSettings) -> str | None:
    if side >= settings.crop_size or (settings.upscale and settings.resize != "none"):
        return None
    return f"{file}: {side} pixels are smaller than data.crop_size={settings.crop_size} (data.upscale=true enlarges it)"


def _check(files: Sequence[Path], settings: DataSettings, what: str) -> tuple[list[Path], list[str]]:
    good, broken = [], []
    for file in track(files, f"checking {what}"):
        try:
            problem = _too_small(file, _decode(file, settings)[1], settings)
        except DataError as error:
            problem = str(error)
        if problem is None:
            good.append(file)
        else:
            broken.append(problem)
    return good, broken


def _update(
    folder: Path, files: Sequence[Path], settings: DataSettings, what: str
) -> tuple[Pictures, list[Path], list[str]]:
    """Brings the cache of these files up to date: decodes the new and the changed, keeps the rest, drops the
    removed.
    """
    # A parent folder and the decoding settings name a cache; which files it holds may change.
    parent = os.path.commonpath([str(file.absolute().parent) for file in files])
    key = hashlib.sha256(
        json.dumps([_FORMAT, parent, settings.load_size, settings.resize]).encode()
    ).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            return _update_locked(folder / f"{key}.json", files, settings, what)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{folder}: the cache cannot be written: {reason}; free space, or use data.cache=never"
        ) from None


def _update_locked(
    index: Path, files: Sequence[Path], settings: DataSettings, what: str
) -> tuple[Pictures, list[Path], list[str]]:
    known = {entry.path: entry for entry in _read_index(index)}
    data_path, old_path = index.with_suffix(".bin"), index.with_suffix(".bin")
    if known and not (
        old_path.exists() and old_path.stat().st_size >= max(e.offset + e.length for e in known.values())
    ):
        known = {}
    wanted: list[Entry | None] = []
    for file in files:
        entry = known.get(str(file.absolute()))
        wanted.append(entry if entry is not None and _stamp(file) == (entry.bytes, entry.time) else None)
    broken: list[str] = []
    if any(entry is None for entry in wanted):
        wanted, broken = _build(index, files, wanted, known, settings, what)
    good, entries = [], []
    for file, entry in zip(files, wanted, strict=True):
        if entry is None:
            continue
        problem = _too_small(file, entry.side, settings)
        if problem is None:
            good.append(file)
            entries.append(entry)
        else:
            broken.append(problem)
    return CachedPictures(data_path, entries), good, broken


def _build(
    index: Path,
    files: Sequence[Path],
    wanted: Sequence[Entry | None],
    known: dict[str, Entry],
    settings: DataSettings,
    what: str,
) -> tuple[list[Entry | None], list[str]]:
    """Writes a new data file beside the old one and puts it in its place; other splits of the folder stay in
    it.
    """
    data_path = index.with_suffix(".bin")
    unfinished = index.with_suffix(".part")
    used = {str(file.absolute()) for file in files}
    others = [e for e in known.values() if e.path not in used and _stamp(Path(e.path)) == (e.bytes, e.time)]
    broken: list[str] = []
    built: list[Entry | None] = []
    with contextlib.ExitStack() as stack:
        stack.callback(unfinished.unlink, missing_ok=True)
        old = np.memmap(data_path, np.uint8, "r") if known else np.empty(0, np.uint8)
        output = stack.enter_context(open(unfinished, "wb"))

        def append(picture: Picture, stamp: tuple[int, int], path: str, side: int) -> Entry:
            offset = output.tell()
            output.write(picture.tobytes())
            return Entry(path, *stamp, side, offset, *picture.shape[:2])

        def copy(e: Entry) -> Entry:
            return append(
                old[e.offset : e.offset + e.length].reshape(e.height, e.width, 3),
                (e.bytes, e.time),
                e.path,
                e.side,
            )

        kept = [copy(entry) for entry in others]
        for file, entry in track(list(zip(files, wanted, strict=True)), f"decoding {what}"):
            if entry is not None:
                built.append(copy(entry))
                continue
            try:
                stamp = _stamp(file)
                picture, side = _decode(file, settings)
            except DataError as error:
                broken.append(str(error))
                built.append(None)
                continue
            built.append(append(picture, stamp, str(file.absolute()), side))
        output.flush()
        os.fsync(output.fileno())
        # The index is removed first: a crash between the renames leaves no index rather than a lying one.
        index.unlink(missing_ok=True)
        os.replace(unfinished, data_path)
        _write_index(index, [*kept, *(entry for entry in built if entry is not None)])
    return built, broken


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _read_index(path: Path) -> list[Entry]:
    try:
        return [Entry(*fields) for fields in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


def _write_index(path: Path, entries: Sequence[Entry]) -> None:
    unfinished = path.with_suffix(".json.part")
    fields = [(e.path, e.bytes, e.time, e.side, e.offset, e.height, e.width) for e in entries]
    unfinished.write_text(json.dumps(fields))
    os.replace(unfinished, path)


def _reopen(path: Path, places: np.ndarray) -> CachedPictures:
    return CachedPictures(path, [Entry("", 0, 0, 0, *place) for place in places.tolist()])
