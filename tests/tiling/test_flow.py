"""Smoothing removes flicker where the motion is known, and leaves everything else unchanged."""

import cv2
import numpy as np
import pytest
from helpers_videos import clouds, moving, warping_error

from gan_nst.tiling.flow import CutDetector, Smoother, optical_flow, warp


def texture(height, width, seed):
    """A texture that can be tracked: coloured noise at several scales."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            rng.normal(0, 1, (height // s + 2, width // s + 2, 3)),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        * s**0.5
        for s in (4, 9, 20)
    ]
    image = sum(layers)
    return np.clip(128 + 30 * image / image.std(), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def video():
    return moving(texture(160, 200, 0), texture(90, 90, 1), count=14, size=(96, 128))


def flickering(frames, seed=3):
    """A translation with more contrast whose brightness flickers over space and time."""
    rng = np.random.default_rng(seed)
    found = []
    for frame in frames:
        waves = cv2.resize(rng.normal(0, 8, (6, 8, 3)), (128, 96), interpolation=cv2.INTER_CUBIC)
        found.append(np.clip((frame.astype(float) - 128) * 1.2 + 128 + waves, 0, 255).astype(np.uint8))
    return found


def smoothed(images, translated, strength=0.7):
    smooth = Smoother(strength)
    return [smooth(image, output) for image, output in zip(images, translated, strict=True)]


def gradient(image):
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.mean(np.square(cv2.Sobel(gray, -1, 1, 0)) + np.square(cv2.Sobel(gray, -1, 0, 1)))


def test_the_estimated_motion_is_the_known_motion(video):
    assert warping_error(video.clean, video.flows, video.visible) < 1.5
    backwards = [-flow for flow in video.flows]
    assert warping_error(video.clean, backwards, video.visible) > 4
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video.clean]
    for number, flow in enumerate(video.flows, 1):
        found = optical_flow(gray[number], gray[number - 1])
        assert np.linalg.norm(found - flow, axis=2)[video.visible[number - 1]].mean() < 0.4


def test_the_warping_error_measures_flicker(video):
    levels = np.random.default_rng(0).permutation(np.arange(0, 56, 4))
    gray = np.full((96, 128, 3), 100, np.uint8)
    flows, seen = [np.zeros((96, 128, 2), np.float32)] * 13, [np.ones((96, 128), bool)] * 13
    frames = [gray + np.uint8(level) for level in levels]
    assert warping_error(frames, flows, seen) == pytest.approx(np.abs(np.diff(levels)).mean())
    deep = [frame.astype(np.uint16) * 257 for frame in frames]
    assert warping_error(deep, flows, seen) == pytest.approx(np.abs(np.diff(levels)).mean(), rel=1e-4)


def test_smoothing_reduces_the_warping_error_by_30_percent(video):
    translated = flickering(video.frames)
    before = warping_error(translated, video.flows, video.visible)
    result = smoothed(video.frames, translated)
    assert warping_error(result, video.flows, video.visible) < 0.7 * before
    clean = [
        np.clip((frame.astype(float) - 128) * 1.2 + 128, 0, 255).astype(np.uint8) for frame in video.clean
    ]
    kept = np.mean([gradient(image) for image in result[4:]]) / np.mean([gradient(p) for p in clean[4:]])
    assert 0.93 < kept < 1.1


def test_newly_visible_areas_keep_their_colours(video):
    """The disc leaves no ghost."""
    translated = flickering(video.frames)
    result = smoothed(video.frames, translated, 0.9)
    ghosts = [
        np.abs(one.astype(float) - other)[mask].mean()
        for one, other, mask in zip(result[1:], translated[1:], video.uncovered, strict=True)
        if mask.any()
    ]
    background = np.mean(
        [np.abs(one.astype(float) - other).mean() for one, other in zip(result, translated, strict=True)]
    )
    assert len(ghosts) > 8
    assert np.mean(ghosts) < 1.5 < background


def test_smoothing_treats_16_bits_like_8(video):
    translated = flickering(video.frames)[:4]
    deep = smoothed(
        [f.astype(np.uint16) * 257 for f in video.frames[:4]], [t.astype(np.uint16) * 257 for t in translated]
    )
    for one, other in zip(deep, smoothed(video.frames[:4], translated), strict=True):
        assert one.dtype == np.uint16
        assert np.abs(one / 257 - other).max() <= 1


def test_the_frame_after_a_reset_is_unchanged(video):
    translated = flickering(video.frames)
    smooth = Smoother()
    smooth(video.frames[0], translated[0])
    assert np.abs(smooth(video.frames[1], translated[1]).astype(int) - translated[1]).mean() > 0.5
    smooth.reset()
    np.testing.assert_array_equal(smooth(video.frames[2], translated[2]), translated[2])


def test_an_unrelated_frame_is_unchanged_even_without_a_reset(video):
    smooth = Smoother(0.9)
    other = texture(96, 128, 9)
    smooth(video.frames[0], video.frames[0])
    assert np.abs(smooth(other, other).astype(float) - other).mean() < 1.5


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 9), (700, 40)])
def test_every_size_is_smoothed(size):
    smooth = Smoother()
    for seed in range(2):
        image = clouds(*size, seed=seed)
        assert smooth(image, image).shape == (*size, 3)


def test_a_warp_by_whole_pixels_is_a_shift():
    image = texture(20, 30, 2)
    flow = np.zeros((20, 30, 2), np.float32) + np.array([3, -2], np.float32)
    np.testing.assert_allclose(warp(image, flow)[2:, :-3], image[:-2, 3:], atol=1e-3)


def test_cuts_are_detected_and_motion_is_not_a_cut(video):
    cuts = CutDetector()
    other = [np.roll(texture(96, 128, 7), 2 * n, 1) for n in range(8)]
    found = [cuts(frame) for frame in [*video.frames, *other, *video.frames]]
    assert [number for number, cut in enumerate(found) if cut] == [0, 14, 22]


def test_a_fade_is_not_a_cut_except_at_its_start(video):
    cuts = CutDetector()
    found = [cuts((video.frames[0] * (1 - n / 12)).astype(np.uint8)) for n in range(12)]
    assert not any(found[2:])
