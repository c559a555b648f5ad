"""Images of equal size are translated in batches that fit into memory, and few wait for others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_inference import Blur, Shift, noise, translator

from gan_nst.inference import folder as module
from gan_nst.inference.folder import batches, translate_stream
from gan_nst.networks import build

SIZES = [(20, 24), (17, 24), (20, 24), (31, 16), (17, 24), (20, 24), (20, 24)]


def named(sizes):
    return [(Path(f"{number}.png"), noise(*size, seed=number)) for number, size in enumerate(sizes)]


def pixels(item):
    return item


def test_a_batch_gives_the_same_images_as_one_by_one():
    torch.manual_seed(0)
    made = translator(build({"name": "resnet", "width": 4, "blocks": 1, "downsamplings": 2}))
    images = named(SIZES)
    outputs = dict(translate_stream(made, images))
    assert outputs.keys() == {path for path, _ in images}
    for path, image in images:
        alone = made(image)
        assert outputs[path].shape == image.shape
        difference = np.abs(outputs[path].astype(int) - alone)
        assert difference.max() <= 1  # at most the rounding of sums in another order
        assert difference.mean() < 0.01


def test_batches_are_of_one_size_and_bounded(monkeypatch):
    network = Blur(1)
    list(translate_stream(translator(network), named(SIZES)))
    assert sorted(network.seen) == [(1, 3, 31, 16), (2, 3, 17, 24), (4, 3, 20, 24)]
    network.seen.clear()
    monkeypatch.setattr(module, "_LARGEST_BATCH", 3)
    list(translate_stream(translator(network), named([(20, 24)] * 7)))
    assert network.seen == [(3, 3, 20, 24), (3, 3, 20, 24), (1, 3, 20, 24)]
    network.seen.clear()
    monkeypatch.setattr(module, "_BATCH_PIXELS", 2 * 20 * 24)
    list(translate_stream(translator(network), named([(20, 24)] * 3)))
    assert network.seen == [(2, 3, 20, 24), (1, 3, 20, 24)]


@pytest.mark.parametrize(("fits", "sizes"), [(0, [1] * 5), (1, [1] * 5), (2, [2, 2, 1]), (99, [5])])
def test_a_batch_is_no_larger_than_fits(fits, sizes):
    found = batches(
        [noise(20, 24)] * 5, pixels, lambda height, width: fits if (height, width) == (20, 24) else 0
    )
    assert [len(batch) for batch in found] == sizes


def test_8_and_16_bit_images_are_not_batched_together():
    items = [noise(8, 8), noise(8, 8).astype(np.uint16), noise(8, 8)]
    assert sorted(len(batch) for batch in batches(items, pixels, lambda *_: 9)) == [1, 2]


def test_images_waiting_for_others_of_their_size_are_bounded(monkeypatch):
    """Even if all sizes differ, the first image is returned long before the last is read."""
    monkeypatch.setattr(module, "_BATCH_PIXELS", 1000)
    taken = []

    def images():
        for number in range(200):
            taken.append(number)
            yield Path(f"{number}.png"), noise(16 + number % 50, 16 + number // 50, seed=number)

    longest, returned = 0, 0
    for _ in translate_stream(translator(Shift()), images()):
        returned += 1
        longest = max(longest, len(taken) - returned)
    assert returned == 200
    assert longest < 40
