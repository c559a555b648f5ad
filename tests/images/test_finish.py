"""Finishing changes what was requested, and nothing else."""

import itertools

import cv2
import numpy as np
import pytest
from PIL import Image

from gan_nst.core.errors import SettingsError
from gan_nst.core.options import Finish
from gan_nst.images import finish as module
from gan_nst.images.arrays import bands
from gan_nst.images.finish import complete, prepare
from gan_nst.images.photo import Photo, read_photo

KINDS = [np.uint8, np.uint16]
LUMA = np.array([0.2126, 0.7152, 0.0722])


def smooth(kind, height=40, width=60, seed=0):
    """An image of a few soft blobs of colour, over most of the range."""
    noise = np.random.default_rng(seed).random((5, 6, 3))
    planes = [
        np.asarray(
            Image.fromarray(noise[..., c].astype(np.float32)).resize(
                (width, height), Image.Resampling.BICUBIC
            )
        )
        for c in range(3)
    ]
    return np.rint((0.05 + 0.9 * np.clip(np.stack(planes, -1), 0, 1)) * np.iinfo(kind).max).astype(kind)


def levels(kind, value):
    return kind(np.rint(value * np.iinfo(kind).max))


def invert(pixels):
    return np.iinfo(pixels.dtype).max - pixels


def ring(kind, height=40, width=60):
    """Alpha: nothing outside a disk, everything inside, half on its rim."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2)
    return np.select([distance < 12, distance < 14], [levels(kind, 1), levels(kind, 0.5)], 0).astype(kind)


def blur(pixels, radius=4):
    """Stands in for a network that uses neighbouring pixels and statistics of the whole image."""
    padded = np.pad(pixels.astype(float), ((radius, radius), (radius, radius), (0, 0)), "edge")
    side = 2 * radius + 1
    total = sum(
        padded[y : y + pixels.shape[0], x : x + pixels.shape[1]]
        for y, x in itertools.product(range(side), range(side))
    )
    return np.rint(0.9 * total / side**2 + 0.1 * pixels.mean((0, 1))).astype(pixels.dtype)


def to_linear(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def from_linear(values):
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


@pytest.fixture(autouse=True)
def _narrow_bands(monkeypatch):
    """Uses bands of a few rows, as for large images."""
    monkeypatch.setattr(module, "bands", lambda height, width: bands(height, width, pixels=7 * width))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["none", "luma", "statistics"])
@pytest.mark.parametrize("scale", [1, 0.5])
def test_strength_0_is_the_image_bit_for_bit(kind, mode, scale):
    photo = Photo(smooth(kind), ring(kind), b"exif")
    finish = Finish(mode, 0.0, scale)
    completed = complete(photo, invert(prepare(photo, finish)), finish)
    np.testing.assert_array_equal(completed.pixels, photo.pixels)
    np.testing.assert_array_equal(completed.alpha, photo.alpha)
    assert completed.exif == b"exif"


@pytest.mark.parametrize("kind", KINDS)
def test_strength_1_is_the_translation_bit_for_bit(kind):
    photo = Photo(smooth(kind), None, b"exif")
    translated = smooth(kind, seed=1)
    completed = complete(photo, translated, Finish())
    np.testing.assert_array_equal(completed.pixels, translated)
    assert (completed.alpha, completed.exif) == (None, b"exif")
    np.testing.assert_array_equal(prepare(photo, Finish()), photo.pixels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [0.001, 0.3, 0.999])
def test_strength_blends_linear_light(kind, strength):
    photo, translated = Photo(smooth(kind)), smooth(kind, seed=1)
    white = np.iinfo(kind).max
    mixed = (1 - strength) * to_linear(photo.pixels / white) + strength * to_linear(translated / white)
    completed = complete(photo, translated, Finish(strength=strength)).pixels
    assert completed.dtype == kind
    assert np.abs(completed - from_linear(mixed) * white).max() <= (0.5 if kind == np.uint8 else 0.7)


def test_blending_black_and_white_gives_half_the_light():
    black, white = np.zeros((3, 3, 3), np.uint8), np.full((3, 3, 3), 255, np.uint8)
    assert (complete(Photo(black), white, Finish(strength=0.5)).pixels == 188).all()


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_colours_change_no_visible_pixel(kind):
    alpha = ring(kind)
    one, other = smooth(kind), smooth(kind, seed=1)
    other[alpha > 0] = one[alpha > 0]
    outcomes = []
    for pixels, finish in itertools.product(
        (one, other), (Finish(), Finish(scale=0.6), Finish("luma", 0.7), Finish("statistics", 0.7, 0.6))
    ):
        photo = Photo(pixels, alpha)
        completed = complete(photo, blur(prepare(photo, finish)), finish)
        np.testing.assert_array_equal(completed.alpha, alpha)
        outcomes.append(completed.pixels[alpha > 0])
    for with_one, with_other in zip(outcomes[:4], outcomes[4:], strict=True):
        np.testing.assert_array_equal(with_one, with_other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1, 0.5])
def test_red_under_the_transparency_does_not_tint_the_edge(kind, scale):
    alpha = ring(kind)
    pixels = np.full((40, 60, 3), levels(kind, 0.4), kind)
    pixels[alpha == 0] = np.array([1, 0, 0], kind) * np.iinfo(kind).max
    photo = Photo(pixels, alpha)
    tinted = blur(photo.pixels)[alpha > 0].astype(float)
    assert np.ptp(tinted, -1).max() > 0.1 * np.iinfo(kind).max  # the naive result
    finish = Finish(scale=scale)
    completed = complete(photo, blur(prepare(photo, finish)), finish).pixels[alpha > 0]
    assert np.abs(completed.astype(float) - levels(kind, 0.4)).max() <= 1


def test_hidden_pixels_take_the_colours_around_them():
    left, right = [200, 40, 40], [40, 40, 200]
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :8], pixels[:, -8:] = left, right
    alpha = np.zeros((64, 64), np.uint8)
    alpha[:, :8] = alpha[:, -8:] = 255
    filled = prepare(Photo(pixels, alpha), Finish()).astype(int)
    assert np.abs(filled[:, 8] - left).max() <= 24
    assert np.abs(filled[:, -9] - right).max() <= 24
    assert (np.diff(filled[32, :, 2]) >= -2).all()  # a monotonic transition from one to the other
    np.testing.assert_array_equal(filled[alpha > 0], pixels[alpha > 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (13, 7)])
def test_one_visible_pixel_colours_all_and_none_gives_white(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    alpha = np.zeros(shape, np.uint8)
    assert (prepare(Photo(pixels, alpha), Finish()) == 255).all()
    alpha[-1, -1] = 1
    assert np.abs(prepare(Photo(pixels, alpha), Finish()).astype(int) - pixels[-1, -1]).max() <= 1


def test_large_images_are_filled_by_blocks(monkeypatch):
    alpha, pixels = ring(np.uint8), np.full((40, 60, 3), 90, np.uint8)
    monkeypatch.setattr(module, "_BLOCKS", 100)  # of 5 x 5 pixels, which not every side is a multiple of
    pixels[alpha == 0] = 0
    assert (prepare(Photo(pixels[:, :58], alpha[:, :58]), Finish()) == 90).all()


@pytest.mark.parametrize("kind", KINDS)
def test_luma_comes_from_the_translation_and_chroma_from_the_image(kind):
    photo, translated = Photo(smooth(kind)), smooth(kind, seed=1)
    white = np.iinfo(kind).max
    completed = complete(photo, translated, Finish("luma")).pixels / white
    level = 1 / white
    np.testing.assert_allclose(completed @ LUMA, translated / white @ LUMA, atol=level)
    before, after = photo.pixels / white, completed
    chroma, kept = before - (before @ LUMA)[..., None], after - (after @ LUMA)[..., None]
    inside = ((completed > level) & (completed < 1 - level)).all(-1)
    assert 0.3 < inside.mean() < 1
    np.testing.assert_allclose(kept[inside], chroma[inside], atol=1.5 * level)
    ratio = np.linalg.norm(kept, axis=-1) / np.linalg.norm(chroma, axis=-1)
    assert ratio.max() <= 1.05  # colours out of gamut lose chroma
    cosine = (kept * chroma).sum(-1) / np.linalg.norm(kept, axis=-1) / np.linalg.norm(chroma, axis=-1)
    assert cosine[ratio > 0.2].min() > 0.98  # and keep their hue


def lab(values):
    """CIELAB of sRGB, D65, from its definition in float64."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = to_linear(values) @ (matrix / matrix.sum(1, keepdims=True)).T
    f = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transparent", [False, True])
def test_statistics_match_the_visible_image(kind, transparent):
    white = np.iinfo(kind).max
    photo = Photo((smooth(kind) // 4 + white // 3).astype(kind), ring(kind) if transparent else None)
    translated = (smooth(kind, seed=1) // 3 + white // 4).astype(kind)
    if transparent:
        translated[photo.alpha == 0] = white  # must be ignored
    completed = complete(photo, translated, Finish("statistics")).pixels
    weights = np.ones((40, 60)) if photo.alpha is None else photo.alpha / white
    for values in zip(
        lab(photo.pixels / white).reshape(-1, 3).T, lab(completed / white).reshape(-1, 3).T, strict=True
    ):
        theirs, ours = (np.cov(v, aweights=weights.ravel(), ddof=0) ** 0.5 for v in values)
        means = [np.average(v, weights=weights.ravel()) for v in values]
        assert abs(theirs - ours) < 0.3
        assert abs(means[0] - means[1]) < 0.3


def test_colours_outside_srgb_keep_their_luminance():
    """They are moved towards gray, not clipped channel by channel."""
    bright = lab(np.random.default_rng(0).random((30, 30, 3)))
    wide = bright * (1, 2, 2) + (16, 0, 0)  # the package counts L* from -16
    found = lab(module._from_lab(wide.astype(np.float32)).astype(float))
    np.testing.assert_allclose(found[..., 0], bright[..., 0], atol=0.2)


def test_enlarging_is_bilinear_between_pixel_centres():
    pixels = smooth(np.uint8, 17, 30)
    give = module.enlarged(module.in_floats(pixels), (17, 30), (41, 67))
    wanted = cv2.resize(pixels.astype(np.float32) / 255, (67, 41), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(give(slice(0, 41)), wanted, atol=1e-5)
    np.testing.assert_allclose(give(slice(11, 24)), wanted[11:24], atol=1e-5)


def test_reducing_averages_areas_of_any_size():
    pixels = smooth(np.uint8, 41, 67)
    give = module.reduced(module.in_floats(pixels), (41, 67), (17, 30))
    area = cv2.resize(pixels.astype(np.float32) / 255, (30, 17), interpolation=cv2.INTER_AREA)
    for height in (1, 4, 17):
        parts = [give(slice(start, min(start + height, 17))) for start in range(0, 17, height)]
        np.testing.assert_allclose(np.concatenate(parts), area, atol=1e-5)


@pytest.mark.parametrize("mode", ["luma", "statistics"])
@pytest.mark.parametrize("kind", KINDS)
def test_preserving_colour_does_not_change_an_untranslated_image(kind, mode):
    noise = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, (40, 60, 3)).astype(kind)
    completed = complete(Photo(noise), noise, Finish(mode)).pixels
    assert np.abs(completed.astype(int) - noise).max() <= (0 if kind == np.uint8 else 2)


@pytest.mark.parametrize("flat", [0, 255])
def test_a_flat_translation_becomes_the_mean_colour(flat):
    photo = Photo(smooth(np.uint8))
    completed = complete(photo, np.full((40, 60, 3), flat, np.uint8), Finish("statistics")).pixels
    mean = lab(photo.pixels / 255).mean((0, 1))
    np.testing.assert_allclose(lab(completed / 255).mean((0, 1)), mean, atol=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_scale_averages_areas(kind):
    pixels = smooth(kind, 40, 60)
    given = prepare(Photo(pixels), Finish(scale=0.5))
    assert given.dtype == kind
    np.testing.assert_allclose(given, pixels.reshape(20, 2, 30, 2, 3).mean((1, 3)), atol=1)
    assert prepare(Photo(pixels), Finish(scale=0.37)).shape == (15, 22, 3)
    assert prepare(Photo(pixels[:1, :1]), Finish(scale=0.1)).shape == (1, 1, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.25, 0.5, 0.77])
def test_a_scaled_translation_regains_detail(kind, scale):
    """Lines one pixel wide, through a "network" that halves the contrast: close to the full-size result."""
    pixels = smooth(kind, 60, 80)
    pixels[::7] //= 2
    pixels[:, ::9] //= 2
    finish, photo = Finish(scale=scale), Photo(pixels)

    def network(given):
        return given // 2 + np.iinfo(kind).max // 4

    small = network(prepare(photo, finish))
    completed = complete(photo, small, finish).pixels
    white, wanted = np.iinfo(kind).max, network(pixels).astype(float)
    enlarged = module.enlarged(module.in_floats(small), small.shape[:2], (60, 80))(slice(0, 60)) * white
    assert completed.shape == pixels.shape
    assert np.abs(completed - wanted).mean() < 0.5 * np.abs(enlarged - wanted).mean()


def test_the_height_of_bands_does_not_matter(monkeypatch):
    pixels, small = smooth(np.uint8, 61, 47), smooth(np.uint8, 23, 18)
    floats = module.in_floats(pixels), module.in_floats(small)
    give = module.carried_detail(*floats, pixels.shape[:2], small.shape[:2])
    complete = give(slice(0, 61))
    for height in (1, 5, 60):
        parts = [give(slice(start, min(start + height, 61))) for start in range(0, 61, height)]
        np.testing.assert_allclose(np.concatenate(parts), complete, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (2, 3)])
@pytest.mark.parametrize("scale", [0.1, 0.5, 1])
def test_tiny_images_are_finished(shape, scale):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    photo = Photo(pixels, np.full(shape, 9, np.uint8))
    for mode in ("none", "luma", "statistics"):
        finish = Finish(mode, 0.5, scale)
        assert complete(photo, prepare(photo, finish), finish).pixels.shape == pixels.shape


def test_the_photo_is_not_modified():
    photo = Photo(smooth(np.uint8), ring(np.uint8))
    before = photo.pixels.copy(), photo.alpha.copy()
    for mode, scale in itertools.product(("none", "luma", "statistics"), (1, 0.5)):
        finish = Finish(mode, 0.5, scale)
        given = prepare(photo, finish)
        translated = given.copy()
        complete(photo, translated, finish)
        np.testing.assert_array_equal(translated, given)
    np.testing.assert_array_equal(photo.pixels, before[0])
    np.testing.assert_array_equal(photo.alpha, before[1])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strength": -0.1}, "--strength: expected a number from 0 to 1, got -0.1"),
        ({"strength": 1.5}, "--strength: expected a number from 0 to 1, got 1.5"),
        ({"strength": float("nan")}, "--strength: expected a number from 0 to 1, got nan"),
        ({"scale": 0}, "--scale: expected a number above 0 and up to 1, got 0"),
        ({"scale": 2}, "--scale: expected a number above 0 and up to 1, got 2"),
        ({"scale": float("nan")}, "--scale: expected a number above 0 and up to 1, got nan"),
        ({"preserve_color": "hue"}, "--preserve-color: expected one of none, luma, statistics, got 'hue'"),
    ],
)
def test_invalid_values_are_refused_in_one_line(settings, says):
    with pytest.raises(SettingsError) as caught:
        Finish(**settings)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_restored_detail_beats_enlarging_on_real_images(test_data):
    """At half the size and back, without a translation."""
    files = sorted((test_data / "photo2hayao" / "testA").iterdir())[:5]
    finish = Finish(scale=0.5)
    for photo in map(read_photo, files):
        small = prepare(photo, finish)
        completed = complete(photo, small, finish).pixels
        enlarged = module.enlarged(module.in_floats(small), small.shape[:2], photo.pixels.shape[:2])
        lost = np.abs(enlarged(slice(0, len(photo.pixels))) * 255 - photo.pixels).mean()
        assert np.abs(completed.astype(int) - photo.pixels).mean() < 0.2 * lost
