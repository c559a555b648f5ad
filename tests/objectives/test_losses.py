"""Each loss against a naive version in float64, and the helper that stacks passes."""

import math

import pytest
import torch
from torch import nn

from gan_nst.networks import build
from gan_nst.objectives.losses import ADVERSARIAL, bce, l1, lsgan, together


def numbers(*shape, dtype=torch.float64, seed=0):
    return (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype) * 3
    )


def mean(values):
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("real", [True, False])
def test_lsgan_is_the_mean_squared_distance_to_its_label(real):
    scores = numbers(2, 1, 4, 5)
    expected = mean([(s - (1 if real else 0)) ** 2 for s in scores.flatten().tolist()])
    assert lsgan(scores, real).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("real", [True, False])
def test_bce_is_the_cross_entropy_of_the_sigmoid(real):
    scores = numbers(2, 1, 4, 5)
    chances = [1 / (1 + math.exp(-s)) for s in scores.flatten().tolist()]
    expected = -mean([math.log(p if real else 1 - p) for p in chances])
    assert bce(scores, real).item() == pytest.approx(expected, rel=1e-12)


def test_bce_is_stable_where_the_sigmoid_is_not():
    scores = torch.tensor([200.0, -200.0])
    assert bce(scores, True).item() == 100
    assert bce(scores, False).item() == 100


def test_l1_is_the_mean_absolute_difference():
    x, y = numbers(2, 3, 4, 5), numbers(2, 3, 4, 5, seed=1)
    expected = mean([abs(p - q) for p, q in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True)])
    assert l1(x, y).item() == pytest.approx(expected, rel=1e-14)
    assert l1(x, x) == 0


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
def test_adversarial_losses_pull_scores_towards_their_label(name):
    scores = torch.tensor([0.4], requires_grad=True)
    for real, sign in ((True, -1), (False, 1)):
        (slope,) = torch.autograd.grad(ADVERSARIAL[name](scores, real), scores)
        assert slope.sign() == sign


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
@pytest.mark.parametrize("real", [True, False])
def test_adversarial_losses_of_bfloat16_are_computed_in_float32(name, real):
    loss, scores = ADVERSARIAL[name], numbers(4, 1, 30, 30, dtype=torch.bfloat16)
    assert loss(scores, real).dtype == torch.float32
    assert loss(scores, real) == loss(scores.float(), real)


def test_l1_of_bfloat16_is_computed_in_float32():
    x, y = numbers(2, 3, 40, 40, dtype=torch.bfloat16), numbers(2, 3, 40, 40, dtype=torch.bfloat16, seed=1)
    assert l1(x, y).dtype == torch.float32
    assert l1(x, y) == l1(x.float(), y.float())
    assert (x - y).abs().mean().float() != l1(x, y)  # the result in bfloat16 itself
    assert l1(x, y.float()) == l1(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_keep_better_precision(dtype):
    x = numbers(2, 3, dtype=dtype)
    assert {loss(x, True).dtype for loss in ADVERSARIAL.values()} | {l1(x, x).dtype} == {dtype}


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "resnet", "width": 4, "blocks": 1, "downsamplings": 1},
        {"name": "patchgan", "width": 4, "layers": 2},
    ],
)
def test_together_equals_separate_passes(spec):
    network = build(spec).double()
    inputs = [numbers(n, 3, 16, 16, seed=n).tanh() for n in (1, 2, 3)]
    outputs = together(network, *inputs)
    assert [len(x) for x in outputs] == [1, 2, 3]
    for x, output in zip(inputs, outputs, strict=True):
        torch.testing.assert_close(output, network(x), rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(sum(x.square().sum() for x in outputs), list(network.parameters()))
    separate = sum(network(x).square().sum() for x in inputs)
    for one, other in zip(gradients, torch.autograd.grad(separate, list(network.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_together_is_one_pass_and_would_show_a_network_that_mixes_images():
    """The negative control: batch norm in training mode sees the other inputs."""
    passes = []
    network = nn.BatchNorm2d(3).double()
    network.register_forward_hook(lambda *_: passes.append(1))
    x, y = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1) + 5
    stacked = together(network, x, y)[0]
    assert len(passes) == 1
    assert not torch.allclose(stacked, network(x))
