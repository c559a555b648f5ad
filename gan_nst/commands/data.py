"""`gan-nst data demo`, `data frames` and `data smooth`: making data sets, and seeing what smoothing makes of one."""

import logging
from pathlib import Path

from gan_nst.core.errors import SettingsError
from gan_nst.core.options import DemoOptions, FramesOptions, SmoothOptions
from gan_nst.core.terminal import track
from gan_nst.data.demo import make_demo
from gan_nst.data.frames import Frames, take_frames
from gan_nst.data.smoothing import share_smoothed, smooth_edges
from gan_nst.images.arrays import resize_image
from gan_nst.images.files import read_image, write_image
from gan_nst.inference.outputs import plan_outputs, remove_unfinished
from gan_nst.runs.prepare import DEMO_DOMAIN, draw_if_missing
from gan_nst.runs.settings import find_config, load_settings

log = logging.getLogger(__name__)


def data_demo(folder: Path | str | None = None, options: DemoOptions = DemoOptions()) -> None:
    """Draws the demo data set into a folder, or, with `options.domain`, what training on that domain would draw.

    Raises DataError when the folder already holds something, SettingsError for a domain other than the demo's.
    """
    if options.domain is not None:
        _draw_for_training(options.domain, options.method)
        return
    if folder is None:
        raise SettingsError("nowhere to draw: give a folder, or --domain NAME")
    make_demo(Path(folder), options.size, options.count, options.seed)
    log.info(
        f"{folder}: {options.count} photographs (trainA), {options.count} cartoons (trainB); validation and test are "
        "paired"
    )


def _draw_for_training(domain: str, method: str) -> None:
    if domain != DEMO_DOMAIN:
        raise SettingsError(
            f"{domain}: only {DEMO_DOMAIN} can be drawn; put your own images into datasets/{domain}"
        )
    settings, _, _ = load_settings(find_config(domain, method), [f"data.domain={domain}"])
    if not draw_if_missing(settings.data):
        log.info(f"{settings.data.root / domain}: already has images")


def data_smooth(images: Path | str, output: Path | str, options: SmoothOptions = SmoothOptions()) -> None:
    """Writes the edge-smoothed version of every image under a folder. At the size `data.load_size` they are what
    CartoonGAN's discriminator is shown as negatives. Raises DataError for what cannot be read or written.
    """
    targets = plan_outputs(Path(images), Path(output))
    remove_unfinished(targets.values())
    shares = []
    for file, target in track(list(targets.items()), "smoothing edges"):
        image = read_image(file)
        image = image if options.size is None else resize_image(image, options.size, "short_side")
        smoothed = smooth_edges(image)
        shares.append(share_smoothed(image, smoothed))
        write_image(smoothed, target)
    log.info(f"{output}: {len(shares)} images, {sum(shares) / len(shares):.0%} of their pixels smoothed")


def data_frames(video: Path | str, folder: Path | str, options: FramesOptions = FramesOptions()) -> Frames:
    """Takes frames from a video into a folder, and reports what was dropped; size None keeps the video's size.

    Raises DataError for a file that is not a video, or gives no frame.
    """
    frames = take_frames(Path(video), Path(folder), every=options.every, size=options.size)
    for line in frames.report().splitlines():
        log.info(line)
    return frames
