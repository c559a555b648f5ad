"""Pictures decoded once: uint8 at load size in one file, kept up to date with the files behind it.

A view is what is made of each picture before it is kept: "picture", the picture itself, or another of `VIEWS`.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, unwritten
from gan_nst.core.progress import track
from gan_nst.data.building import bring_up_to_date
from gan_nst.data.domains import Folder
from gan_nst.data.files import Files
from gan_nst.data.index import ROW, Index, stamp
from gan_nst.data.pictures import CachedPictures, Pictures
from gan_nst.data.settings import DataSettings
from gan_nst.data.smoothing import smooth_edges
from gan_nst.images.files import Picture, read_picture, resize_picture

log = logging.getLogger(__name__)

VIEWS: Mapping[str, Callable[[Picture], Picture]] = {
    "picture": lambda picture: picture,
    "smoothed": smooth_edges,
}

_FORMAT = 4
_SHOWN = 10  # broken files named in an error


class DecodedPictures:
    """Pictures decoded anew at each access, for data sets larger than the disk's free space.

    rows: (n,) of `index.ROW`; taking a picture raises DataError when its file is no longer what it was then.
    """

    def __init__(self, files: Files, settings: DataSettings, view: str, rows: NDArray[Any]) -> None:
        self._files, self._settings, self._view = files, settings, view
        self._stamps = np.stack([rows["bytes"], rows["time"]], 1)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Picture:
        file = self._files[index]
        try:
            picture = _decode(file, self._settings, self._view)[0]
        finally:  # whatever comes of a file that is another one
            now = stamp(file)
            if now != tuple(self._stamps[index]):
                raise DataError(
                    f"{file}: {'changed' if now[0] >= 0 else 'vanished'} since this training began; put it back and "
                    "resume, or start anew (with data.cache=auto or a folder, a training keeps what it has read)"
                )
        return picture

    def file(self, index: int) -> Path:
        """The file that a picture is read from."""
        return self._files[index]


def open_pictures(
    folder: Folder, settings: DataSettings, what: str, view: str = "picture"
) -> tuple[Pictures, Folder]:
    """A folder's pictures, each opened once to see that it is whole, and the folder without the unusable
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
            f"{what}: {len(broken)} of {len(index.names)} pictures cannot be used (data.skip_broken=true leaves them "
            f"out): {'; '.join(lines[:_SHOWN])}{more}"
        )
    for line in broken.values():
        log.warning(f"left out: {line}")
    good = np.setdiff1d(np.arange(len(index.names)), list(broken))
    if not len(good):
        raise DataError(f"{what}: no usable pictures among {len(index.names)}")
    files, rows = folder.files.select(good), index.rows[good]
    pictures: Pictures = DecodedPictures(files, settings, view, rows)
    if data is not None:
        pictures = CachedPictures(data, rows, pictures)
    return pictures, replace(folder, files=files)


def _opened(folder: Folder, settings: DataSettings, what: str, view: str) -> tuple[Index, Path | None]:
    """What is known of a folder's pictures, a row for each, and the file that has their pixels, if there is one."""
    where = _cache_folder(folder, settings, view)
    if where is None:
        return _check(folder.files, settings, what), None
    path = _index_path(where, folder, settings, view)
    try:
        return bring_up_to_date(path, folder.files, lambda file: _decode(file, settings, view), what)
    except OSError as error:
        told = unwritten(where, error, "the cache cannot be written")
        if settings.cache != "auto":
            raise DataError(f"{told}, or use data.cache=never") from None
        log.warning(f"{told}; pictures are decoded anew every time (data.cache=FOLDER caches elsewhere)")
        return _check(folder.files, settings, what), None


def _cache_folder(of: Folder, settings: DataSettings, view: str) -> Path | None:
    """Where the cache goes, or None for no cache."""
    if settings.cache == "never":
        return None
    if settings.cache != "auto":
        return Path(settings.cache)
    # An upper bound for pictures up to twice as long as high; "none" keeps sizes that only decoding tells.
    side = settings.load_size if settings.resize != "none" else 1024
    needed = len(of.files) * side * side * 2 * 3
    folder = settings.root / ".cache"
    if _index_path(folder, of, settings, view).exists():  # what lies there already takes no new room
        return folder
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        log.warning(
            f"{folder}: not writable; pictures are decoded anew every time (data.cache=FOLDER caches elsewhere)"
        )
        return None
    if needed > 0.5 * shutil.disk_usage(existing).free:
        log.warning(
            f"{folder}: not enough free disk to cache {len(of.files)} pictures; they are decoded anew every time"
        )
        return None
    return folder


def _index_path(where: Path, of: Folder, settings: DataSettings, view: str) -> Path:
    """The folder and the decoding settings name a cache; which files it holds may change."""
    name = json.dumps([_FORMAT, str(of.root.absolute()), settings.load_size, settings.resize, view])
    return where / (hashlib.sha256(name.encode()).hexdigest()[:16] + ".index")


def _decode(file: Path, settings: DataSettings, view: str) -> tuple[Picture, int]:
    """A view of the picture at load size, and its shorter side before."""
    picture = read_picture(file)
    return VIEWS[view](resize_picture(picture, settings.load_size, settings.resize)), min(picture.shape[:2])


def _check(files: Files, settings: DataSettings, what: str) -> Index:
    """What decoding each file once tells of it."""
    index = Index(names=files.names, rows=np.zeros(len(files), ROW))
    for number, file in enumerate(track(files, f"checking {what}")):
        index.rows[number]["bytes"], index.rows[number]["time"] = stamp(file)
        try:
            index.rows[number]["side"] = _decode(file, settings, "picture")[1]
        except DataError as error:
            index.problems[number] = str(error)
    return index


def _unusable(files: Files, index: Index, settings: DataSettings) -> dict[int, str]:
    """By the number of its file, why a picture cannot be used, in their order."""
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
