"""`gan-nst import`: a generator that another project published becomes an exported one of ours."""

import logging
import shlex
from pathlib import Path

from gan_nst.core.errors import CheckpointError, SettingsError, WeightsError, cannot_write
from gan_nst.core.options import ImportOptions
from gan_nst.core.settings import validate
from gan_nst.core.weights import load
from gan_nst.inference.exported import Description, TrainingScale, export
from gan_nst.inference.foreign import EXPECTED, Foreign, recognise
from gan_nst.networks import build

log = logging.getLogger(__name__)


def import_generator(
    source: Path | str, output: Path | str, options: ImportOptions = ImportOptions()
) -> Description:
    """Turns the weights of another project's generator into an exported generator, which `translate` runs, and returns
    its description.

    source: a file of tensors by name; code in it is never run. output: a .safetensors file that does not exist yet.
    The direction defaults to what the file's name says (`_net_G_B` maps b to a), otherwise "ab"; the training scale
    to that of its project. Raises GanNstError, one line, for every mistake in what was given.
    """
    source, output = Path(source), Path(output)
    if options.direction not in (None, "ab", "ba"):
        raise SettingsError(f"--direction: expected ab or ba, got {options.direction!r}")
    if output.suffix != ".safetensors":
        raise SettingsError(f"{output}: the exported generator is a .safetensors file; give it that suffix")
    if output.exists():
        raise CheckpointError(f"{output}: already exists; remove it, or give another name")
    foreign = _read(source)
    generator = build(foreign.network)
    generator.load_state_dict(foreign.weights)
    description = Description(
        network=foreign.network,
        translation=options.direction or _direction(source),
        training_scale=_scale(foreign, options),
        method=foreign.layout.method,
        licence=options.licence,
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(cannot_write(output.parent, error, "could not be created")) from None
    export(generator, description, output)
    width, blocks = foreign.network["width"], foreign.network["blocks"]
    log.info(f"{source}: {foreign.layout.name}, width {width}, {blocks} blocks")
    log.info(
        f"{output}: translates {description.translation}, best near {description.training_scale.load_size} pixels"
    )
    log.info(f"try: gan-nst translate {shlex.quote(str(output))} MY_PHOTOS --output TRANSLATED")
    return description


def _read(source: Path) -> Foreign:
    if not source.is_file():
        raise WeightsError(
            f"{source}: {'is a folder; give a file in it' if source.is_dir() else 'no such file'}"
        )
    try:
        weights = load(source)
    except WeightsError as error:
        raise WeightsError(f"{error}; expected {EXPECTED}") from None
    return recognise(weights, str(source))


def _direction(source: Path) -> str:
    """What a file of pytorch-CycleGAN-and-pix2pix is called after: its net_G_A maps a to b, its net_G_B b to a."""
    return "ba" if source.stem.endswith("_net_G_B") else "ab"


def _scale(foreign: Foreign, options: ImportOptions) -> TrainingScale:
    usual = foreign.layout.scale
    load = options.load_size or usual.load_size
    crop = options.crop_size or min(usual.crop_size, load)
    given = {"load_size": load, "crop_size": crop, "resize": options.resize or usual.resize}
    scale = validate(TrainingScale, given, where="training scale")
    if scale.resize != "none" and crop > load:
        raise SettingsError(f"training scale: crop_size {crop} is larger than load_size {load}; lower it")
    return scale
