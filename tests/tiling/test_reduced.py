"""The approximate way: one pass, the reduced image's statistics, tiles without seams."""

import numpy as np
import pytest
import torch
from helpers_inference import describe

from gan_nst.core.errors import DataError
from gan_nst.inference.translator import Translator
from gan_nst.networks import build
from gan_nst.tiling.reduced import Reduced
from gan_nst.tiling.segments import bytes_a_pixel, links


def generator(**spec):
    torch.manual_seed(0)
    network = build({"name": "resnet", "width": 4, "blocks": 1, **spec})
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return network


def reduced(network, image, pixels, own=False):
    """Translated in tiles of so many pixels; own: by the image's own statistics instead of the reduced one's."""
    memory = int(pixels * bytes_a_pixel(links(network)))
    way = Reduced(network, lambda rows: image[:, :, rows.start : rows.stop], *image.shape[2:], memory=memory)
    if own:
        way._reduce = lambda: image
    output, seen = torch.full_like(image, torch.nan), []

    def sink(rows, x):
        seen.append(rows)
        output[:, :, rows.start : rows.stop] = x

    with torch.inference_mode():
        way.translate(sink)
    assert [row for rows in seen for row in rows] == list(range(image.shape[2]))
    return output


@pytest.mark.parametrize("size", [(400, 400), (408, 648), (800, 304)])
@pytest.mark.parametrize(
    "spec", [{}, {"start_from": "smoothed"}, {"upsampling": "transposed", "convolutions": 2}]
)
def test_with_the_right_statistics_tiles_make_the_whole(size, spec):
    """A generator of one block does not look beyond the margin: nothing of the cuts may be left."""
    image = torch.rand(1, 3, *size) * 2 - 1
    network = generator(**spec)
    with torch.inference_mode():
        whole = network(image)
    torch.testing.assert_close(reduced(network, image, 240**2, own=True), whole, atol=1e-5, rtol=0)


def smooth(height, width):
    down, across = torch.linspace(0, 3, height)[:, None], torch.linspace(0, 4, width)
    return torch.stack([torch.sin(down + across), torch.cos(2 * across - down), torch.sin(down * across)])[
        None
    ]


def test_the_reduced_image_s_statistics_come_closer_than_each_tile_s_own():
    image, network = smooth(600, 800), generator()
    with torch.inference_mode():
        whole = network(image)
        alone = torch.cat([network(part) for part in image.split(200, dim=2)], dim=2)
    apart, naive = ((x - whole).abs() for x in (reduced(network, image, 260**2), alone))
    assert 0 < 2 * apart.mean() < naive.mean()
    assert 2 * apart.max() < naive.max()


def test_the_reduced_image_is_the_image_averaged():
    image, network = torch.rand(1, 3, 608, 400), generator()
    way = Reduced(network, lambda rows: image[:, :, rows.start : rows.stop], 608, 400, memory=0)
    way._pixels = 260**2
    torch.testing.assert_close(way._reduce(), torch.nn.functional.avg_pool2d(image, 2))


@pytest.mark.parametrize("size", [(16, 6000), (6000, 16)])
def test_thin_images_keep_what_the_network_needs(size):
    image = torch.rand(1, 3, *size) * 2 - 1
    assert reduced(generator(), image, 200**2).isfinite().all()


def test_too_little_memory_is_told():
    image = torch.zeros(1, 3, 400, 400)
    with pytest.raises(DataError, match=r"^a tile takes at least 0\.1 GiB; give --memory$"):
        reduced(generator(), image, 100**2)


def test_the_translator_takes_this_way_when_it_is_asked():
    image = np.random.default_rng(0).integers(0, 256, (331, 402, 3), np.uint8)
    network = generator()
    memory = int(240**2 * bytes_a_pixel(links(network)))
    fast = Translator(network, describe(), "cpu", memory=memory, fast=True)
    whole = Translator(network, describe(), "cpu")
    assert fast.fits(331, 402) == 0
    assert fast(image).shape == image.shape
    assert not np.array_equal(fast(image), whole(image))
    small = image[:64, :64]
    np.testing.assert_array_equal(fast(small), whole(small))  # it fits: nothing is approximate
