"""PyTorch programs, .pt2: written and checked with torch.export, read back as plain weights.

torch.export.load runs what a file tells it to: pickles, expressions, names of functions. So a file from elsewhere is
never loaded with it; the description and the weights are taken out, and our own network is built from them.
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
from gan_nst.inference.exported import KEY, PortableDescription, generator_of, to_text, told
from gan_nst.inference.portable.onnx import Whole, make_program

_WEIGHTS = "data/weights/"
_CONFIG = _WEIGHTS + "model_weights_config.json"
_PREFIX = "generator."  # of the weights' names; "generator.network." where they are widened
_TYPES: dict[int, np.dtype[Any]] = {6: np.dtype("<f2"), 7: np.dtype("<f4")}  # the archive's numbers of them
_LONGEST = 2**20  # bytes of text in a file of ours, at most


def write_program(generator: nn.Module, description: PortableDescription, path: Path) -> None:
    """Writes the generator as a program of torch.export, on the CPU. Equal ones become equal files.

    float16: the weights take half the space, and are computed with as float32.
    """
    half = description.precision == "float16"
    plain = copy.deepcopy(generator).to("cpu", torch.float16 if half else torch.float32)
    plain = plain.to(memory_format=torch.contiguous_format).requires_grad_(False)
    whole = Whole(_Widened(plain) if half else plain, description.pixels)
    content = io.BytesIO()
    torch.export.save(make_program(whole), content, extra_files={KEY: to_text(description)})
    path.write_bytes(content.getvalue())


def run_program(path: Path) -> Callable[[Tensor], Tensor]:
    """The program in a file that was written here, to be called with images: for a file from elsewhere it would run
    whatever that tells it to.
    """
    return cast(Callable[[Tensor], Tensor], torch.export.load(io.BytesIO(path.read_bytes())).module())


def read_program(path: Path) -> tuple[nn.Module, PortableDescription]:
    """The generator whose weights a file of ours holds, on the CPU, frozen, and its description. Nothing in the file is
    run. Raises CheckpointError for anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {name.partition("/")[2]: name for name in archive.namelist()}
            described = entries.get(f"extra/{KEY}")
            if described is None:
                raise CheckpointError(
                    f"{path}: not a program that gan-nst wrote (it does not say what it is)"
                )
            description = told(PortableDescription, _member(archive, described, _LONGEST).decode(), path)
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
    return generator_of(description, weights, path), description


def _member(archive: zipfile.ZipFile, name: str, longest: int) -> bytes:
    """What is stored under a name; a length that is a lie is found before memory is taken for it."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > longest:
        raise ValueError(f"{name} is packed, or longer than its content can be")
    return archive.read(info)


def _tensor(archive: zipfile.ZipFile, entries: dict[str, str], entry: dict[str, Any]) -> Tensor:
    """A weight as float32, of the bytes that lie there row by row."""
    meta = entry["tensor_meta"]
    kind = _TYPES[meta["dtype"]]
    shape = [int(size["as_int"]) for size in meta["sizes"]]
    if entry["use_pickle"] or min(shape, default=1) < 1:
        raise ValueError("a weight is no plain tensor")
    length = kind.itemsize * int(np.prod(shape, dtype=object))
    content = _member(archive, entries[_WEIGHTS + entry["path_name"]], length)
    return torch.from_numpy(np.frombuffer(content, kind).astype(np.float32).reshape(shape))


class _Widened(nn.Module):
    """A network of float16 weights that computes in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.multiple = network.multiple

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: weight.float() for name, weight in self.network.named_parameters()}
        y: Tensor = functional_call(self.network, weights, (x,))
        return y
