"""Views of images: cached in files of their own, kept up to date, and cropped and flipped like their images."""

import itertools
import os

import numpy as np
import pytest
import torch
from helpers_data import fill, folder_of, noise, tiny_settings

from gan_nst.core.errors import DataError
from gan_nst.data import cache
from gan_nst.data.batches import Batches, Samples
from gan_nst.data.cache import VIEWS
from gan_nst.data.demo import draw_cartoon, make_scene
from gan_nst.data.domains import Stream
from gan_nst.data.smoothing import smooth_edges
from gan_nst.images.arrays import resize_image
from gan_nst.images.files import read_image, write_image
from gan_nst.methods.cartoongan import CartoonGan

# Newer Pythons warn about forking a process with threads; torch's loader forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def files(tmp_path):
    """Cartoons and one image of noise, which has edges everywhere."""
    paths = [tmp_path / "images" / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        write_image(draw_cartoon(make_scene(0, "train-b", number), 40), path)
    return paths + fill(tmp_path / "images", 1, (40, 50), first=4)


@pytest.fixture
def settings(tmp_path):
    return tiny_settings(tmp_path, load_size=32, crop_size=24)


def open_view(files, settings, view="smoothed"):
    """The view of these files' images, and the files that are left."""
    images, left = cache.open_images(folder_of(files), settings, "b", view)
    return images, list(left.files)


def assert_smoothed(images, files, settings):
    assert len(images) == len(files)
    for index, file in enumerate(files):
        plain = resize_image(read_image(file), settings.load_size, settings.resize)
        np.testing.assert_array_equal(images[index], smooth_edges(plain))
        assert not np.array_equal(images[index], plain)


def data_files(tmp_path):
    return sorted((tmp_path / ".cache").glob("*.bin"))


def test_a_view_has_its_own_cache(tmp_path, files, settings):
    plain, _ = open_view(files, settings, "image")
    (first,) = data_files(tmp_path)
    smoothed, good = open_view(files, settings)
    assert good == files
    assert smoothed.cache is not None
    assert_smoothed(smoothed, files, settings)
    assert len(data_files(tmp_path)) == 2
    assert first in data_files(tmp_path)
    for index in range(len(files)):
        np.testing.assert_array_equal(smoothed[index], smooth_edges(plain[index]))
    reopened, _ = open_view(files, settings, "image")
    assert all(np.array_equal(reopened[index], plain[index]) for index in range(len(files)))


def test_images_themselves_are_the_view_that_is_opened_without_asking(files, settings):
    default, _ = cache.open_images(folder_of(files), settings, "b")
    named, _ = open_view(files, settings, "image")
    assert all(np.array_equal(default[index], named[index]) for index in range(len(files)))
    assert set(VIEWS) == {"image", "smoothed"}


def test_a_view_is_made_once(files, settings, monkeypatch):
    open_view(files, settings)
    monkeypatch.setattr(cache, "read_image", lambda path: pytest.fail("decoded again"))
    assert len(open_view(files, settings)[0]) == len(files)


def test_a_view_follows_its_files(tmp_path, files, settings):
    open_view(files, settings)
    before = files[2].stat().st_mtime_ns
    write_image(draw_cartoon(make_scene(0, "train-b", 9), 44), files[2])
    os.utime(files[2], ns=(before, before + 1_000_000))
    more = tmp_path / "images" / "9.png"
    write_image(draw_cartoon(make_scene(0, "train-b", 10), 36), more)
    now = [*files[1:], more]
    assert_smoothed(open_view(now, settings)[0], now, settings)


def test_without_a_cache_a_view_is_the_same(tmp_path, files, settings):
    never = settings.model_copy(update={"cache": "never"})
    images, good = open_view(files, never)
    assert good == files
    assert images.cache is None
    assert_smoothed(images, files, settings)
    assert not data_files(tmp_path)


@pytest.mark.parametrize("how", ["auto", "never"])
def test_views_skip_the_same_broken_files(files, settings, how):
    files[1].write_bytes(b"no image")
    write_image(noise(20, 60), files[3])  # smaller than the crop
    settings = settings.model_copy(update={"cache": how})
    messages = []
    for view in VIEWS:
        with pytest.raises(DataError) as raised:
            open_view(files, settings, view)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("b: 2 of 5 images cannot be used")
    lenient = settings.model_copy(update={"skip_broken": True})
    (plain, kept), (smoothed, also) = (open_view(files, lenient, view) for view in VIEWS)
    assert kept == also == [files[0], files[2], files[4]]
    assert_smoothed(smoothed, kept, settings)
    for index in range(3):
        np.testing.assert_array_equal(smoothed[index], smooth_edges(plain[index]))


def drawn(files, settings, streams=CartoonGan.streams, workers=0, count=12, batch_size=2):
    """The batches of the first steps, through the cache."""
    images = {("a", "image"): [noise(32, 40, n) for n in range(3)]}
    images |= {("b", view): open_view(files, settings, view)[0] for view in VIEWS}
    batches = Batches(Samples(images, streams, settings, seed=5), batch_size, workers=workers)(0)
    taken = [step[0] for step in itertools.islice(batches, count)]
    batches.close()
    return taken


def to_image(x):
    return ((x + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()


def places(files, settings, crop):
    """All positions of a crop: (file, row, column, flipped)."""
    side, found = settings.crop_size, []
    for number, file in enumerate(files):
        image = resize_image(read_image(file), settings.load_size, settings.resize)
        for row, column in np.ndindex(image.shape[0] - side + 1, image.shape[1] - side + 1):
            part = image[row : row + side, column : column + side]
            found += [(number, row, column, False)] if np.array_equal(part, crop) else []
            found += [(number, row, column, True)] if np.array_equal(part[:, ::-1], crop) else []
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_is_a_crop_of_a_cartoon_and_of_the_smoothed_cartoon(files, settings, workers):
    seen = set()
    for batch in drawn(files, settings, workers=workers):
        assert batch.keys() == {"real_a", "real_b", "b_smoothed"}
        for cartoon, smoothed in zip(batch["real_b"], batch["b_smoothed"], strict=True):
            ((number, row, column, flipped),) = places(files, settings, to_image(cartoon))
            image = smooth_edges(resize_image(read_image(files[number]), 32, settings.resize))
            part = image[row : row + 24, column : column + 24]
            np.testing.assert_array_equal(to_image(smoothed), part[:, ::-1] if flipped else part)
            seen.add((number, row, column, flipped))
    assert len(seen) > 15
    assert {flipped for *_, flipped in seen} == {False, True}
    assert {number for number, *_ in seen} == set(range(5))


def test_without_tied_streams_they_would_differ(files, settings):
    """Negative control."""
    streams = {**CartoonGan.streams, "b_smoothed": Stream("b", "smoothed")}
    tied, untied = drawn(files, settings), drawn(files, settings, streams)
    assert all(torch.equal(x["real_b"], y["real_b"]) for x, y in zip(tied, untied, strict=True))
    assert not any(torch.equal(x["b_smoothed"], y["b_smoothed"]) for x, y in zip(tied, untied, strict=True))
