"""Run folders, `runs/<domain>/<method>/<time>/`: making and finding them, and locking them against other processes."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from gan_nst.core.errors import CheckpointError, cannot_write
from gan_nst.core.files import remove_temporaries
from gan_nst.data.domains import DataSettings

RUNS = Path("runs")

_LOCK = ".lock"
_EVALUATION = ".evaluation"


def new_run(domain: str, method: str, output: Path | None) -> Path:
    """A new run folder, which no other run shares: `output`, or one that the link `latest` next to it points to."""
    if output is not None:
        check_unused(output)
        _make(output)
        return output
    parent = RUNS / domain / method
    _clean_killed(parent)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        run = parent / (stamp if number == 0 else f"{stamp}-{number}")
        try:
            _make(run, shared=False)
        except FileExistsError:
            continue
        _point_latest(parent, run)
        return run
    raise CheckpointError(f"{parent}: no free folder name")


def check_unused(folder: Path) -> None:
    """Raises CheckpointError when the folder for a new run holds anything but a run's lock."""
    if folder.exists() and (not folder.is_dir() or any(path.name != _LOCK for path in folder.iterdir())):
        raise CheckpointError(
            f"{folder}: not empty; give another --output, or resume it with --resume {folder}"
        )


@contextmanager
def training_in(run: Path) -> Iterator[None]:
    """Keeps other trainings out of a run within the context, and removes what a killed one left unfinished.

    Raises CheckpointError when another process trains there, or the folder cannot be written.
    """
    with _alone(run / _LOCK, f"{run}: another process is training this run; wait for it, or stop it"):
        _remove_unfinished(run)
        yield


@contextmanager
def evaluating_in(run: Path) -> Iterator[Path]:
    """Keeps other evaluations out of a run within the context, and yields a folder in it to complete files in.

    Raises CheckpointError when another process evaluates the run, or the folder cannot be written.
    """
    staged = run / f"{_EVALUATION}.part"
    with _alone(run / f"{_EVALUATION}.lock", f"{run}: another process is evaluating this run; wait for it"):
        if staged.is_symlink():  # which could lead anywhere
            staged.unlink()
        shutil.rmtree(staged, ignore_errors=True)
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def find_run(path: Path) -> Path:
    """The run folder that a path names, itself or as a link. Raises CheckpointError when it holds no checkpoints."""
    run = path.resolve() if path.is_symlink() else path
    if run.is_file():
        raise CheckpointError(f"{path}: not a run's folder, a checkpoint (.pt) or a generator (.safetensors)")
    if not run.is_dir():
        raise CheckpointError(f"{path}: no such run")
    if not (run / "checkpoints").is_dir():
        raise CheckpointError(f"{path}: not a run (it has no checkpoints folder)")
    return run


def latest(domain: str, method: str) -> Path | None:
    """The run that `latest` points to."""
    link = RUNS / domain / method / "latest"
    return link.resolve() if link.exists() else None


def exported_path(run: Path, translation: str, first: str) -> Path:
    """Where a run's generator of a translation is exported to."""
    return run / ("generator.safetensors" if translation == first else f"generator_{translation}.safetensors")


def feature_cache(data: DataSettings) -> Path | None:
    """Where the features of a run's reference images are cached: with its decoded images."""
    if data.cache == "never":
        return None
    return data.root / ".cache" if data.cache == "auto" else Path(data.cache)


@contextmanager
def _alone(path: Path, refusal: str) -> Iterator[None]:
    """Holds the lock in a file within the context. A killed process no longer holds it, though its file stays.

    Raises CheckpointError, with `refusal` when another process holds it.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise CheckpointError(refusal) from None
    except OSError as error:
        raise CheckpointError(cannot_write(path.parent, error)) from None
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def _remove_unfinished(run: Path) -> None:
    """Removes what a killed training or evaluation left unfinished in a run's folder."""
    if (run / f"{_EVALUATION}.part").exists():
        with suppress(CheckpointError), evaluating_in(run):  # unless an evaluation is running
            pass
    for folder in (run, run / "checkpoints", run / "samples"):
        remove_temporaries(folder)


def _clean_killed(parent: Path) -> None:
    """Removes what killed trainings left unfinished in the other runs of a new run's folder."""
    for lock in parent.glob(f"*/{_LOCK}"):
        if not lock.parent.is_symlink():
            with suppress(CheckpointError), training_in(lock.parent):  # unless it is running
                pass


def _make(folder: Path, shared: bool = True) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=shared)
    except FileExistsError:
        raise
    except OSError as error:
        raise CheckpointError(cannot_write(folder, error, "cannot be made")) from None


def _point_latest(parent: Path, run: Path) -> None:
    """Replaces the link atomically; where links cannot be made, there is none."""
    link, temporary = parent / "latest", parent / f".latest-{os.getpid()}"
    try:
        for left in parent.glob(".latest-*"):  # of a killed process
            left.unlink(missing_ok=True)
        temporary.symlink_to(run.name, target_is_directory=True)
        os.replace(temporary, link)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
