"""Other people's network weights: where they are looked for, and how they are loaded without running code.

They are looked for, in this order, at a given path, in the folder `GAN_NST_WEIGHTS`, and in torch's hub cache, which
torchvision and torch-fidelity use too. Only an explicit request starts a download (`fetch`).
"""

import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor, nn

from gan_nst.core.errors import WeightsError, reason, shorten


@dataclass(frozen=True)
class Pretrained:
    """A file of weights.

    what: names the weights in messages. names: possible file names; a download gets the first, and is checked if
    that ends in `-HASH.pth`, with the beginning of the SHA-256. url: None if it cannot be downloaded.
    """

    what: str
    names: tuple[str, ...]
    url: str | None = None


def find(wanted: Pretrained, given: Path | None = None) -> Path | None:
    """Returns the file, or None. Raises WeightsError if a path was given and is not a file."""
    if given is not None:
        if not given.is_file():
            raise WeightsError(f"{given}: no such file ({wanted.what})")
        return given
    candidates = [folder / name for folder in _folders() for name in wanted.names]
    return next((path for path in candidates if path.is_file()), None)


def require(wanted: Pretrained, given: Path | None = None, otherwise: str = "") -> Path:
    """Returns the file. Raises WeightsError naming the missing file, where it was looked for, and what to do.

    otherwise: further things to do, as the end of a sentence.
    """
    path = find(wanted, given)
    if path is not None:
        return path
    looked = ", ".join(str(folder) for folder in _folders())
    named = "" if "GAN_NST_WEIGHTS" in os.environ else " (GAN_NST_WEIGHTS is not set)"
    raise WeightsError(
        f"{wanted.what}: no {' or '.join(wanted.names)} in {looked}{named}; "
        f"put it there{', or ' + otherwise if otherwise else ''}"
    )


def fetch(wanted: Pretrained) -> Path:
    """Returns the file, downloaded into torch's hub cache if it is not found. A wrong hash or a broken connection
    leaves nothing behind. Raises WeightsError.
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
    """Returns the tensors in a file by name, on the CPU, without running code from it. Raises WeightsError."""
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(name, str) and torch.is_tensor(weight) for name, weight in weights.items()):
            raise ValueError(f"expected tensors by name, found {', '.join(map(str, weights))}")
        broken = next((name for name, weight in weights.items() if not weight.isfinite().all()), None)
    except pickle.UnpicklingError:
        raise WeightsError(f"{path}: contains more than plain tensors and was not loaded") from None
    except Exception as error:  # a damaged file can make torch raise anything
        raise WeightsError(f"{path}: damaged, or not a file of weights ({shorten(reason(error))})") from None
    if broken is not None:
        raise WeightsError(f"{path}: {broken} is not finite")
    return weights


def fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Gives a network built on the meta device its weights, by name; it is frozen and in evaluation mode afterwards.

    path, what: the file they come from and the network that is expected in it, for the message. Raises WeightsError
    when weights are missing or have another shape.
    """
    needed = network.state_dict()
    wrong = next((n for n, w in needed.items() if n not in weights or weights[n].shape != w.shape), None)
    if wrong is not None:
        problem = "lacks" if wrong not in weights else "has another shape of"
        raise WeightsError(f"{path}: not {what} (it {problem} {wrong})")
    network.load_state_dict({name: weights[name].to(w.dtype) for name, w in needed.items()}, assign=True)
    network.requires_grad_(False).eval()


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders() -> list[Path]:
    named = os.environ.get("GAN_NST_WEIGHTS")
    return [*([Path(named)] if named else []), _hub()]


def _hub() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints")
