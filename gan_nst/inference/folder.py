"""Translates an image or a folder tree into the same tree of translated images.

Threads read ahead, the calling thread runs the network, and threads write, so that none of the three waits for the
others. What is held in between is bounded in bytes, however many images there are.
"""

import errno
import logging
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

from gan_nst.core.device import is_out_of_memory
from gan_nst.core.errors import DataError, GanNstError, counted
from gan_nst.core.options import TranslateOptions
from gan_nst.core.terminal import progress_bar
from gan_nst.core.threads import cpus
from gan_nst.images.arrays import ImageArray
from gan_nst.images.finish import complete, prepare
from gan_nst.images.photo import Photo, Pixels, read_photo, write_photo
from gan_nst.inference.outputs import is_finished, outputs_among_inputs, plan_outputs, remove_unfinished
from gan_nst.inference.translator import Translator

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_BATCH_PIXELS = 8 * 256 * 256
_LARGEST_BATCH = 32
_READ_AHEAD = 32 * 2**20  # bytes for each thread; a single 12-megapixel photograph fills it
_WRITE_BEHIND = 64 * 2**20
_MOST_AHEAD = 64  # items submitted for reading, however small they are
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_FAR = 2.0  # times larger or smaller than the training scale


@dataclass
class Outcome:
    """The result of translating a folder.

    written: the files. failures: one line for each image that could not be translated. finished: images that had been
    translated before. untried: images left when the disk was full.
    """

    written: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    finished: int = 0
    untried: int = 0

    @property
    def trouble(self) -> str:
        """A summary of the failures, for the user."""
        return f"{counted(len(self.failures), 'image')} could not be translated"


def translate_folder(
    translator: Translator,
    source: Path,
    output: Path,
    options: TranslateOptions = TranslateOptions(),
    share: tuple[int, int] = (0, 1),
) -> Outcome:
    """Translates an image, or every image under a folder, into `output`, keeping the tree.

    share: this process's number and how many processes there are; each translates another part of the images. An
    image that cannot be read, translated or written is reported and skipped; a full disk stops the work. Raises
    DataError when there is nothing to translate, or when an input would be overwritten.
    """
    targets = plan_outputs(source, output, options)
    number, processes = share
    if (options.resume or processes > 1) and outputs_among_inputs(source, output, targets.values()):
        cause = "--resume" if options.resume else "a second process"
        raise DataError(f"{output}: {cause} would mistake outputs there for inputs; give another folder")
    own = dict(islice(targets.items(), number, None, processes))
    remove_unfinished(own.values())
    wanted = {file: own[file] for file in own if not (options.resume and is_finished(file, own[file]))}
    outcome = Outcome(finished=len(own) - len(wanted))
    # For a single image the translator itself draws a progress bar where it takes long.
    with progress_bar("translating") if number == 0 and len(wanted) > 1 else nullcontext() as report:
        _FolderTranslation(translator, wanted, options, outcome, report).run()
    return outcome


def translate_stream(
    translator: Translator, images: Iterable[tuple[Path, ImageArray]]
) -> Iterator[tuple[Path, ImageArray]]:
    """Yields the translations of named images of any size; their order may change."""
    for batch in batches(images, lambda named: named[1], translator.fits):
        outputs = translator.translate([image for _, image in batch])
        yield from zip([path for path, _ in batch], outputs, strict=True)


def batches(
    items: Iterable[T], pixels: Callable[[T], Pixels], fits: Callable[[int, int], int]
) -> Iterator[list[T]]:
    """Yields items in groups whose pixels (h, w, c) have the same size and type; their order may change.

    fits: how many images of a height and width may be translated together; at least one is. The items that wait for
    others of their size are bounded, however many sizes there are.
    """
    waiting: OrderedDict[tuple[object, ...], list[T]] = OrderedDict()
    for item in items:
        height, width, _ = pixels(item).shape
        kind = (height, width, pixels(item).dtype)
        group = waiting.setdefault(kind, [])
        group.append(item)
        most = min(-(-_BATCH_PIXELS // (height * width)), _LARGEST_BATCH, fits(height, width))
        if len(group) >= most:
            yield waiting.pop(kind)
        elif sum(pixels(one).nbytes for group in waiting.values() for one in group) > 12 * _BATCH_PIXELS:
            yield waiting.popitem(last=False)[1]
    yield from waiting.values()


def read_ahead(
    read: Callable[[T], R], items: Iterable[T], size: Callable[[R], int], threads: int, limit: int
) -> Generator[R, None, None]:
    """Yields `read(item)` for every item, computed in threads ahead of the caller; with one thread in order.

    No thread starts on an item while results of `limit` bytes, measured by `size`, wait for the caller. An exception
    of `read` is raised here. Closing the generator ends the threads once they finish their current items.
    """
    done, left, changed = SimpleQueue[Future[R]](), iter(items), threading.Condition()
    waiting: float = 0

    def work(item: T) -> R:
        with changed:
            changed.wait_for(lambda: waiting < limit)
        result = read(item)
        count(size(result))
        return result

    def count(size: float) -> None:
        nonlocal waiting
        with changed:
            waiting += size
            changed.notify_all()

    pool = ThreadPoolExecutor(threads, "reader")

    def submit(number: int) -> int:
        futures = [pool.submit(work, item) for item in islice(left, number)]
        for future in futures:
            future.add_done_callback(done.put)
        return len(futures)

    try:
        pending = submit(_MOST_AHEAD)
        while pending:
            result = done.get().result()
            count(-size(result))
            pending += submit(1) - 1
            yield result
            del result  # or it is kept while the next one is awaited
    finally:
        count(-math.inf)  # wakes the threads that wait
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Job:
    """An image on its way to the network."""

    path: Path
    photo: Photo
    prepared: Pixels

    @property
    def size(self) -> int:
        """Bytes held."""
        parts = (self.photo.pixels, self.photo.alpha, self.prepared)
        return sum({id(part): part.nbytes for part in parts if part is not None}.values())


class _Failure(NamedTuple):
    """Why an image could not be translated, in one line. disk_full: its output did not fit on the disk."""

    line: str
    disk_full: bool = False


class _FolderTranslation:
    """One run over a folder: reader threads, the network in the calling thread, writer threads."""

    def __init__(
        self,
        translator: Translator,
        targets: dict[Path, Path],
        options: TranslateOptions,
        outcome: Outcome,
        report: Callable[[float], None] | None,
    ) -> None:
        self._translator, self._targets, self._options = translator, targets, options
        self._outcome, self._report = outcome, report
        # Images far from the training scale, and how many times larger they are.
        self._far: dict[Path, float] = {}
        self._writing: deque[tuple[Future[Path | _Failure], int]] = deque()  # and the bytes each one holds
        self._disk_full = False

    def run(self) -> None:
        # On the CPU the network needs the cores; with a GPU they are free for the files.
        threads = 1 if self._translator.device.type == "cpu" else max(1, min(8, cpus() // 2))
        writers = ThreadPoolExecutor(threads, "writer")
        jobs = read_ahead(
            self._read,
            self._targets,
            lambda job: job.size if isinstance(job, _Job) else 0,
            threads,
            threads * _READ_AHEAD,
        )
        try:
            with closing(jobs):
                for batch in batches(self._readable(jobs), lambda job: job.prepared, self._translator.fits):
                    self._record_written(threads * _WRITE_BEHIND)
                    if self._disk_full:
                        break
                    self._translate(batch, writers)
            self._record_written(0)
        except KeyboardInterrupt:
            log.info(f"{self._progress}; resume with --resume")
            raise
        finally:
            writers.shutdown(cancel_futures=True)
        self._outcome.untried = len(self._targets) - self._tried
        if self._outcome.untried:
            log.error(
                f"stopped: the disk is full; {self._progress}; free some space and continue with --resume"
            )
        self._warn_of_scale()

    def _read(self, path: Path) -> _Job | _Failure:
        try:
            photo = read_photo(path, self._options.max_pixels)
            return _Job(path, photo, prepare(photo, self._options))
        except Exception as error:
            return _failure(path, error)

    def _readable(self, jobs: Iterable[_Job | _Failure]) -> Iterator[_Job]:
        for job in jobs:
            if isinstance(job, _Failure):
                self._record(job)
                continue
            scale = self._translator.scale_of(*job.prepared.shape[:2])
            if not 1 / _FAR <= scale <= _FAR:
                self._far[job.path] = scale
            yield job

    def _translate(self, batch: list[_Job], writers: ThreadPoolExecutor) -> None:
        """Passes a batch through the network and on to the writers; image by image where together they fail."""
        failure: _Failure | None = None
        try:
            outputs = self._translator.translate([job.prepared for job in batch])
        except Exception as error:  # not kept: its traceback holds the memory that ran out
            failure = _failure(batch[0].path, error)
        if failure is None:
            for job, output in zip(batch, outputs, strict=True):
                writing = writers.submit(self._write, job, output)
                self._writing.append((writing, job.size + output.nbytes))
        elif len(batch) > 1:
            for job in batch:
                self._translate([job], writers)
        else:
            self._record(failure)

    def _write(self, job: _Job, translated: Pixels) -> Path | _Failure:
        target = self._targets[job.path]
        try:
            write_photo(complete(job.photo, translated, self._options), target, self._options)
            return target
        except Exception as error:
            full = any(getattr(cause, "errno", None) in _DISK_FULL for cause in _with_causes(error))
            return _failure(job.path, error)._replace(disk_full=full)

    def _record_written(self, limit: int) -> None:
        """Records what was written, and waits until less than `limit` bytes, or nothing, are left to write."""
        while self._writing and (
            self._writing[0][0].done() or sum(held for _, held in self._writing) >= limit
        ):
            self._record(self._writing.popleft()[0].result())

    def _record(self, result: Path | _Failure) -> None:
        if isinstance(result, Path):
            self._outcome.written.append(result)
        elif not self._disk_full:
            self._disk_full = result.disk_full
            self._outcome.failures.append(result.line)
            log.error(f"skipped: {result.line}")
        if self._report is not None:
            self._report(self._tried / len(self._targets))

    @property
    def _tried(self) -> int:
        return len(self._outcome.written) + len(self._outcome.failures)

    @property
    def _progress(self) -> str:
        return f"{len(self._outcome.written)} of {len(self._targets)} images translated"

    def _warn_of_scale(self) -> None:
        known = self._translator.description.training_scale
        if known.resize == "none" or not self._far:  # "none": trained on images of any scale
            return
        path = max(self._far, key=lambda path: max(self._far[path], 1 / self._far[path]))
        log.warning(
            f"{len(self._far)} of {len(self._targets)} images are far from the training scale "
            f"({path.name}: {self._far[path]:.2g} times); the generator was trained on shorter sides near "
            f"{known.load_size} pixels"
            + (f"; try --scale {1 / self._far[path]:.2g}" if self._far[path] > 1 else "")
        )


def _failure(path: Path, error: Exception) -> _Failure:
    """Even an unforeseen exception fails this image alone."""
    if any(map(is_out_of_memory, _with_causes(error))):
        return _Failure(f"{path}: not enough memory; give less --memory, or --scale 0.5")
    if not isinstance(error, GanNstError):
        log.debug(f"{path}: traceback", exc_info=error)
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        line = f"{path}: could not be translated ({detail})"
    else:  # the translator does not know names
        line = str(error) if path.name in str(error) else f"{path}: {error}"
    return _Failure(line)


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
