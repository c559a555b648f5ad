"""Images decoded once: uint8 at load size in one file, with a manifest that follows the image files.

A view is what is made of each image before it is stored: "image", the image itself, or another of `VIEWS`.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

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

_FORMAT = 5
_LISTED = 10  # broken files named in an error
_PATIENCE = 1.0  # seconds to wait for the lock before saying so


class Images(Protocol):
    """Images by their index: RGB uint8 of shape (h, w, 3)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> ImageArray: ...

    def file(self, index: int) -> Path:
        """The file that an image comes from."""


class Entry(NamedTuple):
    """What is known of an image file.

    size, time: in bytes and nanoseconds, when it was decoded; a change of either makes the entry stale. side: the
    shorter side before resizing. height, width: the decoded image's. offset, checksum: of its pixels in the data file.
    """

    size: int
    time: int
    side: int
    height: int
    width: int
    offset: int
    checksum: int

    @property
    def length(self) -> int:
        """Bytes of the pixels."""
        return self.height * self.width * 3


@dataclass(frozen=True)
class Manifest:
    """data: name of the file with the pixels, in the same folder; used up to byte `end`. entries: by the image's path
    below its root.
    """

    data: str = ""
    end: int = 0
    entries: Mapping[str, Entry] = field(default_factory=dict)


class DecodedImages:
    """Images decoded at each access, for data sets larger than the disk's free space."""

    def __init__(self, folder: Folder, settings: DataSettings, view: str, entries: NDArray[np.int64]) -> None:
        """entries: (n, 7), an `Entry` for each image; as an array they take the least memory in a loader process."""
        self._folder, self._settings, self._view, self._entries = folder, settings, view, entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> ImageArray:
        """Raises DataError when the file is not what it was when it was opened."""
        file = self.file(index)
        try:
            image = _decode(file, self._settings, self._view)[0]
        finally:  # that the file has changed matters more than why it cannot be decoded
            now = _stamp(file)
            if now != tuple(self._entries[index, :2]):
                raise DataError(
                    f"{file}: {'changed' if now[0] >= 0 else 'vanished'} since this training began; restore it and "
                    "resume, or start again (data.cache=auto or a folder keeps the images that were read)"
                )
        return image

    def file(self, index: int) -> Path:
        return self._folder.root / self._folder.paths[index]


class CachedImages:
    """Images whose pixels are in a data file; a damaged one is decoded instead.

    The file is read, not mapped: mapped pages would count as this process's memory, and an error of the disk would
    kill it.
    """

    def __init__(self, data: Path, entries: NDArray[np.int64], decoded: DecodedImages) -> None:
        self._data, self._entries, self._decoded = data, entries, decoded
        self._file = os.open(data, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._warned = False

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> ImageArray:
        entry = Entry(*self._entries[index].tolist())
        try:
            pixels = os.pread(self._file, entry.length, entry.offset)
        except OSError:
            pixels = b""
        if len(pixels) == entry.length and zlib.crc32(pixels) == entry.checksum:
            return np.frombuffer(bytearray(pixels), np.uint8).reshape(entry.height, entry.width, 3)
        if not self._warned:
            log.warning(
                f"{self._data}: damaged (found at {self.file(index)}); damaged images are decoded at every access; "
                "delete the file and resume to rebuild it"
            )
        self._warned = True
        return self._decoded[index]

    def file(self, index: int) -> Path:
        return self._decoded.file(index)

    def __reduce__(self) -> tuple[object, ...]:
        # A process that is not a fork of this one opens the file itself.
        return _reopen, (self._data, self._entries, self._decoded)


def _reopen(data: Path, entries: NDArray[np.int64], decoded: DecodedImages) -> CachedImages:
    try:
        return CachedImages(data, entries, decoded)
    except FileNotFoundError:
        raise DataError(f"{data}: the cache was rebuilt by another run; start again") from None


def open_images(
    folder: Folder, settings: DataSettings, what: str, view: str = "image"
) -> tuple[Images, Folder]:
    """A folder's images, each decoded once to see that it can be, and the folder without the unusable ones.

    what: names the set in progress bars and messages. Raises DataError with a list of the files that are broken or
    smaller than the crop, unless `skip_broken` skips them.
    """
    manifest, problems, cache = _open(folder, settings, what, view)
    problems |= {
        path: _too_small(folder.root / path, entry.side, settings)
        for path in folder.paths
        if (entry := manifest.entries.get(path)) is not None and _is_too_small(entry.side, settings)
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
    entries = np.array([manifest.entries[path] for path in usable.paths], np.int64)
    images = DecodedImages(usable, settings, view, entries)
    return images if cache is None else CachedImages(cache / manifest.data, entries, images), usable


def _open(
    folder: Folder, settings: DataSettings, what: str, view: str
) -> tuple[Manifest, dict[str, str], Path | None]:
    """The entries of the images that can be decoded, why the others cannot, and the folder of the cache, if any."""
    cache = _cache_folder(folder, settings, view)
    if cache is not None:
        try:
            path = _manifest_path(cache, folder, settings, view)
            return *_update(path, folder, partial(_decode_all, folder, settings, view), what), cache
        except OSError as error:
            line = cannot_write(cache, error, "the cache cannot be written")
            if settings.cache != "auto":
                raise DataError(f"{line}, or use data.cache=never") from None
            log.warning(f"{line}; images are decoded at every access (data.cache=FOLDER caches elsewhere)")
    entries, problems = dict[str, Entry](), dict[str, str]()
    for name, outcome in _decode_all(folder, settings, "image", folder.paths, f"checking {what}"):
        if isinstance(outcome, str):
            problems[name] = outcome
        else:
            entries[name] = outcome[0]
    return Manifest(entries=entries), problems, None


def _cache_folder(folder: Folder, settings: DataSettings, view: str) -> Path | None:
    """Where the cache goes, or None for no cache."""
    if settings.cache == "never":
        return None
    if settings.cache != "auto":
        return Path(settings.cache)
    cache = settings.root / ".cache"
    if _manifest_path(cache, folder, settings, view).exists():  # what is there needs no more room
        return cache
    existing = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    # An upper bound for images up to twice as long as wide; with "none", sizes are known only after decoding.
    side = settings.load_size if settings.resize != "none" else 1024
    needed = len(folder.paths) * side * side * 2 * 3
    if not os.access(existing, os.W_OK):
        problem = f"{cache}: not writable"
    elif needed > 0.5 * shutil.disk_usage(existing).free:
        problem = f"{cache}: not enough free disk to cache {len(folder.paths)} images"
    else:
        return cache
    log.warning(f"{problem}; images are decoded at every access (data.cache=FOLDER caches elsewhere)")
    return None


def _manifest_path(cache: Path, folder: Folder, settings: DataSettings, view: str) -> Path:
    """One cache for each folder and each way to decode it; the splits of a folder share it."""
    key = json.dumps([_FORMAT, str(folder.root.absolute()), settings.load_size, settings.resize, view])
    return cache / (hashlib.sha256(key.encode()).hexdigest()[:16] + ".npz")


def _is_too_small(side: int, settings: DataSettings) -> bool:
    return side < settings.crop_size and (not settings.upscale or settings.resize == "none")


def _too_small(file: Path, side: int, settings: DataSettings) -> str:
    remedy = (
        "data.upscale=true enlarges it" if settings.resize != "none" else "data.resize=short_side fits it"
    )
    return f"{file}: {side} pixels are smaller than data.crop_size={settings.crop_size} ({remedy})"


Outcome = tuple[Entry, ImageArray] | str
"""An image's entry and pixels, or why it cannot be decoded."""

DecodeAll = Callable[[Sequence[str], str], Iterator[tuple[str, Outcome]]]
"""Decodes the images at some paths; with the progress bar's description."""


# Building: the data file is only ever added to, so that a reader keeps what it reads; the manifest is replaced.


def _update(path: Path, folder: Folder, decode: DecodeAll, what: str) -> tuple[Manifest, dict[str, str]]:
    """The manifest at `path` with an entry for every image of the folder that can be decoded, and why others cannot.

    New and changed files are decoded and their pixels added to the data file. A new data file is begun where less than
    half of it would be in use. Raises OSError when the cache cannot be written, which then is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock"), what):
        manifest = read_manifest(path)
        _remove_leftovers(path, manifest)
        current = set(_current(folder, manifest, track(folder.paths, f"looking through {what}")))
        missing = [name for name in folder.paths if name not in current]
        if not missing:
            return manifest, {}
        # Images of the folder's other splits stay as long as their files do.
        current |= set(_current(folder, manifest, list(manifest.entries.keys() - set(folder.paths))))
        entries = {name: entry for name, entry in manifest.entries.items() if name in current}
        start = Manifest(manifest.data, manifest.end, entries)
        if not manifest.data or 2 * sum(entry.length for entry in entries.values()) < manifest.end:
            start, missing = Manifest(f"{path.stem}-{secrets.token_hex(4)}.bin"), list(folder.paths)
        try:
            built, problems = _add(path, start, decode(missing, f"decoding {what}"))
        except OSError:
            with contextlib.suppress(OSError):
                _remove_leftovers(path, manifest)
            raise
        _remove_leftovers(path, built)
        return built, problems


@contextlib.contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        log.info(f"{path}: waiting for another process that is preparing {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_leftovers(path: Path, manifest: Manifest) -> None:
    """Removes what is not in the manifest: left by a process that was killed, or no longer needed."""
    remove_temporaries(path.parent, {path.name})
    for data in path.parent.glob(f"{path.stem}-*.bin"):
        if data.name != manifest.data:
            data.unlink(missing_ok=True)
    if manifest.data:
        os.truncate(path.with_name(manifest.data), manifest.end)


def _current(folder: Folder, manifest: Manifest, paths: Iterable[str]) -> Iterator[str]:
    """Those of the paths whose files are as they were when they were decoded."""
    for path in paths:
        entry = manifest.entries.get(path)
        if entry is not None and _stamp(folder.root / path) == entry[:2]:
            yield path


def _add(
    path: Path, start: Manifest, decoded: Iterator[tuple[str, Outcome]]
) -> tuple[Manifest, dict[str, str]]:
    """Adds images to the data file and writes the manifest; when interrupted, with those that were decoded."""
    entries, problems, end = dict(start.entries), dict[str, str](), start.end

    def save() -> Manifest:
        output.flush()
        os.fsync(output.fileno())
        manifest = Manifest(start.data, end, entries)
        write_manifest(path, manifest)
        return manifest

    with open(path.with_name(start.data), "r+b" if end else "wb") as output:
        output.seek(end)
        try:
            for name, outcome in decoded:
                if isinstance(outcome, str):
                    problems[name] = outcome
                    continue
                entry, image = outcome
                pixels = image.tobytes()
                output.write(pixels)
                entries[name] = entry._replace(offset=end, checksum=zlib.crc32(pixels))
                end += entry.length
        except KeyboardInterrupt:
            save()
            raise
        return save(), problems


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes a manifest atomically, flushed to the disk."""
    with atomic_write(path, sync=True) as unfinished, open(unfinished, "wb") as file:
        np.savez(
            file,
            data=np.array([manifest.data]),
            end=np.array([manifest.end]),
            names=np.array([os.fsencode(name) for name in manifest.entries], np.bytes_),
            entries=np.array(list(manifest.entries.values()), np.int64).reshape(-1, len(Entry._fields)),
        )


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file; an empty one, with a warning, where the file or its data is not what was written."""
    if not path.exists() and not path.is_symlink():
        return Manifest()
    try:
        if not path.is_file():
            raise ValueError("not a file")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            names, rows = content["names"].tolist(), content["entries"].tolist()
            (data,), (end,) = content["data"].tolist(), content["end"].tolist()
        entries = [Entry(*map(int, row)) for row in rows]
        manifest = Manifest(data, int(end), dict(zip(map(os.fsdecode, names), entries, strict=True)))
        if not re.fullmatch(rf"{re.escape(path.stem)}-[0-9a-f]{{8}}\.bin", data):
            raise ValueError("it names another file as its data")
        pixels = path.with_name(data)
        if pixels.is_symlink() or not pixels.is_file() or pixels.stat().st_size < manifest.end:
            raise ValueError("data is missing")
        if any(
            min(e[2:]) < 0 or e.side * e.length == 0 or e.offset + e.length > manifest.end for e in entries
        ):
            raise ValueError("an image has no pixels")
    except Exception as error:  # a foreign file can make numpy raise anything
        log.warning(f"{path}: not a cache, or damaged ({reason(error)}); its images are decoded again")
        return Manifest()
    return manifest


def _decode_all(
    folder: Folder, settings: DataSettings, view: str, paths: Sequence[str], what: str
) -> Iterator[tuple[str, Outcome]]:
    """Decodes images in several threads, in their order. what: describes the progress bar."""

    def decode(path: str) -> Outcome:
        file = folder.root / path
        size, time = _stamp(file)  # before reading: a change in the meantime is noticed the next time
        try:
            image, side = _decode(file, settings, view)
        except DataError as error:
            return str(error)
        height, width = image.shape[:2]
        return Entry(size, time, side, height, width, offset=0, checksum=0), image

    remaining = track(paths, what)
    with ThreadPoolExecutor(cpus()) as pool:
        while some := list(islice(remaining, 2 * cpus())):  # a few at a time: not all of them fit into memory
            yield from zip(some, pool.map(decode, some), strict=True)


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
