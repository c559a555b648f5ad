"""Generators in the files of other programs, ONNX and PyTorch's .pt2, loaded again."""

from pathlib import Path

from torch import nn

from gan_nst.core.errors import CheckpointError
from gan_nst.inference.exported import Description
from gan_nst.inference.portable.onnx import Session
from gan_nst.inference.portable.program import read_program


def load_portable(path: Path) -> tuple[nn.Module, Description]:
    """The generator in an .onnx or .pt2 file that `gan-nst export` wrote, on the CPU, and what the file says of itself.

    An ONNX file is run as it is, with onnxruntime: its images may have any size, but cannot be cut into parts. Of a
    .pt2 file the weights are taken, in the network that they belong to. Raises CheckpointError, one line, for a file of
    anything else; SettingsError when a package to run it with is missing.
    """
    if path.is_dir() or not path.exists():
        raise CheckpointError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    if path.suffix == ".onnx":
        session = Session(path)
        return session.eval(), session.description
    return read_program(path)
