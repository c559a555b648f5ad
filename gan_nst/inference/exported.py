"""An exported generator: one safetensors file that says by itself what it is and how it is used."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from gan_nst.config import Section, validate
from gan_nst.errors import CheckpointError, SettingsError
from gan_nst.images import Resize
from gan_nst.networks import build

_KEY = "gan_nst"


class TrainingScale(Section):
    """The scale of the pictures a generator was trained on."""

    load_size: int = Field(ge=1, description="shorter side, in pixels, that pictures were resized to")
    crop_size: int = Field(ge=1, description="side of the training crops")
    resize: Resize = Field("short_side", description="how they were resized")


class Description(Section):
    """What an exported generator's file says of it; without time, path or machine, so equal generators are
    equal files.
    """

    format: Literal[1] = 1
    network: dict[str, Any] = Field(description="spec that networks.build takes")
    translation: str = Field(description='"ab", for example')
    training_scale: TrainingScale
    picture_range: tuple[Literal[-1], Literal[1]] = (-1, 1)
    method: str
    scores: dict[str, float] = {}
    licence: str | None = None


def export(generator: nn.Module, description: Description, path: Path) -> None:
    """Writes the generator's weights as float32 and its description, whole or not at all."""
    weights = {
        name: w.detach().to("cpu", torch.float32).contiguous() for name, w in generator.state_dict().items()
    }
    text = json.dumps(description.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    unfinished = path.with_suffix(".part")
    try:
        with open(unfinished, "wb") as file:
            file.write(save(weights, {_KEY: text}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: could not be written ({error.strerror})") from None


def load_exported(path: Path) -> tuple[nn.Module, Description]:
    """The generator in a file, on the CPU, frozen, and its description. Raises CheckpointError for anything
    else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({' '.join(str(error).split())})"
        ) from None
    if _KEY not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not an exported gan_nst generator")
    try:
        description = validate(Description, json.loads(metadata[_KEY]), where=str(path))
        generator = build(description.network)
        generator.load_state_dict(weights)
    except (ValueError, SettingsError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its weights and its description disagree ({str(error).splitlines()[0]})"
        ) from None
    if not hasattr(generator, "multiple"):
        raise CheckpointError(f"{path}: its network, {description.network['name']}, is no generator")
    if not all(torch.isfinite(weight).all() for weight in weights.values()):
        raise CheckpointError(f"{path}: its weights are not finite")
    return generator.requires_grad_(False).eval(), description
