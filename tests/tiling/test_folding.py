"""Resizes folded into their convolutions: the same images, for less work."""

import pytest
import torch
from torch import nn

from gan_nst.networks import build
from gan_nst.tiling.segments import Folded, bytes_a_pixel, fold_resizes, links


def generator(**spec):
    torch.manual_seed(0)
    network = build({"name": "resnet", "width": 4, "blocks": 2, **spec}).double()
    for weight in network.parameters():
        nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return network


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3), (9, 8)])
def test_the_transposed_convolution_is_the_resize_and_the_convolution(size, bias):
    convolution = nn.Conv2d(5, 3, 3, padding=1, padding_mode="reflect", bias=bias).double()
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    expected = convolution(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(Folded(convolution)(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "spec",
    [{}, {"convolutions": 2}, {"downsamplings": 3}, {"start_from": "smoothed"}, {"affine": True}],
    ids=str,
)
def test_a_folded_generator_makes_the_same_images(spec):
    network = generator(**spec)
    x = torch.rand(2, 3, 40, 48, dtype=torch.float64) * 2 - 1
    folded = fold_resizes(network)
    assert sum(isinstance(part, Folded) for part in folded.modules()) == spec.get("downsamplings", 2)
    torch.testing.assert_close(folded(x), network(x), rtol=0, atol=1e-12)


def test_it_does_less_and_needs_less_memory():
    network = generator(width=16)
    before, after = links(network), links(fold_resizes(network))
    assert sum(at.cost for at in after) < 0.9 * sum(at.cost for at in before)
    assert bytes_a_pixel(after) < 0.7 * bytes_a_pixel(before)


def test_the_generator_given_stays_as_it_was():
    network = generator()
    names = list(network.state_dict())
    fold_resizes(network)
    assert list(network.state_dict()) == names


def test_where_nothing_is_resized_nothing_is_done():
    network = generator(upsampling="transposed")
    assert fold_resizes(network) is network
