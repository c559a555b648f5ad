"""Loading the generators of a run, a checkpoint or an exported file."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gan_nst.core.device import device_for_rank
from gan_nst.core.errors import CheckpointError, SettingsError
from gan_nst.core.options import TranslatorOptions
from gan_nst.inference.exported import (
    Description,
    TrainingScale,
    build_generator,
    load_exported,
    read_description,
)
from gan_nst.inference.translator import Translator
from gan_nst.runs.folder import find_run
from gan_nst.tiling.segments import fuse_upsampling
from gan_nst.training import checkpoint

log = logging.getLogger(__name__)

FILES = (".safetensors", ".onnx", ".pt2")  # of exported generators


def load_translator(source: Path | str, options: TranslatorOptions = TranslatorOptions()) -> Translator:
    """A translator, to be called with an image: from a run, a checkpoint, or an exported generator's file.

    A finished run gives its exported generator; an unfinished one, the moving average in its newest checkpoint.
    """
    if options.scratch is not None and not options.scratch.is_dir():
        raise SettingsError(f"--scratch {options.scratch}: no such folder")
    generator, description = load_generator(Path(source), options.direction)
    return Translator(
        fuse_upsampling(generator),
        description,
        device_for_rank(options.device),
        options.precision,
        memory=options.memory,
        scratch=options.scratch,
    )


def list_directions(source: Path) -> list[str | None]:
    """The translations of a run, a checkpoint or an exported generator, to be asked for as `direction`.

    [None] for a file of another program's format, which has one and would have to be loaded. Raises CheckpointError.
    """
    if source.suffix in FILES[1:]:
        return [None]
    files = [source]
    if source.suffix not in (".safetensors", ".pt"):
        files = sorted(find_run(source).glob("generator*.safetensors"))
    if source.suffix == ".pt" or not files:
        return [*_payload(source)["translations"]]
    return [read_description(file).translation for file in files]


def load_weights(source: Path, translation: str) -> dict[str, Tensor] | None:
    """The weights of one translation's generator in a run or file; None when it has no such translation."""
    if source.suffix == ".safetensors":
        generator, description = load_exported(source)
        return generator.state_dict() if description.translation == translation else None
    payload = _payload(source)
    if translation not in payload["translations"]:
        return None
    return _averaged(payload, translation)


def load_generator(source: Path, direction: str | None) -> tuple[nn.Module, Description]:
    """The generator that `load_translator` makes a translator of, on the CPU, and its description."""
    if source.suffix in FILES:
        generator, description = _load_file(source)
        if direction not in (None, description.translation):
            raise CheckpointError(
                f"{source}: translates {description.translation}, not {direction}; omit --direction"
            )
        return generator, description
    if source.suffix != ".pt":
        run = find_run(source)
        names = ["generator"] if direction is None else [f"generator_{direction}", "generator"]
        for file in (run / f"{name}.safetensors" for name in names):
            if file.exists():
                generator, description = load_exported(file)
                if direction in (None, description.translation):
                    return generator, description
    payload = _payload(source)
    known = payload["translations"]
    name = direction or next(iter(known), "ab")
    if name not in known:
        raise CheckpointError(f"{source}: --direction {name} is unknown; it has {', '.join(known)}")
    log.info(f"{source}: translating {name} with the moving average of step {payload['step']}")
    return averaged_generator(payload, name, source)


def _load_file(source: Path) -> tuple[nn.Module, Description]:
    if source.suffix == ".safetensors":
        return load_exported(source)
    if source.suffix == ".pt2":
        from gan_nst.inference.portable.program import read_program

        return read_program(source)
    from gan_nst.inference.portable.onnx import OnnxGenerator

    generator = OnnxGenerator(source)
    return generator.eval(), generator.description


def averaged_generator(payload: Mapping[str, Any], name: str, where: Path) -> tuple[nn.Module, Description]:
    """The moving average of a translation's generator in a checkpoint, and its description. where: the run or the
    file, for errors. Raises CheckpointError when its parts do not fit each other.
    """
    try:
        description = describe(payload["translations"][name]["network"], name, payload["settings"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{where}: its settings are not those of a run") from None
    return build_generator(description, _averaged(payload, name), where), description


def describe(network: dict[str, Any], translation: str, settings: Mapping[str, Any]) -> Description:
    """The description of a run's generator. settings: the run's, as plain data."""
    data = settings["data"]
    scale = TrainingScale(load_size=data["load_size"], crop_size=data["crop_size"], resize=data["resize"])
    return Description(
        network=network, translation=translation, training_scale=scale, method=settings["method"]["name"]
    )


def _payload(source: Path) -> dict[str, Any]:
    if source.suffix == ".pt":
        return checkpoint.load(source)
    return checkpoint.load_newest(find_run(source) / "checkpoints")[1]


def _averaged(payload: Mapping[str, Any], translation: str) -> dict[str, Tensor]:
    prefix = payload["translations"][translation]["generator"] + "."
    return {name.removeprefix(prefix): w for name, w in payload["ema"].items() if name.startswith(prefix)}
