"""Resizes fused with their convolutions give the same images with less work."""

import pytest
import torch
from torch import nn

from gan_nst.networks import build
from gan_nst.tiling.segments import FusedUpsampling, bytes_a_pixel, fuse_upsampling, stages


def generator(**spec):
    torch.manual_seed(0)
    network = build({"name": "resnet", "width": 4, "blocks": 2, **spec}).double()
    for weight in network.parameters():
        nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return network


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3), (9, 8)])
def test_the_fused_convolution_equals_resize_and_convolution(size, bias):
    convolution = nn.Conv2d(5, 3, 3, padding=1, padding_mode="reflect", bias=bias).double()
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    expected = convolution(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(FusedUpsampling(convolution)(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "spec",
    [{}, {"convolutions": 2}, {"downsamplings": 3}, {"start_from": "smoothed"}, {"affine": True}],
    ids=str,
)
def test_a_fused_generator_makes_the_same_images(spec):
    network = generator(**spec)
    x = torch.rand(2, 3, 40, 48, dtype=torch.float64) * 2 - 1
    folded = fuse_upsampling(network)
    assert sum(isinstance(part, FusedUpsampling) for part in folded.modules()) == spec.get("downsamplings", 2)
    torch.testing.assert_close(folded(x), network(x), rtol=0, atol=1e-12)


def test_fusing_saves_work_and_memory():
    network = generator(width=16)
    before, after = stages(network), stages(fuse_upsampling(network))
    assert sum(at.cost for at in after) < 0.9 * sum(at.cost for at in before)
    assert bytes_a_pixel(after) < 0.7 * bytes_a_pixel(before)


def test_the_given_generator_is_not_modified():
    network = generator()
    names = list(network.state_dict())
    fuse_upsampling(network)
    assert list(network.state_dict()) == names


def test_a_generator_without_resizes_is_returned_unchanged():
    network = generator(upsampling="transposed")
    assert fuse_upsampling(network) is network
