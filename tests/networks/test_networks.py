"""The networks: sizes, counts and values as published, and that images of a batch are independent."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_nst.core.errors import SettingsError
from gan_nst.networks import build
from gan_nst.networks.norm import InstanceNorm
from gan_nst.networks.resnet import ResnetSpec


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    torch.manual_seed(0)


def images(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype)


def small(**options):
    return build({"name": "resnet", "width": 4, "blocks": 2, "downsamplings": 1, **options})


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_instance_norm_is_torchs(affine, eps):
    ours = InstanceNorm(5, eps, affine).double()
    theirs = nn.InstanceNorm2d(5, eps=eps, affine=affine).double()
    x = images(3, 5, 7, 6, dtype=torch.float64) * 0.1 + 2
    if affine:
        with torch.no_grad():
            theirs.weight.copy_(images(5))
            theirs.bias.copy_(images(5, seed=1))
            ours.scale.copy_(theirs.weight)
            ours.shift.copy_(theirs.bias)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("affine", [False, True])
def test_a_part_is_normalised_like_the_image_with_the_images_statistics(affine):
    norm = InstanceNorm(4, 1e-3, affine).double()
    if affine:
        nn.init.uniform_(norm.scale, 0.5, 2)
        nn.init.uniform_(norm.shift, -1, 1)
    x = images(2, 4, 12, 10, dtype=torch.float64) * torch.tensor([1.0, 2, 3, 4]).view(-1, 1, 1) + 1
    complete = norm(x)
    statistics = x.mean((2, 3)), x.var((2, 3), unbiased=False)
    part = norm(x[:, :, 3:8, 2:9], statistics)
    torch.testing.assert_close(part, complete[:, :, 3:8, 2:9], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(norm(x[:, :, 3:8, 2:9]), part)  # its own statistics differ


def dead_biases(network):
    """A bias before an instance norm: as many as the norms have channels."""
    return sum(module.channels for module in network.modules() if isinstance(module, InstanceNorm))


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("blocks", "published"), [(9, 11_378_179), (6, 7_837_699)])
def test_the_published_generator_has_its_parameters_minus_the_dead_biases(blocks, published):
    with torch.device("meta"):
        network = build({"name": "resnet", "width": 64, "blocks": blocks, "upsampling": "transposed"})
    assert dead_biases(network) == 64 + 128 + 256 + 2 * blocks * 256 + 128 + 64
    assert count(network) == published - dead_biases(network)


def test_the_published_discriminator_has_its_parameters_minus_the_dead_biases():
    with torch.device("meta"):
        network = build({"name": "patchgan", "width": 64, "layers": 3})
    assert dead_biases(network) == 128 + 256 + 512
    assert count(network) == 2_764_737 - dead_biases(network)


@pytest.mark.parametrize("spec", [{"name": "resnet", "width": 2}, {"name": "patchgan", "width": 2}])
def test_no_convolution_before_an_instance_norm_has_a_bias(spec):
    """Each such bias would have a gradient of mere rounding noise, so every parameter must have a larger one."""
    network = build(spec).double()
    network(images(2, 3, 64, 64, dtype=torch.float64)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 1e-9, name


def published_generator(network, image, blocks):
    """The layers of CycleGAN's published generator in a row, with this network's weights."""
    weights = [w for w in network.parameters() if w.ndim == 4]
    bias = next(w for w in network.parameters() if w.ndim == 1)
    taken = iter(weights)

    def convolve(x, pad, stride=1, norm=True):
        if stride == 1:
            x = F.conv2d(F.pad(x, (pad,) * 4, mode="reflect"), next(taken))
        elif stride == 2:
            x = F.conv2d(x, next(taken), stride=2, padding=1)
        else:
            x = F.conv_transpose2d(x, next(taken), stride=2, padding=1, output_padding=1)
        return F.instance_norm(x) if norm else x

    x = F.relu(convolve(image, 3))
    x = F.relu(convolve(x, 0, 2))
    x = F.relu(convolve(x, 0, 2))
    for _ in range(blocks):
        x = x + convolve(F.relu(convolve(x, 1)), 1)
    x = F.relu(convolve(x, 0, 0.5))
    x = F.relu(convolve(x, 0, 0.5))
    output = torch.tanh(convolve(x, 3, norm=False) + bias[:, None, None])
    assert next(taken, None) is None
    return output


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_transposed_generator_computes_what_the_published_one_computes(blocks):
    network = small(blocks=blocks, downsamplings=2, upsampling="transposed").double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(images(*parameter.shape, seed=parameter.numel(), dtype=torch.float64))
    image = images(2, 3, 16, 20, dtype=torch.float64)
    expected = published_generator(network, image, blocks)
    torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-11)


def test_the_resize_generator_differs_from_it_only_in_the_upsampling():
    resize, transposed = (
        small(downsamplings=2, upsampling=how).state_dict() for how in ("resize", "transposed")
    )
    differing = {k for k in resize if resize[k].shape != transposed[k].shape}
    assert resize.keys() == transposed.keys()
    assert differing == {"segments.up1.convolution.weight", "segments.up2.convolution.weight"}


@pytest.mark.parametrize("upsampling", ["resize", "transposed"])
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("downsamplings", [1, 2, 3])
def test_a_generator_keeps_the_size_of_multiples_of_its_multiple(upsampling, blocks, downsamplings):
    network = small(upsampling=upsampling, blocks=blocks, downsamplings=downsamplings)
    assert network.multiple == 2**downsamplings
    size = (3 * network.multiple, 5 * network.multiple)
    output = network(images(2, 3, *size))
    assert output.shape == (2, 3, *size)
    assert output.abs().max() <= 1
    assert network(images(1, 3, size[0] + 1, size[1])).shape[2] != size[0] + 1  # so `multiple` is needed


@pytest.mark.parametrize(("layers", "expected"), [(1, 14), (2, 6), (3, 2)])
def test_a_discriminator_scores_patches(layers, expected):
    network = build({"name": "patchgan", "width": 4, "layers": layers})
    assert network(images(2, 3, 32, 32)).shape == (2, 1, expected, expected)


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_discriminators_scores_see_patches_of_the_published_size(layers, patch):
    network = build({"name": "patchgan", "width": 2, "layers": layers}).double()
    for (
        name,
        module,
    ) in network.named_modules():  # without the norm, through which a score depends on all pixels
        if isinstance(module, InstanceNorm):
            parent, _, child = name.rpartition(".")
            network.get_submodule(parent)[int(child)] = nn.Identity()
    image = images(1, 3, 96, 96, dtype=torch.float64).requires_grad_()
    scores = network(image)
    middle = scores.shape[2] // 2
    (slope,) = torch.autograd.grad(scores[0, 0, middle, middle], image)
    seen = slope.abs().sum((0, 1)) > 0
    assert (seen.any(0).sum(), seen.any(1).sum()) == (patch, patch)


@pytest.mark.parametrize("upsampling", ["resize", "transposed"])
def test_started_as_identity_a_generator_returns_its_input(upsampling):
    """The untrained output is tanh(atanh(0.99 x) + 0) = 0.99 x, which is within 0.01 |x| of x."""
    network = small(start_from="image", upsampling=upsampling)
    image = images(2, 3, 16, 16)
    image[0, :, 0] = torch.tensor([-1.0, 0.0, 1.0])[:, None]
    output = network(image)
    torch.testing.assert_close(output, 0.99 * image, rtol=0, atol=1e-6)
    assert ((output - image).abs() <= 0.01 * image.abs() + 1e-6).all()
    assert not torch.allclose(small(upsampling=upsampling)(image), image, atol=0.1)


@pytest.mark.parametrize("downsamplings", [1, 2, 3])
def test_started_from_the_smoothed_image_a_generator_returns_only_its_colours(downsamplings):
    network = small(start_from="smoothed", downsamplings=downsamplings)
    flat = images(2, 3, 1, 1).expand(2, 3, 16, 32)
    torch.testing.assert_close(network(flat), 0.99 * flat, rtol=0, atol=1e-6)
    side = network.multiple
    board = (torch.arange(32) % 2 * 2.0 - 1).expand(
        1, 3, 32, 32
    ) * 0.5  # a texture too fine for the blocks to see
    assert network(board).abs().max() < 1e-6
    step = torch.where(torch.arange(64) < 32, -0.5, 0.5).expand(1, 3, 64, 64)
    output = network(step)
    assert output.shape == step.shape
    torch.testing.assert_close(output[..., : 32 - side], 0.99 * step[..., : 32 - side], rtol=0, atol=1e-6)
    torch.testing.assert_close(output[..., 32 + side :], 0.99 * step[..., 32 + side :], rtol=0, atol=1e-6)


def test_started_as_identity_a_generator_learns():
    network = small(start_from="image")
    image = images(1, 3, 16, 16)
    (network(image) + image).square().mean().backward()
    tail = network.segments["tail"].convolution
    assert tail.weight.grad.abs().max() > 1e-4
    assert torch.isfinite(tail.weight.grad).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "network: expected one of cartoon, patchgan, resnet, got null"),
        ({"name": "resnett"}, "network: expected .* got 'resnett'"),
        ({"name": ["resnet"]}, r"network: expected .* got \['resnet'\]"),
        ({"name": {}}, r"network: expected .* got \{\}"),
        ({"name": "resnet", "widht": 8}, "network resnet: widht: unknown setting; did you mean width?"),
        ({"name": "resnet", "width": 0}, "network resnet: width: "),
        ({"name": "resnet", "blocks": 0}, "network resnet: blocks: "),
        ({"name": "resnet", "width": True}, "network resnet: width: expected a whole number, got true"),
        ({"name": "resnet", "upsampling": "bilinear"}, "expected one of resize, transposed"),
        ({"name": "patchgan", "blocks": 2}, "network patchgan: blocks: unknown setting"),
    ],
)
def test_a_spec_that_does_not_fit_is_reported_in_one_line(spec, message):
    with pytest.raises(SettingsError, match=message) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "resnet", "width": 4, "blocks": 1, "downsamplings": 1, "upsampling": "transposed"},
        {"name": "resnet", "width": 3, "blocks": 2, "start_from": "image"},
        {"name": "resnet", "width": 3, "blocks": 2, "start_from": "smoothed"},
        {"name": "patchgan", "width": 4, "layers": 2},
    ],
)
def test_a_network_is_rebuilt_from_its_own_spec(spec):
    network = build(spec)
    rebuilt = build(network.spec.model_dump(mode="json"))
    assert rebuilt.spec == network.spec
    image = images(1, 3, 16, 16)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(rebuilt(image), network(image))
    assert not torch.equal(build(spec)(image), network(image))


def test_a_spec_may_be_a_section():
    assert build(ResnetSpec(width=2, blocks=1)).spec == ResnetSpec(width=2, blocks=1)


@pytest.mark.parametrize(
    "spec", [{"name": "resnet", "width": 16, "blocks": 1}, {"name": "patchgan", "width": 16}]
)
def test_weights_start_with_deviation_one_fiftieth_and_biases_at_zero(spec):
    for name, parameter in build(spec).named_parameters():
        if parameter.ndim == 1:
            assert not parameter.any(), name
        else:
            n = parameter.numel()
            assert abs(parameter.std() / 0.02 - 1) < 5 / (2 * n) ** 0.5, name
            assert abs(parameter.mean() / 0.02) < 5 / n**0.5, name


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "resnet", "width": 4, "blocks": 2, "upsampling": "resize"},
        {"name": "resnet", "width": 4, "blocks": 2, "upsampling": "transposed"},
        {"name": "patchgan", "width": 4, "layers": 2},
    ],
)
def test_images_of_a_batch_do_not_influence_each_other(spec):
    network = build(spec).double()
    batch = images(3, 3, 16, 16, dtype=torch.float64).requires_grad_()
    output = network(batch)
    torch.testing.assert_close(output[1:2], network(batch[1:2]), rtol=1e-10, atol=1e-12)
    (slope,) = torch.autograd.grad(output[1].square().sum(), batch)
    assert not slope[[0, 2]].any()
    assert slope[1].any()


@pytest.mark.parametrize(
    "spec", [{"name": "resnet", "width": 4, "blocks": 1}, {"name": "patchgan", "width": 4}]
)
def test_outputs_under_bfloat16_are_close_and_images_remain_float32(spec):
    network = build(spec)
    image = images(1, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(image)
    if spec["name"] == "resnet":
        assert output.dtype == torch.float32
    torch.testing.assert_close(output.float(), network(image), rtol=0, atol=0.05)


@pytest.mark.parametrize("convolutions", [1, 2])
@pytest.mark.parametrize("start_from", ["nothing", "smoothed"])
@pytest.mark.parametrize("upsampling", ["resize", "transposed"])
def test_segments_state_the_resolution_of_their_result_and_how_far_it_looks(
    upsampling, start_from, convolutions
):
    network = small(
        upsampling=upsampling, downsamplings=2, start_from=start_from, convolutions=convolutions
    ).double()
    nn.init.normal_(network.segments["tail"].convolution.weight)
    seen = {}
    for name, segment in network.segments.items():
        segment.register_forward_hook(
            lambda _, given, result, name=name: seen.update({name: (given[0], result[0])})
        )
    network(images(1, 3, 64, 64, dtype=torch.float64).requires_grad_())
    assert seen.keys() == dict(network.segments.items()).keys()
    for name, segment in network.segments.items():
        given, result = seen[name]
        assert result.shape[2] == 64 * segment.scale, name
        first, last = result.shape[2] // 4, result.shape[2] // 2  # the part, in pixels of the result
        (slope,) = torch.autograd.grad(result[:, :, first:last].square().sum(), given, retain_graph=True)
        rows = slope.abs().sum((0, 1, 3)).nonzero().flatten()
        before, after = given.shape[2] // 4 - rows.min(), rows.max() + 1 - given.shape[2] // 2
        assert 0 <= max(before, after) <= segment.halo, name
        if isinstance(
            segment.convolution, nn.Sequential
        ):  # a part that begins at an odd row reaches half a pixel further
            assert max(before, after) > segment.halo - (2 if name.startswith("up") else 1), name
        elif segment.convolution.stride == (1, 1) and "resize" not in segment.entry:
            assert before == after == segment.halo, name
