"""Images decoded once: uint8 at load size, in a file for each set of images, which is rebuilt when they change.

The file has the pixels of one image after another, and at its end a zip archive with the images' paths and entries. It
is written atomically and never changed, so a process that has it open keeps what it opened.

A view is what is made of each image before it is stored: "image", the image itself, or another of `VIEWS`.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, cannot_write, listed, reason
from gan_nst.core.files import atomic_write, remove_temporaries
from gan_nst.core.terminal import track
from gan_nst.core.threads import cpus
from gan_nst.data.domains import DataSettings, Folder
from gan_nst.data.smoothing import smooth_edges
from gan_nst.images.arrays import ImageArray, resize_image
from gan_nst.images.files import read_image

log = logging.getLogger(__name__)

VIEWS: Mapping[str, Callable[[ImageArray], ImageArray]] = {
    "image": lambda image: image,
    "smoothed": smooth_edges,
}

_FORMAT = 6
_LISTED = 10  # broken files named in an error
_PATIENCE = 1.0  # seconds to wait for the lock before saying so


class Entry(NamedTuple):
    """The known facts about an image file.

    size, time: in bytes and nanoseconds, when it was decoded; a change of either makes the entry stale. side: the
    shorter side before resizing. height, width: the decoded image's. offset, checksum: of its pixels in the cache.
    """

    size: int
    time: int
    side: int
    height: int
    width: int
    offset: int
    checksum: int


class Images:
    """A folder's images by their index: RGB uint8 of shape (h, w, 3).

    They are read from the cache; without one, and where it is damaged, they are decoded at each access. The cache is
    read, not mapped: mapped pages would count as this process's memory, and an error of the disk would kill it.
    """

    def __init__(
        self,
        folder: Folder,
        settings: DataSettings,
        view: str,
        entries: NDArray[np.int64],
        cache: Path | None,
    ) -> None:
        """entries: (n, 7), an `Entry` for each image; as an array they take the least memory in a loader process."""
        self._folder, self._settings, self._view, self._entries = folder, settings, view, entries
        self.cache = cache
        self._file: int | None = None
        self.warns = True  # about the first damaged image
        if cache is not None:
            with suppress(FileNotFoundError):  # removed before a loader process has opened it
                self._file = os.open(cache, os.O_RDONLY)
                weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> ImageArray:
        """Raises DataError when the image must be decoded and its file is not what it was when it was opened."""
        entry, file = Entry(*self._entries[index].tolist()), self.file(index)
        if self._file is not None:
            with suppress(OSError, ValueError, OverflowError, MemoryError):  # a false entry asks for anything
                pixels = os.pread(self._file, entry.height * entry.width * 3, entry.offset)
                if zlib.crc32(pixels) == entry.checksum:
                    return np.frombuffer(bytearray(pixels), np.uint8).reshape(entry.height, entry.width, 3)
            if self.warns:
                log.warning(
                    f"{self.cache}: damaged, or rebuilt by another run (found at {file}); such images are decoded at "
                    "every access; delete the file and resume to rebuild it"
                )
            self.warns = False
        try:
            return _decode(file, self._settings, self._view)[0]
        finally:  # that the file has changed matters more than why it cannot be decoded
            now = _stamp(file)
            if now != entry[:2]:
                raise DataError(
                    f"{file}: {'changed' if now[0] >= 0 else 'vanished'} since this training began; restore it and "
                    "resume, or start again (data.cache=auto or a folder keeps the images that were read)"
                )

    def file(self, index: int) -> Path:
        """The file that an image comes from."""
        return self._folder.root / self._folder.paths[index]

    def __reduce__(self) -> tuple[object, ...]:
        # A process that is not a fork of this one opens the cache itself.
        return Images, (self._folder, self._settings, self._view, self._entries, self.cache)


def open_images(
    folder: Folder, settings: DataSettings, what: str, view: str = "image"
) -> tuple[Images, Folder]:
    """A folder's images, each decoded once to see that it can be, and the folder without the unusable ones.

    what: names the set in progress bars and messages; each set has its own cache. Raises DataError with a list of
    the files that are broken or smaller than the crop, unless `skip_broken` skips them.
    """
    entries, problems = dict[str, Entry](), dict[str, str]()
    cache = None if settings.cache == "never" else _cache_file(folder, settings, what, view)
    if cache is not None:
        try:
            entries, problems = _update(cache, folder, settings, what, view)
        except OSError as error:
            line = cannot_write(cache.parent, error, "the cache cannot be written")
            if settings.cache != "auto":
                raise DataError(f"{line}, or use data.cache=never") from None
            log.warning(f"{line}; images are decoded at every access (data.cache=FOLDER uses another folder)")
            cache = None
    if cache is None:
        decoded = _decode_all(folder, folder.paths, settings, "image", f"checking {what}", problems)
        entries = {path: entry for path, entry, _ in decoded}
    if not settings.upscale or settings.resize == "none":
        remedy = "resize=short_side fits it" if settings.resize == "none" else "upscale=true enlarges it"
        problems |= {
            path: f"{folder.root / path}: {entry.side} pixels are smaller than data.crop_size={settings.crop_size} "
            f"(data.{remedy})"
            for path, entry in entries.items()
            if entry.side < settings.crop_size
        }
    lines = [problems[path] for path in folder.paths if path in problems]
    if lines and not settings.skip_broken:
        raise DataError(
            f"{what}: {len(lines)} of {len(folder.paths)} images cannot be used (data.skip_broken=true skips them): "
            f"{listed(lines, _LISTED, '; ')}"
        )
    for line in lines:
        log.warning(f"skipped: {line}")
    usable = folder.select(path not in problems for path in folder.paths)
    if not usable.paths:
        raise DataError(f"{what}: no usable images among {len(folder.paths)}")
    rows = np.array([entries[path] for path in usable.paths], np.int64)
    return Images(usable, settings, view, rows, cache), usable


def _cache_file(folder: Folder, settings: DataSettings, what: str, view: str) -> Path:
    """The cache of this set of images, decoded in this way."""
    key = json.dumps([_FORMAT, str(folder.root.absolute()), what, settings.load_size, settings.resize, view])
    cache = settings.root / ".cache" if settings.cache == "auto" else Path(settings.cache)
    return cache / (hashlib.sha256(key.encode()).hexdigest()[:16] + ".bin")


def _update(
    cache: Path, folder: Folder, settings: DataSettings, what: str, view: str
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Makes the cache hold every image of the folder that can be decoded; their entries, and why the others cannot be.

    Only new and changed images are decoded; the others are copied from the old file, including those that only a run
    with another held_out asks for. Ctrl-C while decoding keeps the images decoded so far. Raises OSError when the cache
    cannot be written, which then is as it was.
    """
    cache.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cache.with_suffix(".lock"))
    try:
        held = lock.acquire(timeout=_PATIENCE)
    except Timeout:
        log.info(f"{lock.lock_file}: waiting for another process that is preparing {what}")
        held = lock.acquire()
    with held:
        remove_temporaries(cache.parent, {cache.name})  # of a process that was killed
        cached = read_entries(cache)
        entries = {
            path: cached[path]
            for path in track(list(cached), f"looking through {what}")
            if _stamp(folder.root / path) == cached[path][:2]
        }
        problems: dict[str, str] = {}
        missing = [path for path in folder.paths if path not in entries]
        decoded = _decode_all(folder, missing, settings, view, f"decoding {what}", problems)
        first = next(decoded, None)
        if first is None:  # there is nothing to add
            return entries, problems
        if settings.cache == "auto":
            _check_space(cache.parent, len(entries) + len(missing), settings)
        rows = np.array(list(entries.values()), np.int64)
        old = Images(Folder(folder.root, tuple(entries)), settings, view, rows, cache if cached else None)
        old.warns = False  # a damaged image is decoded for the new file
        copied = ((path, entry, old[index]) for index, (path, entry) in enumerate(entries.items()))
        written: dict[str, Entry] = {}
        interrupt: KeyboardInterrupt | None = None
        with atomic_write(cache, sync=True) as unfinished, open(unfinished, "wb") as file:
            try:
                for path, entry, image in chain(copied, [first], decoded):
                    (height, width), pixels, offset = image.shape[:2], image.tobytes(), file.tell()
                    file.write(pixels)
                    written[path] = entry._replace(
                        height=height, width=width, offset=offset, checksum=zlib.crc32(pixels)
                    )
            except KeyboardInterrupt as error:
                if len(written) < len(entries):
                    raise  # the old file has more
                interrupt = error
            with zipfile.ZipFile(file, "w") as archive:  # "a" would search the pixels for an archive
                archive.writestr("paths", b"\0".join(map(os.fsencode, written)))
                archive.writestr("entries", np.array(list(written.values()), np.int64).tobytes())
        if interrupt is not None:
            raise interrupt
        return written, problems


def _check_space(folder: Path, count: int, settings: DataSettings) -> None:
    """Raises OSError when a cache of so many images would fill more than half of the free disk."""
    # An upper bound for images up to twice as long as wide; with "none", sizes are known only after decoding.
    side = settings.load_size if settings.resize != "none" else 1024
    if count * side * side * 2 * 3 > 0.5 * shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, f"not enough free disk to cache {count} images")


def read_entries(cache: Path) -> dict[str, Entry]:
    """The entries in a cache by the images' paths; none, with a warning, where it is not what was written."""
    if not cache.exists():
        return {}
    try:
        if not cache.is_file():  # a pipe would block
            raise ValueError("not a file")
        with zipfile.ZipFile(cache) as archive:
            paths = map(os.fsdecode, archive.read("paths").split(b"\0"))
            rows = np.frombuffer(archive.read("entries"), np.int64).reshape(-1, len(Entry._fields))
        if (rows[:, 2:5] < 1).any():
            raise ValueError("an image has no pixels")
        entries = (Entry(*row.tolist()) for row in rows)  # never all rows as Python's lists
        return dict(zip(paths, entries, strict=True))
    except Exception as error:  # a foreign file can make zipfile raise anything
        log.warning(f"{cache}: not a cache, or damaged ({reason(error)}); its images are decoded again")
        return {}


def _decode_all(
    folder: Folder,
    paths: Sequence[str],
    settings: DataSettings,
    view: str,
    what: str,
    problems: dict[str, str],
) -> Iterator[tuple[str, Entry, ImageArray]]:
    """Images with their paths and entries; `problems` gets why the others cannot be decoded. what: for the bar."""

    def decode(path: str) -> tuple[Entry, ImageArray] | str:
        file = folder.root / path
        size, time = _stamp(file)
        try:
            image, side = _decode(file, settings, view)
        except DataError as error:
            return str(error)
        return Entry(size, time, side, image.shape[0], image.shape[1], offset=0, checksum=0), image

    remaining = track(paths, what)
    with ThreadPoolExecutor(cpus()) as pool:
        while some := list(islice(remaining, 2 * cpus())):  # a few at a time: not all of them fit into memory
            for path, outcome in zip(some, pool.map(decode, some), strict=True):
                if isinstance(outcome, str):
                    problems[path] = outcome
                else:
                    yield path, *outcome


def _decode(file: Path, settings: DataSettings, view: str) -> tuple[ImageArray, int]:
    """A view of the image at load size, and the image's shorter side before resizing."""
    image = read_image(file)
    return VIEWS[view](resize_image(image, settings.load_size, settings.resize)), min(image.shape[:2])


def _stamp(file: Path) -> tuple[int, int]:
    """A file's size in bytes and its time in nanoseconds; -1 for both when there is no file."""
    try:
        status = file.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
