"""Pictures of equal size pass the network together."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from gan_nst.images.files import Picture
from gan_nst.images.photo import Pixels
from gan_nst.inference.translator import Translator

T = TypeVar("T")

_PIXELS_A_BATCH = 8 * 256 * 256
_LARGEST_BATCH = 32


def translate_stream(
    translator: Translator, pictures: Iterable[tuple[Path, Picture]]
) -> Iterator[tuple[Path, Picture]]:
    """Named pictures of any sizes, translated; the order may change."""
    for batch in batches(pictures, lambda named: named[1], translator.fits):
        outputs = translator.translate([picture for _, picture in batch])
        yield from zip([path for path, _ in batch], outputs, strict=True)


def batches(
    items: Iterable[T], pixels: Callable[[T], Pixels], fits: Callable[[int, int], int]
) -> Iterator[list[T]]:
    """Items whose pixels (h, w, c) have one size and type, together; the order may change.

    fits: how many of a height and width pass together at most; at least one does. What waits for company is bounded,
    whatever the number of sizes.
    """
    waiting: OrderedDict[tuple[object, ...], list[T]] = OrderedDict()
    for item in items:
        height, width, _ = pixels(item).shape
        kind = (height, width, pixels(item).dtype)
        group = waiting.setdefault(kind, [])
        group.append(item)
        most = min(-(-_PIXELS_A_BATCH // (height * width)), _LARGEST_BATCH, fits(height, width))
        if len(group) >= most:
            yield waiting.pop(kind)
        elif sum(pixels(one).nbytes for group in waiting.values() for one in group) > 12 * _PIXELS_A_BATCH:
            yield waiting.popitem(last=False)[1]
    yield from waiting.values()
