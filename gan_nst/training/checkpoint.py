"""Checkpoints: one file each, written atomically, and read without running code from it."""

import logging
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from gan_nst.core.errors import CheckpointError, SettingsError, cannot_write, format_size, reason, shorten
from gan_nst.core.files import atomic_write
from gan_nst.core.legacy import upgrade_checkpoint
from gan_nst.core.settings import Section, validate

log = logging.getLogger(__name__)

FORMAT = 1
_NAME = re.compile(r"step-(\d+)\.pt")


class _Translation(Section):
    """A translation's generator, and the spec that networks.build makes it from."""

    generator: str
    source: str
    target: str
    network: dict[str, Any]


class _Payload(Section):
    """The content of a checkpoint that is the same for every method."""

    model_config = ConfigDict(extra="ignore", strict=True, arbitrary_types_allowed=True)

    format: int
    method: str
    step: int = Field(ge=0)
    settings: dict[str, Any]
    translations: dict[str, _Translation]
    state: dict[str, Any]
    ema: dict[str, Tensor]
    optimizers: dict[str, dict[str, Any]]
    random: list[dict[str, Tensor]]
    data: str
    notes: dict[str, Any] = {}


def save(folder: Path, payload: dict[str, Any], kept: int, keep_as: str | None = None) -> Path:
    """Writes `step-NNNNNNN.pt` into a folder of checkpoints and removes all but the newest `kept`.

    keep_as: "best", for example: the checkpoint also becomes `best.pt`.

    The file is flushed to the disk before it gets its name, so that a crash damages no earlier one. Raises
    CheckpointError if it cannot be written.
    """
    path = folder / f"step-{payload['step']:07d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, sync=True) as temporary:
            _write(temporary, {"format": FORMAT, **payload})
            if keep_as is not None:  # first: the checkpoint's notes may name it
                with atomic_write(folder / f"{keep_as}.pt", sync=True) as kept_file:
                    try:
                        os.link(temporary, kept_file)
                    except OSError:  # the system has no links
                        shutil.copyfile(temporary, kept_file)
    except OSError as error:
        raise CheckpointError(f"{cannot_write(path, error)}; {_advice(folder)}") from None
    for old in newest_first(folder)[kept:]:
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            log.warning(f"{old}: could not be removed ({reason(error)}); it is no longer needed")
    return path


def newest_first(folder: Path) -> list[Path]:
    """Returns the checkpoints of a folder, the newest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def load(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint, on the CPU, with every part of its type. Raises CheckpointError if it is
    damaged or of another format.
    """
    if not path.is_file():  # a pipe would block
        raise CheckpointError(f"{path}: {'not a file' if path.exists() else 'no such checkpoint'}")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch does not compare the checksums that it writes
                raise ValueError("a checksum differs")
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: not a gan_nst checkpoint (it contains more than plain data and tensors)"
        ) from None
    except Exception as error:  # a damaged file can make torch raise anything
        raise CheckpointError(f"{path}: damaged or not a checkpoint ({shorten(reason(error))})") from None
    if isinstance(payload, dict) and isinstance(payload.get("format"), int) and payload["format"] != FORMAT:
        raise CheckpointError(f"{path}: has format {payload['format']}; this version reads format {FORMAT}")
    try:
        validate(_Payload, payload)
    except SettingsError as error:
        raise CheckpointError(f"{path}: not a gan_nst checkpoint ({error})") from None
    upgrade_checkpoint(payload)
    return dict(payload)


def load_newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Returns the newest checkpoint that can be read, and warns of each newer one that is damaged.

    Raises CheckpointError if there is none.
    """
    paths = newest_first(folder)
    if not paths:
        raise CheckpointError(f"{folder}: no checkpoints found; train first, or give another run")
    for path in paths[:-1]:
        try:
            return path, load(path)
        except CheckpointError as error:
            log.warning(f"{error}; falling back to the previous checkpoint")
    return paths[-1], load(paths[-1])


def _write(path: Path, payload: dict[str, Any]) -> None:
    """Writes a payload. Raises OSError."""
    with open(path, "wb") as file:
        try:
            torch.save(payload, file)
        except RuntimeError as error:  # torch's writer wraps the file's own error
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _advice(folder: Path) -> str:
    """How to continue once there is space for a checkpoint again."""
    newest = next(iter(newest_first(folder)), None)
    if newest is None:
        return "then start again"
    size, free = newest.stat().st_size, shutil.disk_usage(folder).free
    return (
        f"then resume: {newest.name} is intact (a checkpoint takes {format_size(size)}, "
        f"{format_size(free)} are free there)"
    )
