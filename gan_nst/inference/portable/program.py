"""PyTorch programs, .pt2: written and checked with torch.export, read back as plain weights.

torch.export.load executes parts of a file: pickles, expressions, function names. So an untrusted file is never
loaded with it; only the description and the weights are read, and our own network is built from them.
"""

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from gan_nst.core.errors import CheckpointError, reason
from gan_nst.inference.exported import KEY, PortableDescription, build_generator, parse_description, to_json
from gan_nst.inference.portable.onnx import ImageModel, trace_model

_WEIGHTS = "data/weights/"
_CONFIG = _WEIGHTS + "model_weights_config.json"
_PREFIX = "generator."  # of the weights' names; "generator.network." in float16 files
_TYPES: dict[int, np.dtype[Any]] = {6: np.dtype("<f2"), 7: np.dtype("<f4")}  # by the archive's type numbers
_LONGEST = 2**20  # bytes of metadata, at most


def write_program(generator: nn.Module, description: PortableDescription, path: Path) -> None:
    """Writes the generator as a program of torch.export, on the CPU.

    float16: the weights take half the space; the program still computes in float32.
    """
    half = description.precision == "float16"
    plain = copy.deepcopy(generator).to("cpu", torch.float16 if half else torch.float32)
    plain = plain.to(memory_format=torch.contiguous_format).requires_grad_(False)
    model = ImageModel(_Float32Compute(plain) if half else plain, description.pixels)
    content = io.BytesIO()  # torch.export.save insists on a suffix that an unfinished file lacks
    torch.export.save(trace_model(model), content, extra_files={KEY: to_json(description)})
    path.write_bytes(content.getvalue())


def run_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Returns the program in a file, to be called with images. Only for a file written by this process: loading may
    execute code from the file.
    """
    return cast(Callable[[Tensor], Tensor], torch.export.load(io.BytesIO(path.read_bytes())).module())


def read_program(path: Path) -> tuple[nn.Module, PortableDescription]:
    """Loads the generator in one of our files, on the CPU and frozen, and its description, executing nothing from the
    file. Raises CheckpointError for any other file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {name.partition("/")[2]: name for name in archive.namelist()}
            described = entries.get(f"extra/{KEY}")
            if described is None:
                raise CheckpointError(f"{path}: not a program that gan-nst wrote (it has no description)")
            description = parse_description(
                PortableDescription, _member(archive, described, _LONGEST).decode(), path
            )
            config = json.loads(_member(archive, entries[_CONFIG], 64 * _LONGEST))["config"]
            weights = {
                name.removeprefix(_PREFIX).removeprefix("network."): _tensor(archive, entries, entry)
                for name, entry in config.items()
                if name.startswith(_PREFIX)
            }
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a readable .pt2 file ({reason(error)})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: a program whose weights cannot be read ({type(error).__name__}: {reason(error)})"
        ) from None
    return build_generator(description, weights, path), description


def _member(archive: zipfile.ZipFile, name: str, longest: int) -> bytes:
    """The content of an archive member; a false length is detected before memory is allocated for it."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > longest:
        raise ValueError(f"{name} is compressed, or longer than it can be")
    return archive.read(info)


def _tensor(archive: zipfile.ZipFile, entries: dict[str, str], entry: dict[str, Any]) -> Tensor:
    """A weight, stored row by row, as float32."""
    meta = entry["tensor_meta"]
    kind = _TYPES[meta["dtype"]]
    shape = [int(size["as_int"]) for size in meta["sizes"]]
    if entry["use_pickle"] or min(shape, default=1) < 1:
        raise ValueError("a weight is not a plain tensor")
    length = kind.itemsize * int(np.prod(shape, dtype=object))
    content = _member(archive, entries[_WEIGHTS + entry["path_name"]], length)
    return torch.from_numpy(np.frombuffer(content, kind).astype(np.float32).reshape(shape))


class _Float32Compute(nn.Module):
    """A network with float16 weights that computes in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.multiple = network.multiple

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: weight.float() for name, weight in self.network.named_parameters()}
        y: Tensor = functional_call(self.network, weights, (x,))
        return y
