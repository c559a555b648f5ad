"""The demo pictures of a training that has no others."""

import logging

from gan_nst.core.errors import DataError
from gan_nst.data.demo import make_demo
from gan_nst.data.domains import has_pictures
from gan_nst.data.settings import DataSettings
from gan_nst.images.files import read_picture

log = logging.getLogger(__name__)

DEMO_DOMAIN = "photo2cartoon"


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
