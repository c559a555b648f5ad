"""`gan-nst data`: making and looking after data sets."""

import logging
from pathlib import Path

from gan_nst.core.errors import SettingsError
from gan_nst.core.terminal import track
from gan_nst.data.demo import make_demo
from gan_nst.data.smoothing import share_smoothed, smooth_edges
from gan_nst.data.stills import Frames, take_frames
from gan_nst.images.arrays import resize_picture
from gan_nst.images.files import read_picture, write_picture
from gan_nst.inference.outputs import plan_outputs
from gan_nst.runs.prepare import DEMO_DOMAIN, draw_if_missing
from gan_nst.runs.settings import find_config, load_settings

log = logging.getLogger(__name__)


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
