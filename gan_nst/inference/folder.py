"""An image or a folder tree in, the same tree of translated images out."""

import errno
import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar, cast

import torch

from gan_nst.core.errors import DataError, GanNstError, counted
from gan_nst.core.options import Finish, TranslateOptions
from gan_nst.core.terminal import progress_bar
from gan_nst.images.arrays import ImageArray
from gan_nst.images.finish import complete, prepare
from gan_nst.images.photo import Photo, Pixels, read_photo, write_photo
from gan_nst.inference.outputs import (
    is_finished,
    lie_among_inputs,
    plan_outputs,
    remove_unfinished,
)
from gan_nst.inference.translator import Translator

log = logging.getLogger(__name__)


T = TypeVar("T")

_PIXELS_A_BATCH = 8 * 256 * 256
_LARGEST_BATCH = 32


def translate_stream(
    translator: Translator, images: Iterable[tuple[Path, ImageArray]]
) -> Iterator[tuple[Path, ImageArray]]:
    """Named images of any sizes, translated; the order may change."""
    for batch in batches(images, lambda named: named[1], translator.fits):
        outputs = translator.translate([image for _, image in batch])
        yield from zip([path for path, _ in batch], outputs, strict=True)


def batches(
    items: Iterable[T], pixels: Callable[[T], Pixels], fits: Callable[[int, int], int]
) -> Iterator[list[T]]:
    """Items whose pixels (h, w, c) have one size and type, together; the order may change.

    fits: how many of a height and width pass together at most; at least one does. What waits for company is bounded,
    whatever the number of sizes.
    """
    waiting: OrderedDict[tuple[object, ...], list[T]] = OrderedDict()
    for item in items:
        height, width, _ = pixels(item).shape
        kind = (height, width, pixels(item).dtype)
        group = waiting.setdefault(kind, [])
        group.append(item)
        most = min(-(-_PIXELS_A_BATCH // (height * width)), _LARGEST_BATCH, fits(height, width))
        if len(group) >= most:
            yield waiting.pop(kind)
        elif sum(pixels(one).nbytes for group in waiting.values() for one in group) > 12 * _PIXELS_A_BATCH:
            yield waiting.popitem(last=False)[1]
    yield from waiting.values()


R = TypeVar("R")

_MOST = 64  # results that wait, however small they are
_NONE = object()


def ahead(
    work: Callable[[T], R], items: Iterable[T], weigh: Callable[[R], int], threads: int, limit: int
) -> Generator[R, None, None]:
    """The results of `work` for every item, computed in threads while the caller is busy; their order may change.

    No thread begins with an item while results of `limit` bytes, by `weigh`, wait for the caller. What `work` raises
    is raised here. Close it (contextlib.closing), and the threads end after the items they are at.
    """
    shelf: _Shelf[R] = _Shelf(threads, limit)
    left, turn = iter(items), threading.Lock()

    def next_items() -> Iterator[T]:
        while shelf.wait_for_room():
            with turn:
                item = next(left, _NONE)
            if item is _NONE:
                return
            yield cast(T, item)

    def run() -> None:
        try:
            for item in next_items():
                result = work(item)
                shelf.put(result, weigh(result))
                del result  # or it is held while the thread waits for room
            shelf.leave()
        except BaseException as error:
            shelf.leave(error)

    workers = [threading.Thread(target=run, name="ahead") for _ in range(threads)]
    try:
        for worker in workers:
            worker.start()
        yield from shelf
    finally:
        shelf.close()
        for worker in workers:
            if worker.ident is not None:
                worker.join()


def behind(
    tasks: Iterable[tuple[Callable[[], R], int]], threads: int, limit: int
) -> Generator[R, None, None]:
    """The results of tasks, in order, each done in a thread while the caller makes the next.

    A task comes with the bytes it holds; further ones are not asked for while those waiting hold `limit`. What a task
    raises is raised here. Close it, and tasks that have not begun are dropped, those begun come to their end.
    """
    pending: deque[tuple[Future[R], int]] = deque()
    held = 0
    pool = ThreadPoolExecutor(threads, "behind")
    try:
        for task, size in tasks:
            pending.append((pool.submit(task), size))
            held += size
            del task  # or what it holds lives on while the next one is made
            while pending and (pending[0][0].done() or held > limit or len(pending) > _MOST):
                future, size = pending.popleft()
                held -= size
                yield future.result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Shelf(Generic[R]):
    """Where threads lay results of about `limit` bytes for one that takes them."""

    def __init__(self, threads: int, limit: int) -> None:
        self._results: deque[tuple[R, int]] = deque()
        self._held, self._limit = 0, limit
        self._threads = threads
        self._error: BaseException | None = None
        self._closed = False
        self._change = threading.Condition()

    def wait_for_room(self) -> bool:
        """Whether to go on, said when there is room."""
        with self._change:
            self._change.wait_for(
                lambda: self._closed or (self._held < self._limit and len(self._results) < _MOST)
            )
            return not self._closed

    def put(self, result: R, size: int) -> None:
        with self._change:
            self._results.append((result, size))
            self._held += size
            self._change.notify_all()

    def leave(self, error: BaseException | None = None) -> None:
        """A thread's last word."""
        with self._change:
            self._threads -= 1
            self._error = self._error or error
            self._change.notify_all()

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._results.clear()
            self._change.notify_all()

    def __iter__(self) -> Iterator[R]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._results or self._error or self._threads == 0)
                if self._error is not None:
                    raise self._error
                if not self._results:
                    return
                result, size = self._results.popleft()
                self._held -= size
                self._change.notify_all()
            yield result
            del result


_READ_AHEAD = 32 * 2**20  # bytes a thread, which a 12-megapixel photograph fills alone
_WRITE_BEHIND = 64 * 2**20
_FAR = 2.0  # times larger or smaller than in training


@dataclass
class Outcome:
    """What became of a folder: the files written, one line for each image that could not be translated, how many
    were finished earlier, and how many were not tried because the disk was full.
    """

    written: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    finished: int = 0
    untried: int = 0

    @property
    def trouble(self) -> str:
        """What the failures come to, for the user."""
        return f"{counted(len(self.failures), 'image')} could not be translated"


def translate_photo(translator: Translator, photo: Photo, finish: Finish) -> Photo:
    """The translated photo: of the same size and type, with the alpha and EXIF it had."""
    return complete(photo, translator.translate([prepare(photo, finish)])[0], finish)


def translate_folder(
    translator: Translator,
    source: Path,
    output: Path,
    options: TranslateOptions = TranslateOptions(),
    share: tuple[int, int] = (0, 1),
) -> Outcome:
    """Translates an image, or every image under a folder, into `output`, keeping the tree.

    share: this process's number, and how many there are, each of which takes another part of the images.
    An image that cannot be read, translated or written is reported and skipped; a full disk ends the work. Raises
    DataError when there is nothing to translate, or when an image would be written over.
    """
    targets = plan_outputs(source, output, options)
    number, processes = share
    if (options.resume or processes > 1) and lie_among_inputs(source, output, targets.values()):
        who = "--resume" if options.resume else "a second process"
        raise DataError(f"{output}: {who} would take outputs there for inputs; give another folder")
    own = dict(islice(targets.items(), number, None, processes))
    remove_unfinished(own.values())
    wanted = {file: own[file] for file in own if not (options.resume and is_finished(file, own[file]))}
    outcome = Outcome(finished=len(own) - len(wanted))
    # One image's own progress is told by the translator, where it takes long.
    with progress_bar("translating") if number == 0 and len(wanted) > 1 else nullcontext() as report:
        _Work(translator, wanted, options, outcome, report).run()
    return outcome


@dataclass(frozen=True)
class _Job:
    """An image on its way to the network."""

    path: Path
    photo: Photo
    prepared: Pixels

    @property
    def size(self) -> int:
        """Bytes."""
        parts = (self.photo.pixels, self.photo.alpha, self.prepared)
        return sum({id(part): part.nbytes for part in parts if part is not None}.values())


@dataclass(frozen=True)
class _Failed:
    """An image that could not be translated, and why. full: because the disk is."""

    line: str
    full: bool = False
    size: int = 0


class _Work:
    """A folder's way: threads read and prepare, the caller's runs the network, threads complete and write."""

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
        self._far: dict[Path, float] = {}

    def run(self) -> None:
        """Translates all that can be."""
        # On the CPU the network wants the cores; a GPU leaves them to the files.
        threads = 1 if self._translator.device.type == "cpu" else max(1, min(8, (os.cpu_count() or 1) // 2))
        read = ahead(self._read, self._targets, lambda result: result.size, threads, threads * _READ_AHEAD)
        done = behind(self._network(self._jobs(read)), threads, threads * _WRITE_BEHIND)
        try:
            with closing(read), closing(done):
                for result in done:
                    self._note(result)
                    if isinstance(result, _Failed) and result.full:
                        break
        except KeyboardInterrupt:
            log.info(
                f"{len(self._outcome.written)} of {len(self._targets)} images are done; --resume goes on"
            )
            raise
        self._outcome.untried = len(self._targets) - self._done
        if self._outcome.untried:
            log.error(
                f"stopped: the disk is full; {len(self._outcome.written)} of {len(self._targets)} images are done; "
                "free some space and go on with --resume"
            )
        self._warn_of_scale()

    def _read(self, path: Path) -> _Job | _Failed:
        try:
            photo = read_photo(path, self._options.max_pixels)
            return _Job(path, photo, prepare(photo, self._options))
        except Exception as error:
            return _Failed(_reason(path, error))

    def _jobs(self, read: Iterable[_Job | _Failed]) -> Iterator[_Job]:
        for result in read:
            if isinstance(result, _Failed):
                self._note(result)
                continue
            scale = self._translator.scale_of(*result.prepared.shape[:2])
            if not 1 / _FAR <= scale <= _FAR:
                self._far[result.path] = scale
            yield result

    def _network(self, jobs: Iterable[_Job]) -> Iterator[tuple[Callable[[], Path | _Failed], int]]:
        """What remains to be done for every image once the network has seen it, and the bytes that holds."""
        for batch in batches(jobs, lambda job: job.prepared, self._translator.fits):
            yield from self._pass(batch)

    def _pass(self, batch: list[_Job]) -> Iterator[tuple[Callable[[], Path | _Failed], int]]:
        failed = None
        try:
            outputs = self._translator.translate([job.prepared for job in batch])
        except (
            Exception
        ) as error:  # its traceback is not kept: it holds the memory that there was too little of
            failed = _Failed(_reason(batch[0].path, error))
        if failed is None:
            for job, output in zip(batch, outputs, strict=True):
                yield partial(self._write, job.path, job.photo, output), job.size + output.nbytes
        elif len(batch) > 1:
            for job in batch:
                yield from self._pass([job])
        else:
            self._note(failed)

    def _write(self, path: Path, photo: Photo, translated: Pixels) -> Path | _Failed:
        target = self._targets[path]
        try:
            write_photo(complete(photo, translated, self._options), target, self._options)
        except Exception as error:
            return _Failed(_reason(path, error), full=any(map(_is_of_full_disk, _with_causes(error))))
        return target

    @property
    def _done(self) -> int:
        return len(self._outcome.written) + len(self._outcome.failures)

    def _note(self, result: Path | _Failed) -> None:
        if isinstance(result, Path):
            self._outcome.written.append(result)
        else:
            self._outcome.failures.append(result.line)
            log.error(f"skipped: {result.line}")
        if self._report is not None:
            self._report(self._done / len(self._targets))

    def _warn_of_scale(self) -> None:
        known = self._translator.description.training_scale
        if known.resize == "none" or not self._far:  # "none": it was trained on images of any scale
            return
        path = max(self._far, key=lambda path: max(self._far[path], 1 / self._far[path]))
        log.warning(
            f"{len(self._far)} of {len(self._targets)} images are far from the training scale "
            f"({path.name}: {self._far[path]:.2g} times); the generator knows shorter sides near "
            f"{known.load_size} pixels"
            + (f"; --scale {1 / self._far[path]:.2g} works there" if self._far[path] > 1 else "")
        )


def _reason(path: Path, error: Exception) -> str:
    """Why an image could not be translated, in one line. What was not foreseen ends that image alone too."""
    if any(map(_is_of_memory, _with_causes(error))):
        return f"{path}: not enough memory; give less --memory, or --scale 0.5"
    if not isinstance(error, GanNstError):
        log.debug(f"{path}: where it went wrong", exc_info=error)
        told = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        return f"{path}: could not be translated ({told})"
    return str(error) if path.name in str(error) else f"{path}: {error}"  # the translator knows no names


def _is_of_memory(error: BaseException) -> bool:
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )  # torch's, on the CPU


def _is_of_full_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
