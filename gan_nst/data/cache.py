"""Pictures decoded once: uint8 at load size in one memory-mapped file, kept up to date with the files behind
it.

A view is what is made of each picture before it is kept: "picture", the picture itself, or another of `VIEWS`.
"""

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
from filelock import FileLock

from gan_nst.data.folders import Folder
from gan_nst.data.pictures import CachedPictures, Entry, Pictures
from gan_nst.data.settings import DataSettings
from gan_nst.data.smoothing import smooth_edges
from gan_nst.errors import DataError, reason
from gan_nst.images import Picture, read_picture, resize_picture
from gan_nst.progress import track

log = logging.getLogger(__name__)

VIEWS: Mapping[str, Callable[[Picture], Picture]] = {
    "picture": lambda picture: picture,
    "smoothed": smooth_edges,
}

_FORMAT = 3
_SHOWN = 10  # broken files named in an error


class DecodedPictures:
    """Pictures decoded anew at each access, for data sets larger than the disk's free space."""

    def __init__(self, files: Sequence[Path], settings: DataSettings, view: str) -> None:
        self._files = list(files)
        self._settings = settings
        self._view = view

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Picture:
        return _decode(self._files[index], self._settings, self._view)[0]


def open_pictures(
    folder: Folder, settings: DataSettings, what: str, view: str = "picture"
) -> tuple[Pictures, Folder]:
    """A folder's pictures, each opened once to see that it is whole, and the folder without the unusable
    ones.

    what: names the set in progress bars and messages. Raises DataError with a list of the files that are
    broken or smaller than the crop, unless `skip_broken` leaves them out.
    """
    files = folder.files
    where = _cache_folder(files, settings, view)
    if where is None:
        good, broken = _check(files, settings, what)
        pictures: Pictures = DecodedPictures(good, settings, view)
    else:
        pictures, good, broken = _update(where, files, settings, what, view)
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


def _cache_folder(files: Sequence[Path], settings: DataSettings, view: str) -> Path | None:
    """Where the cache goes, or None for no cache."""
    if settings.cache == "never":
        return None
    if settings.cache != "auto":
        return Path(settings.cache)
    # An upper bound for pictures up to twice as long as high; "none" keeps sizes that only decoding tells.
    side = settings.load_size if settings.resize != "none" else 1024
    needed = len(files) * side * side * 2 * 3
    folder = settings.root / ".cache"
    if _index_path(folder, files, settings, view).exists():  # what lies there already takes no new room
        return folder
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


def _decode(file: Path, settings: DataSettings, view: str) -> tuple[Picture, int]:
    """A view of the picture at load size, and its shorter side before."""
    picture = read_picture(file)
    return VIEWS[view](resize_picture(picture, settings.load_size, settings.resize)), min(picture.shape[:2])


def _too_small(file: Path | str, side: int, settings: DataSettings) -> str | None:
    if side >= settings.crop_size or (settings.upscale and settings.resize != "none"):
        return None
    way = "data.upscale=true enlarges it" if settings.resize != "none" else "data.resize=short_side fits it"
    return f"{file}: {side} pixels are smaller than data.crop_size={settings.crop_size} ({way})"


def _check(files: Sequence[Path], settings: DataSettings, what: str) -> tuple[list[Path], list[str]]:
    good, broken = [], []
    for file in track(files, f"checking {what}"):
        try:
            problem = _too_small(file, _decode(file, settings, "picture")[1], settings)
        except DataError as error:
            problem = str(error)
        if problem is None:
            good.append(file)
        else:
            broken.append(problem)
    return good, broken


def _update(
    folder: Path, files: Sequence[Path], settings: DataSettings, what: str, view: str
) -> tuple[Pictures, list[Path], list[str]]:
    """Brings the cache of these files up to date: decodes the new and the changed, keeps the rest, drops the
    removed.
    """
    index = _index_path(folder, files, settings, view)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(index.with_suffix(".lock")):
            return _update_locked(index, files, settings, what, view)
    except OSError as error:
        raise DataError(
            f"{folder}: the cache cannot be written: {reason(error)}; free space, or use data.cache=never"
        ) from None


def _index_path(folder: Path, files: Sequence[Path], settings: DataSettings, view: str) -> Path:
    """A parent folder and the decoding settings name a cache; which files it holds may change."""
    parent = os.path.commonpath([str(file.absolute().parent) for file in files])
    name = json.dumps([_FORMAT, parent, settings.load_size, settings.resize, view])
    return folder / (hashlib.sha256(name.encode()).hexdigest()[:16] + ".json")


def _update_locked(
    index: Path, files: Sequence[Path], settings: DataSettings, what: str, view: str
) -> tuple[Pictures, list[Path], list[str]]:
    data, known = _read_index(index)
    current = [_unchanged(known.get(str(file.absolute())), file) for file in files]
    current = [None if _is_mended(entry, settings) else entry for entry in current]
    if None in current:
        data, current = _build(
            index, data, known, list(zip(files, current, strict=True)), settings, what, view
        )
    good, entries, unusable = [], [], []
    for file, entry in zip(files, current, strict=True):
        assert entry is not None
        problem = entry.problem or _too_small(file, entry.side, settings)
        if problem is None:
            good.append(file)
            entries.append(entry)
        else:
            unusable.append(problem)
    return CachedPictures(data, entries), good, unusable


def _build(
    index: Path,
    old_data: Path,
    known: dict[str, Entry],
    wanted: Sequence[tuple[Path, Entry | None]],
    settings: DataSettings,
    what: str,
    view: str,
) -> tuple[Path, list[Entry | None]]:
    """Writes a data file of its own name, copying what is known and decoding the rest, then points the index to it.

    Whoever has the old file open keeps reading the old pictures from it. Other splits of the folder are kept.
    """
    data = index.with_name(f"{index.stem}-{secrets.token_hex(4)}.bin")
    names = {str(file.absolute()) for file, _ in wanted}
    others = [e for e in known.values() if e.path not in names and _unchanged(e, Path(e.path))]
    old = (
        np.memmap(old_data, np.uint8, "r") if any(e.length for e in known.values()) else np.empty(0, np.uint8)
    )
    try:
        with open(data, "wb") as output:

            def copy(entry: Entry) -> Entry:
                offset = output.tell()
                output.write(old[entry.offset : entry.offset + entry.length].tobytes())
                return replace(entry, offset=offset)

            def decode(file: Path) -> Entry:
                path, stamp, offset = str(file.absolute()), _stamp(file), output.tell()
                try:
                    picture, side = _decode(file, settings, view)
                except DataError as error:
                    return Entry(path, *stamp, 0, offset, 0, 0, str(error))
                output.write(picture.tobytes())
                return Entry(path, *stamp, side, offset, *picture.shape[:2])

            kept = [copy(entry) for entry in others]
            built = [
                copy(entry) if entry is not None else decode(file)
                for file, entry in track(wanted, f"decoding {what}")
            ]
            output.flush()
            os.fsync(output.fileno())
        _write_index(index, data, [*kept, *built])
    except BaseException:
        data.unlink(missing_ok=True)
        raise
    for other in index.parent.glob(f"{index.stem}-*.bin"):
        if other != data:
            other.unlink(missing_ok=True)
    return data, list(built)


def _is_mended(entry: Entry | None, settings: DataSettings) -> bool:
    """Whether a file that could not be read can be now, without having changed: its permissions were set, say."""
    if entry is None or entry.problem is None:
        return False
    try:
        _decode(Path(entry.path), settings, "picture")
    except DataError:
        return False
    return True


def _unchanged(entry: Entry | None, file: Path) -> Entry | None:
    """The entry, when the file is still as it was decoded."""
    return entry if entry is not None and _stamp(file) == (entry.bytes, entry.time) else None


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _read_index(path: Path) -> tuple[Path, dict[str, Entry]]:
    """The data file and the entries by path; no entries when there is no index, or the data is not what it says."""
    try:
        content = json.loads(path.read_text())
        data = path.with_name(Path(content["data"]).name)
        entries = [Entry(*fields) for fields in content["entries"]]
        size = data.stat().st_size
        if all(entry.lies_in(size) for entry in entries):
            return data, {entry.path: entry for entry in entries}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return path, {}


def _write_index(path: Path, data: Path, entries: Sequence[Entry]) -> None:
    unfinished = path.with_suffix(".json.part")
    try:
        unfinished.write_text(
            json.dumps({"data": data.name, "entries": [astuple(entry) for entry in entries]})
        )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
