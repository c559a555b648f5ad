"""Other people's network weights: where they are looked for, and how they are loaded without running code.

In this order: a path that was given; the folder named by `GAN_NST_WEIGHTS`; torch's hub cache, where torchvision
and torch-fidelity put theirs too. A download is started by an explicit request only (`fetch`).
"""

import hashlib
import os
import pickle
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor

from gan_nst.core.errors import WeightsError, reason


@dataclass(frozen=True)
class Pretrained:
    """A file of weights: what it is, the names it goes by, the one it is downloaded under first, and from where.

    url: without one it cannot be downloaded. Names that end in `-HASH.pth` tell the beginning of their SHA-256.
    """

    what: str
    names: tuple[str, ...]
    url: str | None = None


def find(wanted: Pretrained, given: Path | None = None) -> Path | None:
    """The file, or None. Raises WeightsError when a path was given and is no file."""
    if given is not None:
        if not given.is_file():
            raise WeightsError(f"{given}: no such file ({wanted.what})")
        return given
    candidates = [folder / name for folder in _folders() for name in wanted.names]
    return next((path for path in candidates if path.is_file()), None)


def require(wanted: Pretrained, given: Path | None = None, otherwise: str = "") -> Path:
    """The file. Raises WeightsError saying which is missing, where it was looked for, and how to go on.

    otherwise: further ways on, as the end of a sentence.
    """
    path = find(wanted, given)
    if path is not None:
        return path
    looked = ", ".join(str(folder) for folder in _folders())
    named = "" if "GAN_NST_WEIGHTS" in os.environ else " (GAN_NST_WEIGHTS names no folder)"
    raise WeightsError(
        f"{wanted.what}: no {' or '.join(wanted.names)} in {looked}{named}; "
        f"put it there{', or ' + otherwise if otherwise else ''}"
    )


def fetch(wanted: Pretrained) -> Path:
    """The file, downloaded into torch's hub cache when it lies nowhere; a wrong hash or a broken connection leaves
    nothing behind. Raises WeightsError.
    """
    path = find(wanted)
    if path is not None:
        return path
    assert wanted.url is not None
    target = _hub() / wanted.names[0]
    stem, _, beginning = target.stem.rpartition("-")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(wanted.url, str(target), beginning if stem else None)
    except (OSError, HTTPException, RuntimeError) as error:
        raise WeightsError(f"{wanted.url}: could not be downloaded ({reason(error)})") from None
    return target


def load(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name, on the CPU; code in it is never run. Raises WeightsError."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(f"{path}: holds more than plain tensors and was not loaded") from None
    except Exception as error:  # torch raises whatever a damaged file makes it stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: damaged or no file of weights ({reason})") from None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    ):
        raise WeightsError(f"{path}: no weights by name")
    odd = next(
        (
            name
            for name, w in weights.items()
            if w.layout != torch.strided or w.is_complex() or w.is_quantized
        ),
        None,
    )
    if odd is not None:
        raise WeightsError(f"{path}: {odd} is sparse, complex or quantised; plain numbers are expected")
    broken = next((name for name, w in weights.items() if not w.isfinite().all()), None)
    if broken is not None:
        raise WeightsError(f"{path}: {broken} is not finite")
    return weights


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders() -> list[Path]:
    named = os.environ.get("GAN_NST_WEIGHTS")
    return [*([Path(named)] if named else []), _hub()]


def _hub() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints")
