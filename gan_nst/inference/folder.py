"""A picture or a folder tree in, the same tree of translated pictures out."""

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from gan_nst.core.errors import DataError, GanNstError, counted
from gan_nst.core.progress import bar
from gan_nst.images.finish import Finish, complete, prepare
from gan_nst.images.photo import LARGEST, Encoding, Photo, Pixels, read_photo, write_photo
from gan_nst.inference.batches import batches
from gan_nst.inference.outputs import (
    Naming,
    is_finished,
    lie_among_inputs,
    plan_outputs,
    remove_unfinished,
)
from gan_nst.inference.pipeline import ahead, behind
from gan_nst.inference.translator import Translator

log = logging.getLogger(__name__)

_READ_AHEAD = 32 * 2**20  # bytes a thread, which a 12-megapixel photograph fills alone
_WRITE_BEHIND = 64 * 2**20
_FAR = 2.0  # times larger or smaller than in training


@dataclass(frozen=True)
class FolderOptions:
    """How a folder is translated and written.

    resume: leave out pictures whose output is there and no older. largest: pixels that a picture may have. share: this
    process's number and how many there are, each of which takes another part of the pictures.
    """

    naming: Naming = field(default_factory=Naming)
    encoding: Encoding = field(default_factory=Encoding)
    finish: Finish = field(default_factory=Finish)
    resume: bool = False
    largest: int = LARGEST
    share: tuple[int, int] = (0, 1)


@dataclass
class Outcome:
    """What became of a folder: the files written, one line for each picture that could not be translated, how many
    were finished earlier, and how many were not tried because the disk was full.
    """

    written: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    finished: int = 0
    untried: int = 0

    @property
    def trouble(self) -> str:
        """What the failures come to, for the user."""
        return f"{counted(len(self.failures), 'picture')} could not be translated"


def translate_photo(translator: Translator, photo: Photo, finish: Finish) -> Photo:
    """The translated photo: of the same size and type, with the alpha and EXIF it had."""
    return complete(photo, translator.translate([prepare(photo, finish)])[0], finish)


def translate_folder(
    translator: Translator, source: Path, output: Path, options: FolderOptions | None = None
) -> Outcome:
    """Translates a picture, or every picture under a folder, into `output`, keeping the tree.

    A picture that cannot be read, translated or written is reported and skipped; a full disk ends the work. Raises
    DataError when there is nothing to translate, or when a picture would be written over.
    """
    options = options or FolderOptions()
    targets = plan_outputs(source, output, options.naming)
    number, processes = options.share
    if (options.resume or processes > 1) and lie_among_inputs(source, output, targets.values()):
        who = "--resume" if options.resume else "a second process"
        raise DataError(f"{output}: {who} would take outputs there for inputs; give another folder")
    own = dict(islice(targets.items(), number, None, processes))
    remove_unfinished(own.values())
    wanted = {file: own[file] for file in own if not (options.resume and is_finished(file, own[file]))}
    outcome = Outcome(finished=len(own) - len(wanted))
    # One picture's own progress is told by the translator, where it takes long.
    with bar("translating") if number == 0 and len(wanted) > 1 else nullcontext() as report:
        _Work(translator, wanted, options, outcome, report).run()
    return outcome


@dataclass(frozen=True)
class _Job:
    """A picture on its way to the network."""

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
    """A picture that could not be translated, and why. full: because the disk is."""

    line: str
    full: bool = False
    size: int = 0


class _Work:
    """A folder's way: threads read and prepare, the caller's runs the network, threads complete and write."""

    def __init__(
        self,
        translator: Translator,
        targets: dict[Path, Path],
        options: FolderOptions,
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
                f"{len(self._outcome.written)} of {len(self._targets)} pictures are done; --resume goes on"
            )
            raise
        self._outcome.untried = len(self._targets) - self._done
        if self._outcome.untried:
            log.error(
                f"stopped: the disk is full; {len(self._outcome.written)} of {len(self._targets)} pictures are done; "
                "free some space and go on with --resume"
            )
        self._warn_of_scale()

    def _read(self, path: Path) -> _Job | _Failed:
        try:
            photo = read_photo(path, self._options.largest)
            return _Job(path, photo, prepare(photo, self._options.finish))
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
        """What remains to be done for every picture once the network has seen it, and the bytes that holds."""
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
            write_photo(complete(photo, translated, self._options.finish), target, self._options.encoding)
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
        if known.resize == "none" or not self._far:  # "none": it was trained on pictures of any scale
            return
        path = max(self._far, key=lambda path: max(self._far[path], 1 / self._far[path]))
        log.warning(
            f"{len(self._far)} of {len(self._targets)} pictures are far from the training scale "
            f"({path.name}: {self._far[path]:.2g} times); the generator knows shorter sides near "
            f"{known.load_size} pixels"
            + (f"; --scale {1 / self._far[path]:.2g} works there" if self._far[path] > 1 else "")
        )


def _reason(path: Path, error: Exception) -> str:
    """Why a picture could not be translated, in one line. What was not foreseen ends that picture alone too."""
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
