"""Brings a cache up to date with its files: one process at a time, and what is cut short goes on where it was."""

import contextlib
import logging
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from gan_nst.core.errors import DataError
from gan_nst.core.progress import track
from gan_nst.data.files import Files, Names
from gan_nst.data.index import ROW, Index, lengths, read_index, stamp, write_index
from gan_nst.images.files import Picture

log = logging.getLogger(__name__)

Decode = Callable[[Path], tuple[Picture, int]]
"""A file's picture as it is kept, and its shorter side before."""

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
    path.with_name(f".{path.name}.part").unlink(missing_ok=True)
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
                picture, side = decode(file)
            except DataError as error:
                rows[done], problems[done] = (*seen, end, 0, 0, 0, 0), str(error)
            else:
                content = picture.tobytes()
                _write(output, content, end)
                rows[done] = (*seen, end, zlib.crc32(content), side, *picture.shape[:2])
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
