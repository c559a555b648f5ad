"""Unpaired image translation with GANs: train, evaluate, and use the result.

The names below are the public interface. They are imported when first used, so that `import gan_nst` costs
nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gan_nst.core.version import __version__

if TYPE_CHECKING:
    from gan_nst.commands.bench import benchmark
    from gan_nst.commands.curves import curves
    from gan_nst.commands.data import data_demo, data_frames, data_smooth
    from gan_nst.commands.data_check import data_check
    from gan_nst.commands.data_get import data_get
    from gan_nst.commands.evaluate import evaluate
    from gan_nst.commands.export import export
    from gan_nst.commands.importing import import_generator
    from gan_nst.commands.train import train
    from gan_nst.commands.translate import translate
    from gan_nst.core.errors import GanNstError
    from gan_nst.core.options import (
        AppOptions,
        BenchOptions,
        CheckOptions,
        DemoOptions,
        EvaluateOptions,
        ExportOptions,
        FramesOptions,
        GetOptions,
        ImportOptions,
        SmoothOptions,
        TrainOptions,
        TranslateOptions,
        TranslatorOptions,
    )
    from gan_nst.inference.translator import Translator
    from gan_nst.runs.generators import load_translator
    from gan_nst.web.server import app

_HOMES = {
    "benchmark": "gan_nst.commands.bench",
    "data_check": "gan_nst.commands.data_check",
    "curves": "gan_nst.commands.curves",
    "data_demo": "gan_nst.commands.data",
    "data_frames": "gan_nst.commands.data",
    "data_smooth": "gan_nst.commands.data",
    "evaluate": "gan_nst.commands.evaluate",
    "export": "gan_nst.commands.export",
    "data_get": "gan_nst.commands.data_get",
    "import_generator": "gan_nst.commands.importing",
    "train": "gan_nst.commands.train",
    "translate": "gan_nst.commands.translate",
    "GanNstError": "gan_nst.core.errors",
    "AppOptions": "gan_nst.core.options",
    "BenchOptions": "gan_nst.core.options",
    "CheckOptions": "gan_nst.core.options",
    "DemoOptions": "gan_nst.core.options",
    "EvaluateOptions": "gan_nst.core.options",
    "ExportOptions": "gan_nst.core.options",
    "FramesOptions": "gan_nst.core.options",
    "GetOptions": "gan_nst.core.options",
    "ImportOptions": "gan_nst.core.options",
    "SmoothOptions": "gan_nst.core.options",
    "TrainOptions": "gan_nst.core.options",
    "TranslateOptions": "gan_nst.core.options",
    "TranslatorOptions": "gan_nst.core.options",
    "Translator": "gan_nst.inference.translator",
    "load_translator": "gan_nst.runs.generators",
    "app": "gan_nst.web.server",
}

__all__ = [
    "AppOptions",
    "BenchOptions",
    "CheckOptions",
    "DemoOptions",
    "EvaluateOptions",
    "ExportOptions",
    "FramesOptions",
    "GanNstError",
    "GetOptions",
    "ImportOptions",
    "SmoothOptions",
    "TrainOptions",
    "TranslateOptions",
    "Translator",
    "TranslatorOptions",
    "__version__",
    "app",
    "benchmark",
    "curves",
    "data_check",
    "data_demo",
    "data_frames",
    "data_get",
    "data_smooth",
    "evaluate",
    "export",
    "import_generator",
    "load_translator",
    "train",
    "translate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gan_nst' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
