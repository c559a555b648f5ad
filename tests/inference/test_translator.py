"""The translator returns the translation of any image at exactly its size."""

import numpy as np
import pytest
import torch
from helpers_inference import Blur, Shift, describe, translator
from PIL import Image

from gan_nst.core.errors import SettingsError
from gan_nst.inference.translator import Translator
from gan_nst.networks import build
from gan_nst.tiling.strips import pad_to_multiple

SIZES = [
    (1, 1),
    (1, 7),
    (5, 300),
    (300, 5),
    (15, 16),
    (16, 16),
    (17, 33),
    (31, 29),
    (64, 64),
    (2, 2),
    (63, 65),
]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module", params=[1, 2, 3])
def network(request):
    torch.manual_seed(0)
    return build({"name": "resnet", "width": 2, "blocks": 1, "downsamplings": request.param})


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_kept(network, size):
    output = translator(network)(noise(*size))
    assert output.shape == (*size, 3)
    assert output.dtype == np.uint8


@pytest.mark.parametrize("downsamplings", [4, 5])
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (16, 16), (33, 32)])
def test_deep_generators_accept_small_images(downsamplings, size):
    network = build({"name": "resnet", "width": 1, "blocks": 1, "downsamplings": downsamplings})
    assert translator(network)(noise(*size)).shape == (*size, 3)


def test_a_pillow_image_comes_back_as_one():
    image = noise(9, 13)
    output = translator(Shift())(Image.fromarray(image))
    assert isinstance(output, Image.Image)
    assert output.size == (13, 9)
    np.testing.assert_array_equal(np.asarray(output), translator(Shift())(image))


def test_pillow_images_of_any_mode_are_accepted():
    gray = Image.fromarray(noise(9, 13)).convert("L")
    output = np.asarray(translator(Shift())(gray))
    np.testing.assert_array_equal(output, translator(Shift())(np.asarray(gray.convert("RGB"))))
    exif = gray.getexif()
    exif[0x0112] = 6
    assert translator(Shift())(gray).size == (9, 13)  # upright


def test_networks_see_values_from_minus_one_to_one():
    """A quarter of [-1, 1] is an eighth of 255."""
    image = noise(10, 11)
    expected = np.clip(np.round(image + 0.25 * 127.5), 0, 255)
    np.testing.assert_array_equal(translator(Shift())(image), expected)


@pytest.mark.parametrize("size", [(5, 300), (17, 18), (16, 16), (20, 31), (30, 30)])
@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_padding_does_not_affect_distant_pixels(size, multiple):
    image = noise(*size)
    output = translator(Blur(multiple))(image)
    x = torch.from_numpy(image.transpose(2, 0, 1)[None]).double()
    unpadded = torch.nn.functional.avg_pool2d(x, 3, 1, 1)[0].permute(1, 2, 0).numpy()
    inner = (slice(0, size[0] - 1), slice(0, size[1] - 1))
    np.testing.assert_allclose(output[inner][1:, 1:], unpadded[inner][1:, 1:], atol=0.5 + 1e-3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("multiple", [1, 4, 8, 32])
def test_padding_is_added_at_the_right_and_bottom(size, multiple):
    x = torch.rand(1, 3, *size)
    padded = pad_to_multiple(x, multiple)
    assert torch.equal(padded[:, :, : size[0], : size[1]], x)
    for length, grown in zip(size, padded.shape[2:], strict=True):
        assert grown % multiple == 0
        assert grown >= max(length, 16)
        assert grown < max(length, 16, 2 * multiple) + multiple
    assert padded.min() >= x.min()
    assert padded.max() <= x.max()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (8, 9), (9, 8), (9, 9), (15, 16), (16, 33), (7, 100)])
@pytest.mark.parametrize("multiple", [2, 4, 8, 16])
def test_padding_equals_torchs_pad(size, multiple):
    x = torch.rand(1, 3, *size)
    padded = pad_to_multiple(x, multiple)
    down, right = (new - old for new, old in zip(padded.shape[2:], size, strict=True))
    mode = "reflect" if down < size[0] and right < size[1] else "replicate"
    assert torch.equal(padded, torch.nn.functional.pad(x, (0, right, 0, down), mode=mode))


def test_padding_reflects_if_possible_and_skips_what_fits():
    x = torch.arange(18.0).expand(1, 1, 16, 18)
    assert pad_to_multiple(x, 4)[0, 0, 0, -3:].tolist() == [17, 16, 15]
    narrow = torch.arange(3.0).expand(1, 1, 16, 3)
    assert pad_to_multiple(narrow, 4)[0, 0, 0].tolist() == [0, 1, *[2] * 14]
    fitting = torch.rand(2, 3, 16, 32)
    assert torch.equal(pad_to_multiple(fitting, 8), fitting)


def test_images_of_one_size_are_batched():
    network = Blur()
    made = translator(network)
    images = [noise(20, 24, seed) for seed in range(3)]
    outputs = made.translate(images)
    assert network.seen == [(3, 3, 20, 24)]
    for image, output in zip(images, outputs, strict=True):
        np.testing.assert_array_equal(output, made(image))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_an_array_that_is_not_an_image_is_refused(image):
    with pytest.raises(ValueError, match=r"expected RGB uint8 or uint16 of shape \(h, w, 3\), got"):
        translator(Shift())(image)


def test_given_arrays_are_not_modified():
    image = noise(9, 9)
    before = image.copy()
    translator(Shift())(image)[:] = 0
    np.testing.assert_array_equal(image, before)
    assert translator(Shift())(image[:, ::-1]).shape == image.shape  # a view with negative strides


def test_the_generator_is_frozen_and_builds_no_graph(network):
    made = translator(network.train())
    assert not made.generator.training
    assert not any(parameter.requires_grad for parameter in made.generator.parameters())


def test_bfloat16_is_close(network):
    image = noise(24, 24)
    exact = translator(network)(image).astype(int)
    assert np.abs(exact - translator(network, precision="bfloat16")(image)).max() < 5


def test_the_scale_is_that_of_the_shorter_side():
    made = translator(Shift(), load_size=100)
    assert made.scale_of(50, 400) == 0.5
    assert made.scale_of(400, 300) == 3


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", ""])
def test_an_invalid_device_is_reported(device):
    with pytest.raises(SettingsError, match="device: "):
        Translator(Shift(), describe(), device=device)


def test_batches_on_the_cpu_are_small():
    made = translator(build({"name": "resnet", "width": 4, "blocks": 1}))
    assert [made.fits(side, side) for side in (64, 256, 1000)] == [16, 1, 1]
