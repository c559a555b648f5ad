"""Run folders, `runs/<domain>/<method>/<time>/`: making and finding them, and locking them against other processes."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from gan_nst.core.errors import CheckpointError, cannot_write, writing
from gan_nst.core.files import atomic_write, remove_temporaries
from gan_nst.data.domains import DataSettings

RUNS = Path("runs")

_LOCK = ".lock"
_EVALUATION = ".evaluation"


def new_run(domain: str, method: str, output: Path | None) -> Path:
    """A new run folder, which no other run shares: `output`, or one that the link `latest` next to it points to."""
    if output is not None:
        if output.exists() and (not output.is_dir() or any(path.name != _LOCK for path in output.iterdir())):
            raise CheckpointError(
                f"{output}: not empty; give another --output, or resume it with --resume {output}"
            )
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
        return output
    parent = RUNS / domain / method
    _clean_killed(parent)
    run = parent / time.strftime("%Y%m%d-%H%M%S")
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                run.mkdir()
                break
            except FileExistsError:  # another run started in this second
                run = run.with_name(f"{run.name}-1")
    with suppress(OSError), atomic_write(parent / "latest") as link:  # some systems have no links
        link.symlink_to(run.name, target_is_directory=True)
    return run


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
    """Holds the lock in a file within the context. A killed process no longer holds it, though its file remains.

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
    remove_temporaries(parent)
    for lock in parent.glob(f"*/{_LOCK}"):
        if not lock.parent.is_symlink():
            with suppress(CheckpointError), training_in(lock.parent):  # unless it is running
                pass
