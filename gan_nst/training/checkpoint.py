"""Checkpoints: one file each, written whole or not at all, read without running code from it."""

import logging
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field, JsonValue
from torch import Tensor

from gan_nst.core.errors import CheckpointError, SettingsError, cannot_write, format_value, reason, shorten
from gan_nst.core.files import atomic_write
from gan_nst.core.settings import Section, validate

log = logging.getLogger(__name__)

FORMAT = 1
_NAME = re.compile(r"step-(\d+)\.pt")
_DEEPEST, _MOST = 30, 1_000_000  # of a payload's dicts and lists, and values in them


class _Translation(Section):
    """How a checkpoint names a generator, and its networks.build spec."""

    generator: str
    source: str
    target: str
    network: dict[str, Any]


class _Payload(Section):
    """What every checkpoint holds, as far as it is the same for every method."""

    model_config = ConfigDict(extra="ignore", strict=True, arbitrary_types_allowed=True)

    format: int
    method: str
    step: int = Field(ge=0)
    settings: dict[str, JsonValue]
    translations: dict[str, _Translation]
    state: dict[str, Any]
    ema: dict[str, Tensor]
    optimizers: dict[str, dict[str, Any]]
    random: list[dict[str, Tensor]]
    data: str
    notes: dict[str, Any] = {}


_KEYS = {name for name, field in _Payload.model_fields.items() if field.is_required()}


def save(folder: Path, payload: dict[str, Any], kept: int, keep_as: str | None = None) -> Path:
    """Writes `step-NNNNNNN.pt` into a folder of checkpoints and removes all but the newest `kept`.

    keep_as: "best", for example: the checkpoint is also `best.pt`, in place of the one that was it before.

    The file is written beside its place, flushed to the disk and renamed, so that a crash leaves the earlier
    ones whole. Raises CheckpointError when it cannot be written; the earlier ones are untouched then.
    """
    path = folder / f"step-{payload['step']:07d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            _write(unfinished, {"format": FORMAT, **payload})
            if keep_as is not None:  # first, so that whatever the newest checkpoint notes as kept is kept
                _also(unfinished, folder / f"{keep_as}.pt")
        _sync_folder(folder)
    except OSError as error:
        raise CheckpointError(f"{cannot_write(path, error)}; {_way_on(folder)}") from None
    for old in newest_first(folder)[kept:]:
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            log.warning(f"{old}: could not be removed ({reason(error)}); it is no longer needed")
    return path


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU, its parts of the types they are saved in. Raises CheckpointError when
    it is damaged or of another format.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: not a file")
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path.stat().st_size)
        payload = torch.load(path, map_location="cpu", weights_only=True)
        tensors = _tensors(payload)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: not a gan_nst checkpoint (it holds more than plain data and tensors)"
        ) from None
    except Exception as error:  # torch raises whatever a damaged file makes it stumble over
        why = shorten(str(error)) or type(error).__name__
        raise CheckpointError(f"{path}: damaged or not a checkpoint ({why})") from None
    if not isinstance(payload, dict) or "format" not in payload:
        raise CheckpointError(f"{path}: not a gan_nst checkpoint")
    if not isinstance(payload["format"], int) or payload["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: has format {format_value(payload['format'])}; this version reads format {FORMAT}"
        )
    if missing := _KEYS - payload.keys():
        raise CheckpointError(f"{path}: incomplete, without {', '.join(sorted(missing))}")
    try:
        validate(_Payload, payload)
    except SettingsError as error:
        raise CheckpointError(f"{path}: not a gan_nst checkpoint ({error})") from None
    if not all(map(_is_plain, tensors)):
        raise CheckpointError(
            f"{path}: not a gan_nst checkpoint (a tensor is sparse, or larger than its bytes)"
        )
    return payload


def load_newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint that can be read, with a warning for each newer one that is damaged.

    Raises CheckpointError when there is none.
    """
    found = newest_first(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoints; train first, or give another run")
    failures = []
    for path in found:
        try:
            payload = load(path)
        except CheckpointError as error:
            failures.append(str(error))
            continue
        for failure in failures:
            log.warning(f"{failure}; going on with {path.name}")
        return path, payload
    raise CheckpointError(failures[0])


def _write(path: Path, payload: dict[str, Any]) -> None:
    """Writes a payload and waits until it is on the disk. Raises OSError."""
    with open(path, "wb") as file:
        try:
            torch.save(payload, file)
        except RuntimeError as error:  # torch's writer makes one of the file's own
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def _way_on(folder: Path) -> str:
    """What there is to resume from when a checkpoint could not be written."""
    newest = next(iter(newest_first(folder)), None)
    if newest is None:
        return "then start again"
    size, room = newest.stat().st_size, shutil.disk_usage(folder).free
    return (
        f"then resume: {newest.name} is whole (a checkpoint takes {size / 1e6:.0f} MB, "
        f"{room / 1e6:.0f} MB are free there)"
    )


def _check(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError unless the archive is whole, and as torch writes it: plain, so that nothing in it is larger
    than its file, and each name once. size: the file's, in bytes.
    """
    members = archive.infolist()
    if (
        any(m.compress_type != zipfile.ZIP_STORED for m in members)
        or sum(m.file_size for m in members) > size
    ):
        raise ValueError("it is packed, or says that it is longer than it is")
    if len({m.filename for m in members}) < len(members):
        raise ValueError("it holds a name twice")
    if archive.testzip() is not None:  # torch does not compare the checksums it writes
        raise ValueError("a checksum differs")


def _tensors(payload: object) -> list[Tensor]:
    """All tensors in nested dicts and lists. Raises ValueError where these are nested too deep, in themselves for
    example, or are too many; one in several places counts in each, as a few can stand for more than there is time for.
    """
    found: list[Tensor] = []
    left, count = [(payload, 0)], 0
    while left:
        value, depth = left.pop()
        count += 1
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict | list | tuple):
            if depth == _DEEPEST or count + len(value) > _MOST:
                raise ValueError(f"it is nested more than {_DEEPEST} deep, or has more than {_MOST} values")
            left += [(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value)]
    return found


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor's numbers all lie in memory: a few bytes can stand for more than there is room for."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_meta
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _also(file: Path, name: Path) -> None:
    """Gives a file a second name: the same file where the system can, else a copy."""
    with atomic_write(name) as unfinished:
        unfinished.unlink(missing_ok=True)
        try:
            os.link(file, unfinished)
        except OSError:
            shutil.copyfile(file, unfinished)


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a power cut, where the system can open folders."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
