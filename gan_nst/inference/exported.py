"""An exported generator: one safetensors file that says by itself what it is and how it is used."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gan_nst.core.errors import CheckpointError, SettingsError, cannot_write, format_value, reason, shorten
from gan_nst.core.files import atomic_write
from gan_nst.core.legacy import upgrade_description
from gan_nst.core.options import Resize
from gan_nst.core.settings import Section, validate
from gan_nst.networks import build

KEY = "gan_nst"  # of the description, in every format


class TrainingScale(Section):
    """The scale of the images a generator was trained on."""

    load_size: int = Field(ge=1, description="shorter side, in pixels, that images were resized to")
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
    image_range: tuple[Literal[-1], Literal[1]] = (-1, 1)
    method: str
    scores: dict[str, float] = {}
    licence: str | None = None


class PortableDescription(Description):
    """What a file that other programs run says of itself beside that."""

    pixels: Literal["uint8", "float"] = Field("uint8", description="RGB in and out: 0 to 255, or 0 to 1")
    precision: Literal["float32", "float16", "int8"] = "float32"
    smallest: int = Field(1, ge=1, description="side of the smallest images that it takes, in pixels")


def to_text(description: Description) -> str:
    """The description as sorted JSON: the same for equal ones."""
    return json.dumps(description.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


D = TypeVar("D", bound=Description)


def told(kind: type[D], text: str, path: Path) -> D:
    """What a file says of itself. Raises CheckpointError when that is no such description."""
    try:
        plain = json.loads(text)
        upgrade_description(plain)
        return validate(kind, plain)
    except (ValueError, RecursionError, SettingsError) as error:
        raise CheckpointError(
            f"{path}: what it says of itself is no description of a generator ({shorten(str(error))})"
        ) from None


def export(
    generator: nn.Module, description: Description, path: Path, weights: torch.dtype = torch.float32
) -> None:
    """Writes the generator's weights, as float32 or in half the bytes as float16, and its description, whole or not at
    all.
    """
    tensors = {name: w.detach().to("cpu", weights).contiguous() for name, w in generator.state_dict().items()}
    with written(path) as unfinished:
        unfinished.write_bytes(save(tensors, {KEY: to_text(description)}))


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A hidden file beside `path`, which takes its place when the context ends, and is gone when it fails.

    Raises CheckpointError for whatever cannot be written.
    """
    try:
        with atomic_write(path, sync=True) as unfinished:
            yield unfinished
    except OSError as error:
        raise CheckpointError(cannot_write(path, error)) from None


def load_exported(path: Path) -> tuple[nn.Module, Description]:
    """The generator in a file, on the CPU, frozen, and its description. Raises CheckpointError for anything
    else.
    """
    with _opened(path) as file:
        description = _described(file, path)
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return generator_of(description, weights, path), description


def read_description(path: Path) -> Description:
    """What an exported generator's file says of itself; its weights are not read. Raises CheckpointError."""
    with _opened(path) as file:
        return _described(file, path)


def generator_of(description: Description, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The generator that a file describes, frozen, with the weights that it holds. Raises CheckpointError when they do
    not fit each other.
    """
    odd = next((name for name, weight in weights.items() if not weight.is_floating_point()), None)
    if odd is not None:
        raise CheckpointError(
            f"{path}: {format_value(odd)} is of {weights[odd].dtype}; floating point is expected"
        )
    try:
        with torch.device("meta"):  # so that a description of more than the file holds takes no memory
            generator = build(description.network)
        # In memory and in a layout of their own, whatever file they came from: rounding depends on both.
        plain = {
            name: w.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            for name, w in weights.items()
        }
        generator.load_state_dict(plain, assign=True)
    except (ValueError, SettingsError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its weights and its description disagree ({shorten(str(error))})"
        ) from None
    if not hasattr(generator, "multiple"):
        raise CheckpointError(f"{path}: its network, {description.network['name']}, is no generator")
    if not all(torch.isfinite(weight).all() for weight in weights.values()):
        raise CheckpointError(f"{path}: its weights are not finite")
    return generator.requires_grad_(False).eval()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file. Raises CheckpointError for anything else, and for what cannot be read of it."""
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: not a file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        why = shorten(reason(error))
        raise CheckpointError(f"{path}: not a readable safetensors file ({why})") from None


def _described(file: Any, path: Path) -> Description:
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise CheckpointError(f"{path}: a safetensors file, but not an exported gan_nst generator")
    return told(Description, text, path)
