"""`gan-nst data`: making and looking after data sets."""

import logging
from pathlib import Path

from gan_nst.data.demo import make_demo

log = logging.getLogger(__name__)


def data_demo(
    folder: Path | str, *, size: int = 256, count: int = 400, seed: int = 0, keep: bool = False
) -> None:
    """Draws the demo data set into a folder: `count` pictures a domain, `size` pixels square.

    keep: does nothing when the folder already has pictures, instead of raising DataError.
    """
    folder = Path(folder)
    if keep and any(folder.glob("train*/*")):
        log.info(f"{folder}: already has pictures")
        return
    make_demo(folder, size, count, seed)
    log.info(
        f"{folder}: {count} photographs (trainA), {count} cartoons (trainB), and paired pictures for validation and test"
    )
