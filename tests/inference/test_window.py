"""Statistics shared by frames cover all their pixels, but no frame before a cut."""

import pytest
import torch

from gan_nst.inference.video import Window
from gan_nst.networks import build
from gan_nst.tiling.segments import run_with_statistics, stages


def frames(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randn(count, 3, 1, 1, generator=generator)
    return torch.randn(count, 3, 5, 7, generator=generator) * (1 + shift.abs()) + shift


def moments(x):
    return x.mean((2, 3)), x.var((2, 3), correction=0)


@pytest.mark.parametrize("together", [1, 2, 6])
def test_the_statistics_are_those_of_all_pixels_of_the_window(together):
    x = frames(6)
    window = Window(3, "norm")
    found = [window("norm", *moments(part)) for part in x.split(together)]
    means, variances = (torch.cat(one) for one in zip(*found, strict=True))
    for number in range(6):
        pixels = x[max(0, number - 2) : number + 1].transpose(0, 1).flatten(1)
        torch.testing.assert_close(means[number], pixels.mean(1))
        torch.testing.assert_close(variances[number], pixels.var(1, correction=0))


def test_a_window_of_one_and_a_reset_window_are_the_frame_alone():
    x = frames(4)
    alone, window = Window(1, "norm"), Window(9, "norm")
    window("norm", *moments(x[:2]))
    window.reset()
    for one in x[2:].split(1):
        torch.testing.assert_close(alone("norm", *moments(one)), moments(one))
    torch.testing.assert_close(window("norm", *moments(x[2:3])), moments(x[2:3]))


def test_other_norms_keep_their_own_statistics():
    x = frames(3)
    window = Window(3, "norm")
    torch.testing.assert_close(window("another", *moments(x)), moments(x))


def test_a_static_video_is_unaffected_by_the_window():
    torch.manual_seed(0)
    network = build({"name": "resnet", "width": 4, "blocks": 1}).eval()
    static = torch.rand(1, 3, 16, 16).expand(3, -1, -1, -1) * 2 - 1
    last = stages(network)[-2].name
    with torch.inference_mode():
        torch.testing.assert_close(run_with_statistics(network, static, Window(3, last)), network(static))
        other = torch.cat([torch.rand(1, 3, 16, 16), static[:1]])
        apart = run_with_statistics(network, other, Window(3, last))[1] - network(other)[1]
    assert apart.abs().max() > 1e-3
