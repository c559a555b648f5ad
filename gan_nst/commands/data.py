"""`gan-nst data`: making and looking after data sets."""

import logging
from pathlib import Path

from gan_nst.commands.settings import find_config, load_settings
from gan_nst.data.demo import make_demo
from gan_nst.data.folders import has_pictures
from gan_nst.data.frames import Frames, take_frames
from gan_nst.data.settings import DataSettings
from gan_nst.data.smoothing import share_smoothed, smooth_edges
from gan_nst.errors import DataError, SettingsError
from gan_nst.images import read_picture, resize_picture, write_picture
from gan_nst.inference.folder.outputs import plan_outputs
from gan_nst.progress import track

log = logging.getLogger(__name__)

DEMO_DOMAIN = "photo2cartoon"


def data_demo(folder: Path | str, *, size: int = 256, count: int = 400, seed: int = 0) -> None:
    """Draws the demo data set into a folder: `count` pictures a domain, `size` pixels square.

    Raises DataError when the folder already holds something.
    """
    folder = Path(folder)
    make_demo(folder, size, count, seed)
    log.info(
        f"{folder}: {count} photographs (trainA), {count} cartoons (trainB); validation and test are paired"
    )


def data_smooth(pictures: Path | str, output: Path | str, *, size: int | None = None) -> None:
    """Writes the edge-smoothed version of every picture under a folder.

    size: shorter side, in pixels, to resize to first; at `data.load_size` they are what CartoonGAN's discriminator is
    shown as wrong. None keeps the size.
    Raises DataError for what cannot be read or written.
    """
    targets = plan_outputs(Path(pictures), Path(output))
    shares = []
    for file, target in track(list(targets.items()), "smoothing edges"):
        picture = read_picture(file)
        picture = picture if size is None else resize_picture(picture, size, "short_side")
        smoothed = smooth_edges(picture)
        shares.append(share_smoothed(picture, smoothed))
        write_picture(smoothed, target)
    log.info(f"{output}: {len(shares)} pictures, {sum(shares) / len(shares):.0%} of their pixels smoothed")


def data_frames(
    film: Path | str, folder: Path | str, *, every: float = 2.0, size: int | None = 256
) -> Frames:
    """Takes stills of a film into a folder, and says what was dropped.

    every: seconds after which a long scene gives another still. size: the stills' shorter side in pixels; None keeps
    the film's. Raises DataError for what is no film, or gives no still.
    """
    frames = take_frames(Path(film), Path(folder), every=every, size=size)
    for line in frames.report().splitlines():
        log.info(line)
    return frames


def demo_for_training(domain: str, method: str = "cyclegan") -> None:
    """Makes the demo pictures that training would make, unless they are there. Raises SettingsError for a
    domain of the user's own."""
    if domain != DEMO_DOMAIN:
        raise SettingsError(
            f"{domain}: only {DEMO_DOMAIN} can be drawn; put your own pictures into datasets/{domain}"
        )
    settings, _, _ = load_settings(find_config(domain, method), [f"data.domain={domain}"])
    if not draw_if_missing(settings.data):
        log.info(f"{settings.data.root / domain}: has pictures already")


def draw_if_missing(data: DataSettings) -> bool:
    """Draws the demo pictures, at the size training loads, when that is the domain and it has none; whether
    it did.
    """
    folder = data.root / data.domain
    if data.a is not None or data.domain != DEMO_DOMAIN or has_pictures(data):
        return False
    log.info(f"{folder}: no pictures; drawing the demo world there, at {data.load_size} pixels")
    try:
        make_demo(folder, size=data.load_size)
    except DataError:
        if not has_pictures(data):  # another run has drawn them meanwhile
            raise
    return True


def refuse_small_demo(data: DataSettings) -> None:
    """Raises DataError when the demo was drawn for a smaller job, on a machine without a GPU for example."""
    folder = data.root / data.domain
    drawn = folder / "trainA" / "photo-00000.png"
    if data.a is not None or data.domain != DEMO_DOMAIN or data.upscale or not drawn.exists():
        return
    if (size := min(read_picture(drawn).shape[:2])) < data.crop_size:
        raise DataError(
            f"{folder}: its demo pictures were drawn at {size} pixels, data.crop_size is {data.crop_size}; "
            "remove the folder, and they are drawn anew"
        )
