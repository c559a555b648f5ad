"""Augmentation: random where it should be, the same for the same seed, and extended by albumentations' names."""

import numpy as np
import pytest
import torch
from helpers_data import coordinates, noise, tiny_settings

from gan_nst.core.errors import SettingsError
from gan_nst.data.batches import Augmentation, mix

IMAGE = coordinates(40, 50)
DRAWS = 3000


def augmentation(**options):
    return Augmentation(tiny_settings(load_size=40, crop_size=32, **options))


def place(crop):
    """Top, left, and whether it is flipped, read from a crop of IMAGE."""
    columns = crop[0, :, 1].astype(int)
    flipped = columns[0] > columns[-1]
    return int(crop[0, 0, 0]), int(columns.min()), bool(flipped)


@pytest.fixture(scope="module")
def places():
    augment = augmentation()
    return np.array([place(augment(IMAGE, mix(0, "real_a", "augment", n))) for n in range(DRAWS)]).T


def test_a_crop_is_a_part_of_the_image_as_it_is():
    augment = augmentation()
    for seed in range(40):
        crop = augment(IMAGE, seed)
        top, left, flipped = place(crop)
        expected = IMAGE[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(crop, expected[:, ::-1] if flipped else expected)


def even(values, count):
    """Returns whether values are uniform on range(count), within 5 deviations of each share."""
    shares = np.bincount(values, minlength=count)
    assert len(shares) == count
    assert np.abs(shares - len(values) / count).max() < 5 * (len(values) / count) ** 0.5


def test_every_place_is_equally_likely(places):
    even(places[0], 40 - 32 + 1)
    even(places[1], 50 - 32 + 1)


def test_half_are_flipped(places):
    assert abs(places[2].mean() - 0.5) < 5 * 0.5 / DRAWS**0.5


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 2)])
def test_top_left_and_flip_do_not_depend_on_each_other(places, one, other):
    """albumentations seeds all its transforms equally; the flip would then depend on the crop's place."""
    assert abs(np.corrcoef(places[one], places[other])[0, 1]) < 5 / DRAWS**0.5
    high_one, high_other = (
        places[k] > np.median(places[k]) if k < 2 else places[k] > 0 for k in (one, other)
    )
    together = (high_one & high_other).mean()
    assert abs(together - high_one.mean() * high_other.mean()) < 5 * 0.5 / DRAWS**0.5


@pytest.mark.parametrize(("flip", "share"), [(0.0, 0), (1.0, 1)])
def test_the_flips_chance_is_the_settings(flip, share):
    augment = augmentation(flip=flip)
    assert np.mean([place(augment(IMAGE, seed))[2] for seed in range(50)]) == share


EXTRA = [
    {"name": "ColorJitter", "p": 1.0},
    {"name": "Rotate", "limit": 20, "p": 0.5},
    {"name": "GaussNoise", "p": 1.0},
]


@pytest.mark.parametrize("extra", [[], EXTRA])
def test_a_crop_is_a_function_of_image_and_seed(extra):
    one, other = augmentation(augmentations=extra), augmentation(augmentations=extra)
    image = noise(40, 50)
    for seed in (0, 5, 2**63 - 1):
        first = one(image, seed)
        for draw in range(3):
            one(image, draw)
        np.testing.assert_array_equal(one(image, seed), first)
        np.testing.assert_array_equal(other(image, seed), first)
    crops = {one(image, seed).tobytes() for seed in range(20)}
    assert len(crops) > 15


def test_global_random_states_neither_matter_nor_change():
    import random

    augment = augmentation(augmentations=EXTRA)
    image = noise(40, 50)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = augment(image, 3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    random.seed(2)
    np.random.seed(2)
    torch.manual_seed(2)
    np.testing.assert_array_equal(augment(image, 3), first)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    augment(image, 4)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_extra_augmentations_follow_the_crop_by_their_own_names():
    plain = augmentation()
    inverted = augmentation(augmentations=[{"name": "InvertImg", "p": 1.0}])
    for seed in range(5):
        top, left, flipped = place(255 - inverted(IMAGE, seed)[:, :, [0, 1, 2]])
        expected = IMAGE[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(
            inverted(IMAGE, seed), 255 - (expected[:, ::-1] if flipped else expected)
        )
    assert {place(plain(IMAGE, seed))[2] for seed in range(20)} == {False, True}


def test_the_image_itself_is_not_modified():
    image = noise(40, 50)
    before = image.copy()
    augment = augmentation(augmentations=EXTRA)
    for seed in range(10):
        augment(image, seed)[:] = 0
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "Blurr"}, r"data\.augmentations\[1\]: 'Blurr' is not an albumentations transform"),
        ({"name": "Compose"}, "'Compose' is not an albumentations transform"),
        ({"name": "cv2"}, "'cv2' is not an albumentations transform"),
        ({"p": 0.5}, "None is not an albumentations transform"),
        ({"name": ["Blur"]}, "is not an albumentations transform"),
        ({"name": "Blur", "sigma": 3}, r"data\.augmentations\[1\]: Blur: .*sigma"),
        ({"name": "Blur", "p": 2}, r"data\.augmentations\[1\]: Blur: "),
        ({"name": "Blur", "blur_limit": "wide"}, r"data\.augmentations\[1\]: Blur: "),
        ({"name": "RandomCrop"}, r"data\.augmentations\[1\]: RandomCrop: "),
    ],
)
def test_an_unknown_augmentation_is_reported_in_one_line(entry, message):
    with pytest.raises(SettingsError, match=message) as caught:
        augmentation(augmentations=[{"name": "HorizontalFlip"}, entry])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", [{"name": "RandomCrop", "height": 8, "width": 8}, {"name": "ToFloat"}])
def test_an_augmentation_that_changes_the_kind_of_image_is_an_error(entry):
    augment = augmentation(augmentations=[entry])
    with pytest.raises(SettingsError, match=r"data\.augmentations: they turn a crop of 32 pixels into"):
        augment(IMAGE, 0)


@pytest.mark.parametrize(
    "entry",
    [{"name": "RandomCrop", "height": 64, "width": 64}, {"name": "TextImage", "font_path": "none.ttf"}],
)
def test_a_failing_augmentation_is_reported_in_one_line(entry):
    with pytest.raises(SettingsError, match=r"data\.augmentations") as caught:
        augmentation(augmentations=[{**entry, "p": 1.0}])(IMAGE, 0)
    assert "\n" not in str(caught.value)
