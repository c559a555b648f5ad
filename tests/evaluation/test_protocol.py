"""The two ways to prepare a feature network's input, each compared with an independent computation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gan_nst.evaluation.features import DESCRIPTIONS, prepare

SIZES = [(40, 30), (100, 80), (299, 299), (1, 1), (500, 7)]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [16, 64, 299])
def test_clean_equals_pillows_float_bicubic_clipped(height, width, size):
    image = noise(height, width)
    expected = np.empty((3, size, size), np.float32)
    for channel in range(3):
        pil = Image.fromarray(image[:, :, channel]).convert("F")
        assert pil.mode == "F"
        expected[channel] = pil.resize((size, size), Image.Resampling.BICUBIC)
    expected = np.minimum(np.maximum(expected, 0), 255)
    np.testing.assert_allclose(prepare(image, size, "clean"), expected / 128 - 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [16, 64, 299])
def test_legacy_equals_pytorch_fid(height, width, size):
    """ToTensor, then bilinear without anti-aliasing, then 2 x - 1."""
    image = noise(height, width)
    x = torch.tensor(image).permute(2, 0, 1).float().div(255)
    x = F.interpolate(x[None], (size, size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(prepare(image, size, "legacy"), 2 * x[0] - 1, rtol=0, atol=1e-6)


def test_clean_is_clipped_but_not_rounded():
    """Compared with Pillow's resizing of 8-bit images, and of floats without clipping."""
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::7] = 255
    values = prepare(stripes, 200, "clean") * 128 + 128
    assert values.min() == 0
    assert values.max() == 255
    assert ((values - values.round()).abs() > 0.1).any()
    unclipped = Image.fromarray(stripes[..., 0].astype(np.float32)).resize(
        (200, 200), Image.Resampling.BICUBIC
    )
    assert np.asarray(unclipped).min() < -1, "the filter leaves the range, so that clipping was needed"


@pytest.mark.parametrize("protocol", DESCRIPTIONS)
@pytest.mark.parametrize("size", [8, 299])
def test_inputs_are_float_squares_from_about_minus_one_to_one(protocol, size):
    for image in (noise(20, 30), np.zeros((5, 9, 3), np.uint8), np.full((9, 5, 3), 255, np.uint8)):
        x = prepare(image, size, protocol)
        assert x.shape == (3, size, size)
        assert x.dtype == torch.float32
        assert x.min() >= -1 - 1e-5  # interpolation rounds
        assert x.max() <= 1 + 1e-5
    assert x.min() > 0.99
    assert prepare(np.zeros((5, 9, 3), np.uint8), size, protocol).max() == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("protocol", DESCRIPTIONS)
def test_channels_and_directions_are_kept(protocol):
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :, 0] = 255  # the upper half is red
    image[:, 32:, 2] = 255  # the right half is blue
    x = prepare(image, 16, protocol)
    assert (x[0, :6] > 0.9).all()
    assert (x[0, -6:] < -0.9).all()
    assert (x[2, :, :6] < -0.9).all()
    assert (x[2, :, -6:] > 0.9).all()
    assert (x[1] < -0.9).all()


def test_the_protocols_differ_where_an_image_has_detail():
    """Shrunk eightfold, noise becomes gray with anti-aliasing and remains noise without it."""
    clean, legacy = (prepare(noise(256, 256), 32, protocol) for protocol in ("clean", "legacy"))
    assert clean.std() < 0.5 * legacy.std()
    assert (clean - legacy).abs().mean() > 0.2


def test_the_protocols_agree_on_a_flat_image_except_for_the_scale():
    image = np.full((50, 40, 3), (10, 128, 250), np.uint8)
    clean, legacy = (prepare(image, 20, protocol) for protocol in ("clean", "legacy"))
    torch.testing.assert_close(clean * 128 + 128, (legacy + 1) * 127.5, rtol=0, atol=1e-4)


def test_the_image_is_not_modified():
    image = noise(20, 20)
    image.flags.writeable = False
    for protocol in DESCRIPTIONS:
        prepare(image[::-1], 10, protocol)
        prepare(image[:, ::2], 10, protocol)
    np.testing.assert_array_equal(image, noise(20, 20))
