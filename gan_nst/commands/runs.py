"""Run folders: `runs/<domain>/<method>/<time>/`, and what lies in them."""

import os
import time
from pathlib import Path

from gan_nst.data.settings import DataSettings
from gan_nst.errors import CheckpointError
from gan_nst.images import replacing

RUNS = Path("runs")


def new_run(domain: str, method: str, out: Path | None) -> Path:
    """A new, empty run folder that no other run shares; `latest` beside it points to it unless `out` names
    it.
    """
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise CheckpointError(f"{out}: not empty; give another --out, or go on with --resume {out}")
        _make(out)
        return out
    parent = RUNS / domain / method
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


def find_run(path: Path) -> Path:
    """The run folder a user named. Raises CheckpointError when it holds no checkpoints."""
    run = path.resolve() if path.is_symlink() else path
    if run.is_file():
        raise CheckpointError(
            f"{path}: neither a run's folder, nor a checkpoint (.pt) or generator (.safetensors)"
        )
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
    """Where the features of a run's reference pictures are remembered: beside its decoded pictures."""
    if data.cache == "never":
        return None
    return data.root / ".cache" if data.cache == "auto" else Path(data.cache)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, in place of what was there. Raises CheckpointError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise CheckpointError(f"{path}: could not be written ({error.strerror})") from None


def _make(folder: Path, shared: bool = True) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=shared)
    except FileExistsError:
        raise
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be made ({error.strerror})") from None


def _point_latest(parent: Path, run: Path) -> None:
    """Replaces the link in one step; where links cannot be made there is none."""
    link, unfinished = parent / "latest", parent / f".latest-{os.getpid()}"
    try:
        unfinished.symlink_to(run.name, target_is_directory=True)
        os.replace(unfinished, link)
    except OSError:
        unfinished.unlink(missing_ok=True)
