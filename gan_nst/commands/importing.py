"""`gan-nst import`: a generator that another project published becomes an exported one of ours."""

import logging
import shlex
from pathlib import Path

from gan_nst.core.errors import CheckpointError, SettingsError, WeightsError, cannot_write
from gan_nst.core.settings import validate
from gan_nst.core.weights import load
from gan_nst.images.arrays import Resize
from gan_nst.inference.exported import Description, TrainingScale, export
from gan_nst.inference.foreign import EXPECTED, Foreign, recognise
from gan_nst.networks import build

log = logging.getLogger(__name__)


def import_generator(
    source: Path | str,
    output: Path | str,
    *,
    direction: str | None = None,
    load_size: int | None = None,
    crop_size: int | None = None,
    resize: Resize | None = None,
    licence: str | None = None,
) -> Description:
    """Turns the weights of another project's generator into an exported generator, which `translate` runs, and returns
    what it says of itself.

    source: a file of tensors by name; code in it is never run. output: a .safetensors file that is not there yet.
    direction: "ab" or "ba"; by default what the file's name says (`_net_G_B` maps b to a), else "ab".
    load_size, crop_size, resize: the scale it was trained at; by default its project's.
    licence: that of the weights, for the file to tell.
    Raises GanNstError, one line, for every mistake in what was given.
    """
    source, output = Path(source), Path(output)
    if direction not in (None, "ab", "ba"):
        raise SettingsError(f"--direction: expected ab or ba, got {direction!r}")
    if output.suffix != ".safetensors":
        raise SettingsError(f"{output}: the exported generator is a .safetensors file; give it that suffix")
    if output.exists():
        raise CheckpointError(f"{output}: is there already; remove it or give another name")
    foreign = _read(source)
    generator = build(foreign.network)
    generator.load_state_dict(foreign.weights)
    description = Description(
        network=foreign.network,
        translation=direction or _direction(source),
        training_scale=_scale(foreign, load_size, crop_size, resize),
        method=foreign.layout.method,
        licence=licence,
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(cannot_write(output.parent, error, "cannot be made")) from None
    export(generator, description, output)
    _tell(source, output, foreign, description)
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


def _scale(
    foreign: Foreign, load_size: int | None, crop_size: int | None, resize: Resize | None
) -> TrainingScale:
    usual = foreign.layout.scale
    load = usual.load_size if load_size is None else load_size
    crop = min(usual.crop_size, load) if crop_size is None else crop_size
    given = {"load_size": load, "crop_size": crop, "resize": resize or usual.resize}
    scale = validate(TrainingScale, given, where="training scale")
    if scale.resize != "none" and crop > load:
        raise SettingsError(f"training scale: crop_size {crop} is larger than load_size {load}; lower it")
    return scale


def _tell(source: Path, output: Path, foreign: Foreign, told: Description) -> None:
    width, blocks = told.network["width"], told.network["blocks"]
    log.info(f"{source}: {foreign.layout.name}, width {width}, {blocks} blocks")
    log.info(f"{output}: translates {told.translation}, best near {told.training_scale.load_size} pixels")
    log.info(f"try: gan-nst translate {shlex.quote(str(output))} MY_PHOTOS --output TRANSLATED")
