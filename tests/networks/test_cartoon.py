"""CartoonGAN's networks: sizes, counts and values as published (recipe: Chen et al. 2018, figure 2)."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_nst.methods.cartoongan import CartoonGanSettings
from gan_nst.networks import build
from gan_nst.networks.cartoon import CartoonDiscriminatorSpec
from gan_nst.networks.norm import InstanceNorm
from gan_nst.networks.resnet import ResnetSpec


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def drawn(network):
    """The network in float64 with weights, biases and norms that all matter."""
    with torch.no_grad():
        for number, parameter in enumerate(network.double().parameters()):
            parameter.copy_(images(*parameter.shape, seed=number))
    return network


def discriminator(**options):
    return build({"name": "cartoon", **options})


def count(network):
    return sum(p.numel() for p in network.parameters())


# Inputs, outputs, stride, and whether a norm follows, which makes a bias redundant.
LAYERS = [
    (3, 32, 1, False),
    (32, 64, 2, False),
    (64, 128, 1, True),
    (128, 128, 2, False),
    (128, 256, 1, True),
    (256, 256, 1, True),
    (256, 1, 1, False),
]


def test_the_published_discriminator_has_the_published_layers():
    with torch.device("meta"):
        network = discriminator()
    modules = [m for m in network.modules() if isinstance(m, (nn.Conv2d, InstanceNorm))]
    found = []
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.Conv2d):
            assert module.kernel_size == (3, 3)
            normed = isinstance(following, InstanceNorm)
            assert (module.bias is None) == normed
            found.append((module.in_channels, module.out_channels, module.stride[0], normed))
    assert found == LAYERS
    expected = sum(9 * i * o + (0 if normed else o) for i, o, _, normed in LAYERS)
    assert count(network) == expected == 1_127_745
    assert network(torch.empty(2, 3, 256, 256, device="meta")).shape == (2, 1, 64, 64)
    assert network(torch.empty(1, 3, 96, 160, device="meta")).shape == (1, 1, 24, 40)


def scored(network, image):
    """The published layers in a row, with this network's weights."""
    taken, x = iter(network.parameters()), image
    for number, (_, _, stride, normed) in enumerate(LAYERS):
        x = F.conv2d(x, next(taken), None if normed else next(taken), stride=stride, padding=1)
        x = F.instance_norm(x) if normed else x
        x = F.leaky_relu(x, 0.2) if number < len(LAYERS) - 1 else x
    assert next(taken, None) is None
    return x


def test_it_computes_what_they_compute():
    network, image = drawn(discriminator(width=4)), images(2, 3, 24, 20, seed=9)
    torch.testing.assert_close(network(image), scored(network, image), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("downsamplings", "patch"),
    [(2, 37), (1, 17)],
)
def test_the_stated_sizes_of_the_patches_are_those_it_has(downsamplings, patch):
    description = CartoonDiscriminatorSpec.model_fields["downsamplings"].description
    assert re.findall(rf"{downsamplings} (?:score patches )?of (\d+)x", description) == [str(patch)]


@pytest.mark.parametrize(("downsamplings", "patch"), [(2, 37), (1, 17)])
def test_its_scores_see_patches_of_that_size(downsamplings, patch):
    network = discriminator(width=2, downsamplings=downsamplings).double()
    for layer in network.convolutions:  # without the norm, through which a score depends on all pixels
        layer[1] = nn.Identity()
    image = images(1, 3, 96, 96).requires_grad_()
    scores = network(image)
    assert scores.shape[2:] == (96 // 2**downsamplings,) * 2
    middle = scores.shape[2] // 2
    (slope,) = torch.autograd.grad(scores[0, 0, middle, middle], image)
    seen = slope.abs().sum((0, 1)) > 0
    assert (seen.any(0).sum(), seen.any(1).sum()) == (patch, patch)


@pytest.mark.parametrize("downsamplings", [0, 1, 2, 3])
def test_images_of_a_batch_are_scored_independently(downsamplings):
    network = discriminator(width=2, downsamplings=downsamplings).double()
    batch = images(3, 3, 32, 32)
    torch.testing.assert_close(network(batch)[1:2], network(batch[1:2]), rtol=1e-10, atol=1e-12)


def test_scores_under_bfloat16_are_close():
    network, image = discriminator(width=8), images(1, 3, 32, 32).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = network(image)
    torch.testing.assert_close(scores.float(), network(image), rtol=0, atol=0.05)


def test_the_published_generator_has_its_parameters():
    """Biases only in the last layer, and where a second convolution pads with zeros: no norm undoes them there."""
    channels = [(3, 64, 49), (64, 128, 9), (128, 128, 9), (128, 256, 9), (256, 256, 9)]
    channels += [(256, 256, 9)] * 16 + [(256, 128, 9), (128, 128, 9), (128, 64, 9), (64, 64, 9), (64, 3, 49)]
    weights = sum(i * o * size for i, o, size in channels)
    for upsampling, biases in (("transposed", 128 + 256 + 128 + 64 + 3), ("resize", 128 + 256 + 3)):
        with torch.device("meta"):
            network = build(
                CartoonGanSettings().generator.model_copy(
                    update={"upsampling": upsampling, "padding": "zeros"}
                )
            )
        assert [w.shape[0] * w.shape[1] * w.shape[2] ** 2 for w in network.parameters() if w.ndim == 4] == [
            i * o * size for i, o, size in channels
        ]
        assert count(network) == weights + biases
    assert weights + 128 + 256 + 128 + 64 + 3 == 11_115_459  # 11.12 M, as published


def generated(network, image, blocks, upsampling, eps, padding):
    """The published layers in a row, with this network's weights, in the order in which it holds them."""
    taken = iter(network.parameters())
    affine, alive = network.spec.affine, padding == "constant"

    def convolve(x, pad=1, mode="reflect", stride=1, bias=False):
        padded = F.pad(x, (pad,) * 4, mode=mode)
        return F.conv2d(padded, next(taken), next(taken) if bias else None, stride=stride)

    def norm(x):
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
        x = (x - mean) / (variance + eps).sqrt()
        return x * next(taken)[:, None, None] + next(taken)[:, None, None] if affine else x

    def up(x):
        if upsampling == "resize":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            return convolve(convolve(x))
        weight, bias = next(taken), next(taken) if alive else None
        x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
        return convolve(x, mode=padding)

    x = F.relu(norm(convolve(image, 3)))
    for _ in range(2):
        x = convolve(x, mode=padding, stride=2, bias=alive)
        x = F.relu(norm(convolve(x, mode=padding)))
    for _ in range(blocks):
        x = x + norm(convolve(F.relu(norm(convolve(x)))))
    for _ in range(2):
        x = F.relu(norm(up(x)))
    output = torch.tanh(convolve(x, 3, bias=True))
    assert next(taken, None) is None
    return output


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("upsampling", ["resize", "transposed"])
@pytest.mark.parametrize(("padding", "mode"), [("zeros", "constant"), ("reflect", "reflect")])
def test_the_generator_computes_what_the_published_one_computes(upsampling, affine, eps, padding, mode):
    options = {"upsampling": upsampling, "affine": affine, "eps": eps, "padding": padding}
    spec = ResnetSpec(width=3, blocks=2, convolutions=2, **options)
    network, image = drawn(build(spec)), images(2, 3, 16, 20, seed=9)
    with torch.no_grad():
        network.segments["tail"].convolution.weight.mul_(0.05)  # otherwise the tanh hides differences
        for parameter in [*network.segments["stem"].parameters()][:1]:
            parameter.mul_(0.05)  # small variances, so that eps matters
    output = network(image)
    assert output.abs().mean() < 0.9
    expected = generated(network, image, 2, upsampling, eps, mode)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(output, generated(network, image, 2, upsampling, 2 * eps, mode), rtol=1e-9)


def test_the_generators_defaults_are_the_published_ones():
    spec = CartoonGanSettings().generator
    assert (spec.width, spec.blocks, spec.downsamplings, spec.convolutions) == (64, 8, 2, 2)
    # CycleGAN's is unchanged.
    assert build({"name": "resnet", "width": 2, "blocks": 1}).spec.convolutions == 1


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_no_convolution_whose_bias_a_norm_subtracts_has_one(upsampling, padding):
    """Each such bias would have a gradient of mere rounding noise, so every parameter must have a larger one."""
    spec = ResnetSpec(width=2, blocks=1, convolutions=2, upsampling=upsampling, padding=padding)
    network = build(spec).double()
    network(images(2, 3, 32, 32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize(
    "spec", [{"name": "cartoon", "width": 3}, {"name": "resnet", "width": 3, "convolutions": 2}]
)
def test_they_are_rebuilt_from_their_own_specs(spec):
    network = build({**spec, **({"blocks": 1} if spec["name"] == "resnet" else {})})
    rebuilt = build(network.spec.model_dump(mode="json"))
    rebuilt.load_state_dict(network.state_dict())
    image = images(1, 3, 16, 16).float()
    assert torch.equal(rebuilt(image), network(image))
