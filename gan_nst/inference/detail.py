"""Detail that a translation at a smaller size lacks, brought back from the picture."""

from gan_nst.inference.bandwise import Rows, enlarged, in_floats
from gan_nst.photo import Pixels


def carried_detail(pixels: Pixels, small: Pixels, translated: Pixels) -> Rows:
    """The translation of `small`, which is `pixels` reduced, at full size."""
    picture, before, after = in_floats(pixels), in_floats(small), in_floats(translated)
    change = enlarged(lambda rows: after(rows) - before(rows), len(small), *pixels.shape[:2])
    return lambda rows: picture(rows) + change(rows)
