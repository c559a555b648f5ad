"""The instance norm: the same numbers in every layout, at any mean, and gradients of gradients."""

import pytest
import torch

from gan_nst.networks import norm
from gan_nst.networks.norm import InstanceNorm, moments, normalise

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def written_out(x, eps=1e-5):
    """Channel by channel, in float64."""
    out = torch.empty_like(x, dtype=torch.float64)
    for n, image in enumerate(x.double()):
        for c, channel in enumerate(image):
            centred = channel - channel.mean()
            out[n, c] = centred / (centred.square().mean() + eps).sqrt()
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (1, 0.01), (100, 0.1), (0.3, 0)])
def test_it_equals_the_formula_also_where_the_mean_is_large(layout, images, mean, deviation):
    generator = torch.Generator().manual_seed(0)
    x = (mean + deviation * torch.randn(images, 5, 12, 9, generator=generator)).to(
        memory_format=LAYOUTS[layout]
    )
    y = InstanceNorm(5)(x)
    # A mean of 1,000 deviations in float32 leaves 7 - 3 decimal digits.
    assert (y - written_out(x)).abs().max() < 2e-4 * max(1, abs(mean) * 0.05)
    assert y.is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("of_gradient", LAYOUTS)
def test_its_gradient_is_that_of_the_formula(layout, images, of_gradient):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 3, 6, 5, generator=generator, dtype=torch.float64)
    g = torch.randn(images, 3, 6, 5, generator=generator, dtype=torch.float64)
    x = x.to(memory_format=LAYOUTS[layout]).requires_grad_()
    g = g.to(memory_format=LAYOUTS[of_gradient])
    (ours,) = torch.autograd.grad(normalise(x, 1e-5), x, g)
    (theirs,) = torch.autograd.grad(written_out(x), x, g)
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_its_gradient_are_right(layout):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.float64)
    x = x.to(memory_format=LAYOUTS[layout]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: normalise(x, 1e-5), x)
    assert torch.autograd.gradgradcheck(lambda x: normalise(x, 1e-5), x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_is_exact_to_its_eight_bits(layout):
    generator = torch.Generator().manual_seed(0)
    x = (2 + torch.randn(2, 4, 16, 16, generator=generator)).bfloat16().to(memory_format=LAYOUTS[layout])
    y = normalise(x, 1e-5)
    assert y.dtype == torch.bfloat16
    # Values of up to 4 are stored in steps of 1/64; two roundings.
    assert (y - written_out(x)).abs().max() <= 2 / 64


def test_statistics_from_outside_and_affine_weights_are_used():
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    affine = InstanceNorm(3, affine=True)
    torch.nn.init.constant_(affine.scale, 2.0)
    torch.nn.init.constant_(affine.shift, 0.5)
    variance, mean = torch.var_mean(x, (2, 3), correction=0)
    complete = affine(x)
    part = affine(x[:, :, :4], (mean, variance))
    assert torch.allclose(complete, 2 * written_out(x).float() + 0.5, atol=1e-5)
    assert torch.allclose(part, complete[:, :, :4], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_result_is_kept_for_the_gradient(dtype):
    x = torch.randn(2, 8, 16, 16).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        normalise(x, 1e-5)
    assert sum(kept) <= x.nbytes + 2 * 8 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_formula_for_gpus_agrees_with_the_kernel(dtype):
    x = (3 + torch.randn(2, 8, 16, 16)).to(dtype).to(memory_format=torch.channels_last)
    for one, other in zip(norm._by_formula(x, 1e-5), norm._by_kernel(x, 1e-5), strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one.float(), other.float(), atol=1e-5 if dtype == torch.float32 else 2 / 64)


def test_gradients_in_bfloat16_sum_to_nothing_over_a_channel():
    x = torch.randn(1, 4, 31, 31).bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    g = (1 + torch.randn(1, 4, 31, 31)).bfloat16().to(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(normalise(x, 1e-5), x, g)
    assert gradient.float().sum((2, 3)).abs().max() < 0.5  # of 961 values, each rounded to 1/256 of itself


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (1.1, 0), (1.1, 1e-4), (-300, 1)])
def test_moments_keep_what_long_sums_in_float32_lose(layout, mean, deviation):
    x = mean + deviation * torch.randn(2, 3, 300, 400, generator=torch.Generator().manual_seed(0))
    found = moments(x.to(memory_format=LAYOUTS[layout]))
    exact = x.double()
    torch.testing.assert_close(found[0].double(), exact.mean((2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1].double(), exact.var((2, 3), correction=0), rtol=1e-3, atol=1e-11)


@pytest.mark.parametrize("given", [True, False])
def test_the_rounding_of_a_flat_channel_is_not_amplified(given):
    x = (0.7 + 1e-7 * torch.randn(1, 4, 12, 9)).to(memory_format=torch.channels_last)
    x[:, 2:] += torch.randn(1, 2, 12, 9)
    with torch.inference_mode():
        y = InstanceNorm(4, eps=1e-9)(x, moments(x) if given else None)
    assert (y[:, :2] == 0).all()
    assert (y[:, 2:].std((2, 3)) > 0.9).all()


def test_the_formulas_gradient_is_that_of_what_it_computes_where_channels_are_flat_too(monkeypatch):
    monkeypatch.setattr(norm, "_by_kernel", norm._by_formula)  # as on a GPU
    x = torch.randn(1, 3, 5, 7)
    x[:, 1] = 0.25
    weights = torch.randn_like(x)
    found, wanted = (x.clone(memory_format=torch.channels_last).requires_grad_() for _ in range(2))
    (norm._Normalise.apply(found, 1e-5)[0] * weights).sum().backward()
    (norm._by_formula(wanted, 1e-5)[0] * weights).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad, atol=1e-5, rtol=1e-4)
    assert not found.grad[:, 1].any()
