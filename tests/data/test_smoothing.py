"""Edge-smoothed cartoons against a loop over pixels, and that they differ from the cartoons themselves."""

import cv2
import numpy as np
import pytest
from helpers_data import noise

from gan_nst.data.demo import draw_cartoon, make_scene
from gan_nst.data.smoothing import smooth_edges

WEIGHTS = (1, 4, 6, 4, 1)


def cartoon(number, size):
    return draw_cartoon(make_scene(0, "train-b", number), size)


def edges_of(image):
    """Where OpenCV's Canny finds an edge, on gray values of its own weights for red, green and blue."""
    gray = (image.astype(int) @ (4899, 9617, 1868) + 8192) >> 14
    return cv2.Canny(gray.astype(np.uint8), 100, 200) > 0


def near_edges(image):
    """Where there is an edge within two pixels, by a loop."""
    edges, near = edges_of(image), np.zeros(image.shape[:2], bool)
    for row, column in zip(*edges.nonzero(), strict=True):
        near[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = True
    return near


def blurred_pixel(image, row, column):
    """A pixel of the Gaussian of the image, which is reflected about its border pixels; halves are rounded up."""
    height, width, _ = image.shape

    def inside(place, size):
        place = abs(place)
        return 2 * (size - 1) - place if place >= size else place

    total = np.zeros(3, int)
    for down, first in enumerate(WEIGHTS, -2):
        for right, second in enumerate(WEIGHTS, -2):
            total += (
                first * second * image[inside(row + down, height), inside(column + right, width)].astype(int)
            )
    return (total + 128) // 256


def steps():
    """A step that fades out downwards, and one just too low to be an edge where no stronger one continues it."""
    image = np.full((64, 40, 3), 40, np.uint8)
    image[:, 10:] += np.arange(64, 0, -1, dtype=np.uint8)[:, None, None]
    image[:, 26:] = image[:, 25:26] + 47
    return image


def naive(image):
    result = image.copy()
    for row, column in zip(*near_edges(image).nonzero(), strict=True):
        result[row, column] = blurred_pixel(image, row, column)
    return result


@pytest.mark.parametrize(
    "image",
    [cartoon(0, 48), cartoon(1, 40)[:, :28], cartoon(2, 40)[:17], noise(14, 19), noise(6, 5), steps()],
    ids=["square", "tall", "wide", "noise", "small", "steps"],
)
def test_it_equals_a_loop_over_pixels(image):
    before = image.copy()
    smoothed = smooth_edges(image)
    assert smoothed.shape == image.shape
    assert smoothed.dtype == np.uint8
    np.testing.assert_array_equal(smoothed, naive(image))
    np.testing.assert_array_equal(image, before)


def test_red_and_blue_count_as_red_and_blue():
    """Negative control of the colours' order: a blue step too faint for an edge is a clear one in red."""
    red, blue = (np.zeros((16, 16, 3), np.uint8) for _ in range(2))
    red[:, 8:, 0] = blue[:, 8:, 2] = 200
    assert not np.array_equal(smooth_edges(red), red)
    np.testing.assert_array_equal(smooth_edges(blue), blue)


@pytest.mark.parametrize("size", [64, 128])
def test_nothing_changes_away_from_edges(size):
    for number in range(4):
        image = cartoon(number, size)
        changed = (smooth_edges(image) != image).any(2)
        near = near_edges(image)
        assert not changed[~near].any()
        assert changed[near].mean() > 0.5


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 200, 90)])
def test_a_flat_image_is_unchanged(colour):
    image = np.full((20, 30, 3), colour, np.uint8)
    np.testing.assert_array_equal(smooth_edges(image), image)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_smallest_images_are_accepted(size):
    assert smooth_edges(noise(size, size)).shape == (size, size, 3)
    assert smooth_edges(noise(size, 40)).shape == (size, 40, 3)


@pytest.mark.parametrize(("size", "share", "contrast"), [(64, 0.3, 15), (256, 0.1, 15)])
def test_negatives_differ_from_positives(size, share, contrast):
    """At least this share of every drawn cartoon's pixels, by this much of 255 on average."""
    for number in range(8):
        image = cartoon(number, size)
        smoothed = smooth_edges(image)
        changed = (smoothed != image).any(2)
        assert share < changed.mean() < 0.75, number
        assert np.abs(smoothed[changed].astype(int) - image[changed]).mean() > contrast, number
        steps = [np.abs(np.diff(x.astype(int), axis=1)).max() for x in (image, smoothed)]
        assert steps[1] < steps[0], number  # no step is as steep as the steepest one before


def test_it_is_the_same_every_time():
    image = cartoon(3, 96)
    np.testing.assert_array_equal(smooth_edges(image), smooth_edges(image.copy()))
