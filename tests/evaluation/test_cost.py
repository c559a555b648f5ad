"""What a generator costs, compared with a closed-form count."""

import torch
from torch import nn

from gan_nst.networks import build
from gan_nst.runs.assessment import generator_cost


def cost(network, size, translate=lambda image: image, **options):
    return generator_cost(network, translate, size, **options)


def test_a_convolution_costs_what_it_multiplies():
    """Every output value takes one multiply-add for each weight that reaches it: c_out h w (c_in k k)."""
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 3, 7, stride=2, padding=3, bias=False)
    )
    measured = cost(network, 16)
    assert measured["multiply_adds"] == 5 * 16 * 16 * (3 * 3 * 3) + 3 * 8 * 8 * (5 * 7 * 7)
    assert measured["parameters"] == 5 * 3 * 9 + 5 + 3 * 5 * 49
    assert measured["size"] == 16


def test_a_generator_costs_the_sum_of_its_convolutions():
    width, size = 4, 16
    network = build(
        {"name": "resnet", "width": width, "blocks": 2, "downsamplings": 1, "upsampling": "resize"}
    )
    stem, down = size**2 * width * 3 * 49, (size // 2) ** 2 * 2 * width * width * 9
    block, up = (size // 2) ** 2 * (2 * width) ** 2 * 9, size**2 * width * 2 * width * 9
    tail = size**2 * 3 * width * 49
    assert cost(network, size)["multiply_adds"] == stem + down + 4 * block + up + tail


def test_cost_grows_with_the_pixels():
    network = nn.Conv2d(3, 3, 3, padding=1)
    assert cost(network, 32)["multiply_adds"] == 4 * cost(network, 16)["multiply_adds"]


def test_the_time_is_the_median_of_the_translations(monkeypatch):
    from gan_nst.runs import assessment as module

    ticks = iter([0, 0.5, 1, 1.01, 2, 2.02, 3, 3.03, 4, 4.5])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    images = []
    measured = cost(nn.Conv2d(3, 3, 1), 12, lambda image: images.append(image) or image, repeats=5)
    assert abs(measured["milliseconds"] - 30) < 1e-9
    assert len(images) == 6  # the first warms up
    assert {image.shape for image in images} == {(12, 12, 3)}


def test_measuring_neither_trains_nor_draws_random_numbers():
    network = nn.Conv2d(3, 3, 1)
    state = torch.get_rng_state()
    cost(network, 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.weight.grad is None
