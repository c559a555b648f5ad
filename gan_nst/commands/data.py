"""`gan-nst data`: making and looking after data sets."""

import logging
from pathlib import Path

from gan_nst.core.errors import SettingsError
from gan_nst.core.terminal import track
from gan_nst.data.demo import make_demo
from gan_nst.data.smoothing import share_smoothed, smooth_edges
from gan_nst.data.stills import Frames, take_frames
from gan_nst.images.arrays import resize_image
from gan_nst.images.files import read_image, write_image
from gan_nst.inference.outputs import plan_outputs
from gan_nst.runs.prepare import DEMO_DOMAIN, draw_if_missing
from gan_nst.runs.settings import find_config, load_settings

log = logging.getLogger(__name__)


def data_demo(folder: Path | str, *, size: int = 256, count: int = 400, seed: int = 0) -> None:
    """Draws the demo data set into a folder: `count` images a domain, `size` pixels square.

    Raises DataError when the folder already holds something.
    """
    folder = Path(folder)
    make_demo(folder, size, count, seed)
    log.info(
        f"{folder}: {count} photographs (trainA), {count} cartoons (trainB); validation and test are paired"
    )


def data_smooth(images: Path | str, output: Path | str, *, size: int | None = None) -> None:
    """Writes the edge-smoothed version of every image under a folder.

    size: shorter side, in pixels, to resize to first; at `data.load_size` they are what CartoonGAN's discriminator is
    shown as wrong. None keeps the size.
    Raises DataError for what cannot be read or written.
    """
    targets = plan_outputs(Path(images), Path(output))
    shares = []
    for file, target in track(list(targets.items()), "smoothing edges"):
        image = read_image(file)
        image = image if size is None else resize_image(image, size, "short_side")
        smoothed = smooth_edges(image)
        shares.append(share_smoothed(image, smoothed))
        write_image(smoothed, target)
    log.info(f"{output}: {len(shares)} images, {sum(shares) / len(shares):.0%} of their pixels smoothed")


def data_frames(
    video: Path | str, folder: Path | str, *, every: float = 2.0, size: int | None = 256
) -> Frames:
    """Takes stills of a video into a folder, and says what was dropped.

    every: seconds after which a long scene gives another still. size: the stills' shorter side in pixels; None keeps
    the video's. Raises DataError for what is no video, or gives no still.
    """
    frames = take_frames(Path(video), Path(folder), every=every, size=size)
    for line in frames.report().splitlines():
        log.info(line)
    return frames


def demo_for_training(domain: str, method: str = "cyclegan") -> None:
    """Makes the demo images that training would make, unless they are there. Raises SettingsError for a
    domain of the user's own."""
    if domain != DEMO_DOMAIN:
        raise SettingsError(
            f"{domain}: only {DEMO_DOMAIN} can be drawn; put your own images into datasets/{domain}"
        )
    settings, _, _ = load_settings(find_config(domain, method), [f"data.domain={domain}"])
    if not draw_if_missing(settings.data):
        log.info(f"{settings.data.root / domain}: has images already")
