"""Scores against the truth, each compared with an independent computation."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from gan_nst.evaluation.paired import absolute_error, colour_statistics, map_colours, structural_similarity


def noise(height=24, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height=24, width=30):
    rows, columns = np.indices((height, width))
    return np.stack([rows * 5 + 60, columns * 4 + 50, rows + columns + 100], 2).astype(np.uint8)


def ssim(x, y):
    """Wang et al. 2004, equation 13, over all complete windows of 11x11 pixels, weighted by a Gaussian of
    deviation 1.5.
    """
    place = np.arange(11) - 5
    weight = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for channel in range(3):
        p, q = (np.pad(z[..., channel] / 255, 5, mode="reflect") for z in (x, y))
        for top in range(x.shape[0]):
            for left in range(x.shape[1]):
                window = slice(top, top + 11), slice(left, left + 11)
                a, b = p[window], q[window]
                mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
                variance_a, variance_b = (
                    (weight * (a - mean_a) ** 2).sum(),
                    (weight * (b - mean_b) ** 2).sum(),
                )
                covariance = (weight * (a - mean_a) * (b - mean_b)).sum()
                c1, c2 = 0.01**2, 0.03**2
                values.append(
                    (2 * mean_a * mean_b + c1)
                    * (2 * covariance + c2)
                    / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
                )
    return np.mean(values)


PAIRS = {
    "noise": (noise(seed=1), noise(seed=2)),
    "noisy": (smooth(), (smooth() + noise() // 16).astype(np.uint8)),
    "shifted": (smooth(), smooth() + 20),
    "one pixel": (smooth(), np.where(np.indices((24, 30, 3)).sum(0) == 20, 255, smooth()).astype(np.uint8)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_scores_equal_those_computed_by_hand(pair):
    x, y = PAIRS[pair]
    assert absolute_error(x, y) == pytest.approx(np.abs(x.astype(float) - y).mean() / 255, abs=1e-12)
    assert structural_similarity(x, y) == pytest.approx(ssim(x, y), abs=1e-6)


@pytest.mark.parametrize("pair", PAIRS)
def test_similarity_equals_torchmetrics(pair):
    x, y = (torch.from_numpy(p.transpose(2, 0, 1)[None] / 255.0) for p in PAIRS[pair])
    expected = structural_similarity_index_measure(x, y, sigma=1.5, kernel_size=11, data_range=1.0)
    assert structural_similarity(*PAIRS[pair]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("image", [noise(), smooth(), noise(1, 1), noise(3, 40)])
def test_equal_images_are_perfect(image):
    assert absolute_error(image, image) == 0
    assert structural_similarity(image, image) == pytest.approx(1, abs=1e-9)


def test_worse_images_score_worse():
    truth = smooth()
    rng = np.random.default_rng(0)
    errors, similarities = [], []
    for strength in (2, 10, 40):
        worse = np.clip(truth + rng.normal(0, strength, truth.shape), 0, 255).astype(np.uint8)
        errors.append(absolute_error(worse, truth))
        similarities.append(structural_similarity(worse, truth))
    assert errors == sorted(errors)
    assert similarities == sorted(similarities, reverse=True)


def test_colour_statistics_are_of_all_pixels():
    images = [noise(8, 9, 1), smooth(20, 11) // 2, noise(3, 50, 2)]
    pixels = np.concatenate([p.reshape(-1, 3) for p in images]) / 255
    statistics = colour_statistics(iter(images))
    np.testing.assert_allclose(statistics.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.deviation, pixels.std(0), rtol=1e-9)


def test_mapped_colours_have_the_targets_mean_and_deviation():
    """Exactly, but for the rounding to 8 bits, when no value leaves the range."""
    rng = np.random.default_rng(3)
    sources = [rng.integers(80, 180, (64, 64, 3), np.uint8) for _ in range(4)]
    targets = [rng.integers((60, 90, 120), (200, 150, 140), (50, 60, 3)).astype(np.uint8) for _ in range(3)]
    source, target = colour_statistics(sources), colour_statistics(targets)
    mapped = [map_colours(image, source, target) for image in sources]
    assert all(0 < m.min() <= m.max() < 255 for m in mapped)
    result = colour_statistics(mapped)
    # Rounding moves no value, and so neither the mean nor the deviation, by more than half a step of 1/255.
    np.testing.assert_allclose(result.mean, target.mean, rtol=0, atol=0.5 / 255)
    np.testing.assert_allclose(result.deviation, target.deviation, rtol=0, atol=0.5 / 255)
    assert np.abs(target.mean - source.mean).max() > 3 / 255
    assert np.abs(target.deviation - source.deviation).max() > 3 / 255


def test_colours_mapped_to_their_own_statistics_do_not_change():
    image = noise()
    statistics = colour_statistics([image])
    np.testing.assert_array_equal(map_colours(image, statistics, statistics), image)


def test_a_channel_without_deviation_is_only_shifted():
    gray = np.full((8, 8, 3), 100, np.uint8)
    mapped = map_colours(gray, colour_statistics([gray]), colour_statistics([gray + 50]))
    np.testing.assert_array_equal(mapped, gray + 50)


def test_mapped_values_are_clipped_not_wrapped():
    dark, bright = np.full((4, 4, 3), 3, np.uint8), noise() // 2 + 128
    mapped = map_colours(noise(), colour_statistics([noise() // 8]), colour_statistics([bright]))
    assert mapped.dtype == np.uint8
    brightest = noise().reshape(-1, 3).argmax(0)
    assert (mapped.reshape(-1, 3)[brightest, range(3)] == 255).all()
    assert map_colours(dark, colour_statistics([bright]), colour_statistics([dark])).max() <= 3
