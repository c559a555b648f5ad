"""Loads generators from ONNX and .pt2 files."""

from pathlib import Path

from torch import nn

from gan_nst.core.errors import CheckpointError
from gan_nst.inference.exported import Description
from gan_nst.inference.portable.onnx import OnnxGenerator
from gan_nst.inference.portable.program import read_program


def load_portable(path: Path) -> tuple[nn.Module, Description]:
    """Loads the generator in an .onnx or .pt2 file that `gan-nst export` wrote, on the CPU, and its description.

    An ONNX file is run by onnxruntime: images may have any size, but cannot be translated in strips. A .pt2 file's
    weights are loaded into our own network. Raises CheckpointError, one line, for any other file; SettingsError when a
    package is missing.
    """
    if path.is_dir() or not path.exists():
        raise CheckpointError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    if path.suffix == ".onnx":
        generator = OnnxGenerator(path)
        return generator.eval(), generator.description
    return read_program(path)
