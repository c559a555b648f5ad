"""`gan-nst import`: a generator that another project published becomes an exported one of ours."""

import logging
import shlex
from pathlib import Path

from gan_nst.core.errors import CheckpointError, SettingsError, WeightsError
from gan_nst.core.options import ImportOptions
from gan_nst.core.pretrained import load
from gan_nst.inference.exported import Description, TrainingScale, build_generator, export
from gan_nst.inference.foreign import EXPECTED, recognise
from gan_nst.inference.outputs import make_folder

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
    if not source.is_file():
        what = "is a folder; give a file in it" if source.is_dir() else "no such file"
        raise WeightsError(f"{source}: {what}")
    try:
        weights = load(source)
    except WeightsError as error:
        raise WeightsError(f"{error}; expected {EXPECTED}") from None
    foreign = recognise(weights, str(source))
    description = Description(
        network=foreign.network,
        # In pytorch-CycleGAN-and-pix2pix, net_G_A maps a to b, and net_G_B b to a.
        translation=options.direction or ("ba" if source.stem.endswith("_net_G_B") else "ab"),
        training_scale=_scale(foreign.layout.scale, options),
        method=foreign.layout.method,
        licence=options.licence,
    )
    generator = build_generator(description, foreign.weights, source)
    make_folder(output.parent)
    export(generator, description, output)
    width, blocks = foreign.network["width"], foreign.network["blocks"]
    log.info(f"{source}: {foreign.layout.name}, width {width}, {blocks} blocks")
    log.info(
        f"{output}: translates {description.translation}, best near {description.training_scale.load_size} pixels"
    )
    log.info(f"try: gan-nst translate {shlex.quote(str(output))} MY_PHOTOS --output TRANSLATED")
    return description


def _scale(usual: TrainingScale, options: ImportOptions) -> TrainingScale:
    load_size = options.load_size or usual.load_size
    crop_size = options.crop_size or min(usual.crop_size, load_size)
    resize = options.resize or usual.resize
    if resize != "none" and crop_size > load_size:
        raise SettingsError(
            f"training scale: crop_size {crop_size} is larger than load_size {load_size}; lower it"
        )
    return TrainingScale(load_size=load_size, crop_size=crop_size, resize=resize)
