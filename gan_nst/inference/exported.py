"""Exported generators: one safetensors file with the weights and a description of how to use them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gan_nst.core.errors import CheckpointError, SettingsError, format_value, reason, shorten, writing
from gan_nst.core.files import atomic_write, remove_temporaries
from gan_nst.core.legacy import upgrade_description
from gan_nst.core.options import Resize
from gan_nst.core.settings import Section, validate
from gan_nst.networks import build

KEY = "gan_nst"  # under which every format stores the description


class TrainingScale(Section):
    """The scale of the images that a generator was trained on."""

    load_size: int = Field(ge=1, description="shorter side, in pixels, that images were resized to")
    crop_size: int = Field(ge=1, description="side of the training crops")
    resize: Resize = Field("short_side", description="how they were resized")


class Description(Section):
    """The metadata of an exported generator. It has no time, path or machine, so equal generators give equal files."""

    format: Literal[1] = 1
    network: dict[str, Any] = Field(description="spec for networks.build")
    translation: str = Field(description='"ab", for example')
    training_scale: TrainingScale
    image_range: tuple[Literal[-1], Literal[1]] = (-1, 1)
    method: str
    scores: dict[str, float] = {}
    licence: str | None = None


class PortableDescription(Description):
    """The metadata of a file for other programs."""

    pixels: Literal["uint8", "float"] = Field("uint8", description="RGB in and out: 0 to 255, or 0 to 1")
    precision: Literal["float32", "float16", "int8"] = "float32"
    smallest: int = Field(1, ge=1, description="side of the smallest images that it accepts, in pixels")


def to_json(description: Description) -> str:
    """The description as sorted JSON, the same for equal descriptions."""
    return json.dumps(description.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


D = TypeVar("D", bound=Description)


def parse_description(kind: type[D], text: str, path: Path) -> D:
    """Parses a file's description. Raises CheckpointError when it is not a valid one."""
    try:
        plain = json.loads(text)
        upgrade_description(plain)
        return validate(kind, plain)
    except (ValueError, RecursionError, SettingsError) as error:
        raise CheckpointError(
            f"{path}: its metadata is not a valid description of a generator ({shorten(str(error))})"
        ) from None


def serialize(generator: nn.Module, description: Description, weights: torch.dtype = torch.float32) -> bytes:
    """The content of a file with the generator's weights, as float32 or float16, and its description."""
    tensors = {name: w.detach().to("cpu", weights).contiguous() for name, w in generator.state_dict().items()}
    return save(tensors, {KEY: to_json(description)})


def export(generator: nn.Module, description: Description, path: Path) -> None:
    """Writes the generator's weights, as float32, and its description, atomically. Raises CheckpointError."""
    remove_temporaries(path.parent, {path.name})
    with writing(path), atomic_write(path, sync=True) as unfinished:
        unfinished.write_bytes(serialize(generator, description))


def load_exported(path: Path) -> tuple[nn.Module, Description]:
    """Loads the generator in a file, on the CPU and frozen, and its description. Raises CheckpointError."""
    description, weights = _read(path, weights=True)
    return build_generator(description, weights, path), description


def read_description(path: Path) -> Description:
    """Reads the description of an exported generator without its weights. Raises CheckpointError."""
    return _read(path, weights=False)[0]


def build_generator(description: Description, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Builds the described generator, frozen, with these weights. path: their file, for errors.

    Raises CheckpointError when description and weights do not match.
    """
    unsupported = next((name for name, weight in weights.items() if not weight.is_floating_point()), None)
    if unsupported is not None:
        raise CheckpointError(
            f"{path}: {format_value(unsupported)} has type {weights[unsupported].dtype}; floating point is expected"
        )
    try:
        with torch.device("meta"):  # so that a description larger than the file takes no memory
            generator = build(description.network)
        # Copied to separate memory in one layout for all files: rounding depends on both.
        plain = {
            name: w.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            for name, w in weights.items()
        }
        generator.load_state_dict(plain, assign=True)
    except (ValueError, SettingsError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its weights do not match its description ({shorten(str(error))})"
        ) from None
    if not hasattr(generator, "multiple"):
        raise CheckpointError(f"{path}: its network, {description.network['name']}, is not a generator")
    if not all(torch.isfinite(weight).all() for weight in weights.values()):
        raise CheckpointError(f"{path}: its weights are not finite")
    return generator.requires_grad_(False).eval()


def _read(path: Path, *, weights: bool) -> tuple[Description, dict[str, Tensor]]:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: not a file")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in (file.keys() if weights else ())}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        why = shorten(reason(error))
        raise CheckpointError(f"{path}: not a readable safetensors file ({why})") from None
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not an exported gan_nst generator")
    return parse_description(Description, text, path), tensors
