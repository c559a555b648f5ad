"""The demo world: equal for equal seeds, paired only in the held-out splits, and complete or absent."""

import errno
import os
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest

from gan_nst.core.errors import DataError
from gan_nst.data import demo
from gan_nst.data.demo import draw_cartoon, draw_photograph, make_demo, make_scene
from gan_nst.images.files import find_images, read_image

SIZE = 48


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in find_images(folder)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "world"
    make_demo(folder, size=SIZE, count=8, held_out=8)
    return folder


def flat(image):
    """Where a pixel's 3x3 neighbours all have its colour."""
    window = np.ones((3, 3), np.uint8)
    return (cv2.dilate(image, window) == cv2.erode(image, window)).all(2)


def explained(photograph, cartoon):
    """The share of a photograph's variance between the areas that a cartoon paints in one colour each."""
    inside = flat(cartoon)
    _, area = np.unique(cartoon[inside].astype(int) @ [65536, 256, 1], return_inverse=True)
    values = cv2.blur(photograph, (3, 3))[inside].astype(float)
    means = np.stack([np.bincount(area, values[:, k]) for k in range(3)], 1) / np.bincount(area)[:, None]
    return 1 - np.square(values - means[area]).sum() / np.square(values - values.mean(0)).sum()


def likeness(folder, split):
    """How much every cartoon (column) of a split explains of every photograph (row)."""
    a, b = ([read_image(path) for path in find_images(folder / f"{split}{d}")] for d in "AB")
    return np.array([[explained(x, y) for y in b] for x in a])


def matched(found):
    """How much more similar the pairs at equal positions are than all others."""
    return found.diagonal().mean() - found[~np.eye(len(found), dtype=bool)].mean()


def test_it_has_the_layout_that_training_looks_for(world):
    counts = {folder.name: len(find_images(folder)) for folder in world.iterdir()}
    assert counts == {f"{split}{domain}": 8 for split in ("train", "val", "test") for domain in "AB"}
    assert {read_image(path).shape for path in find_images(world)} == {(SIZE, SIZE, 3)}


def test_the_same_seed_draws_the_same_files_and_another_draws_others(tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        make_demo(tmp_path / name, size=24, count=2, seed=seed, held_out=1)
    one, same, other = (contents(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())


def test_more_images_begin_with_the_same_ones(tmp_path):
    make_demo(tmp_path / "few", size=24, count=1, held_out=1)
    make_demo(tmp_path / "more", size=24, count=2, held_out=2)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert few.items() < more.items()


def test_no_image_appears_twice(world):
    files = contents(world)
    assert len(set(files.values())) == len(files) == 48


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_splits_hold_both_renderings_of_a_scene_under_one_name(world, split):
    a, b = ([path.name for path in find_images(world / f"{split}{d}")] for d in "AB")
    assert a == b
    found = likeness(world, split)
    assert matched(found) > 0.1
    assert (found.argmax(1) == np.arange(8)).sum() >= 7


def test_the_training_domains_show_different_scenes(world):
    a, b = ({path.stem for path in find_images(world / f"train{domain}")} for domain in "AB")
    assert not a & b
    found = likeness(world, "train")
    assert matched(found) < 0.05
    assert (found.argmax(1) == np.arange(8)).sum() <= 4


def test_the_splits_show_different_scenes(world):
    """No cartoon equals another up to noise: most flat areas differ."""
    cartoons = [
        read_image(p).astype(int) for s in ("train", "val", "test") for p in find_images(world / f"{s}B")
    ]
    for number, one in enumerate(cartoons):
        for other in cartoons[:number]:
            assert (np.abs(one - other).max(2) > 8).mean() > 0.3


@pytest.fixture(scope="module")
def renderings():
    scenes = [make_scene(0, "test", index) for index in range(4)]
    return [
        (draw_photograph(scene, 96, index), draw_cartoon(scene, 96)) for index, scene in enumerate(scenes)
    ]


def test_cartoons_are_flat_with_dark_outlines(renderings):
    for photograph, cartoon in renderings:
        assert flat(cartoon).mean() > 0.6
        inside = cartoon[flat(cartoon)]
        assert len(np.unique(inside, axis=0)) < 30
        dark = cartoon.max(2) < 45
        assert 0.005 < dark.mean() < 0.2
        assert (photograph.max(2) < 45).mean() < dark.mean() / 4


def test_photographs_have_texture_where_cartoons_are_flat(renderings):
    for photograph, cartoon in renderings:
        blurred = cv2.blur(photograph.astype(np.float32), (3, 3))
        detail = np.abs(photograph - blurred).mean(2)
        assert detail[flat(cartoon)].mean() > 2
        assert not flat(photograph).any()
        assert len(np.unique(photograph.reshape(-1, 3), axis=0)) > 10 * len(
            np.unique(cartoon[flat(cartoon)], axis=0)
        )


def test_cartoons_are_more_colourful(renderings):
    def saturation(image):
        return np.ptp(image.astype(int), axis=2).mean()

    assert all(saturation(cartoon) > 1.2 * saturation(photograph) for photograph, cartoon in renderings)


def test_the_light_of_a_photograph_is_a_function_of_its_seed():
    scene = make_scene(1, "test", 0)
    one, same, other = (draw_photograph(scene, 32, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(draw_cartoon(scene, 32), draw_cartoon(make_scene(1, "test", 0), 32))


@pytest.mark.parametrize("existing", [False, True])
def test_the_folder_appears_complete_or_not_at_all(tmp_path, monkeypatch, existing):
    folder = tmp_path / "world"
    if existing:
        folder.mkdir()
    drawn = []

    def fails(scene, size):
        drawn.append(1)
        assert not any(folder.glob("*"))  # nothing is there before all is
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(demo, "draw_cartoon", fails)
    with pytest.raises(KeyboardInterrupt):
        make_demo(folder, size=16, count=2, held_out=1)
    assert len(drawn) == 3
    assert os.listdir(tmp_path) == (["world"] if existing else [])
    assert not any(folder.glob("*"))
    monkeypatch.undo()
    make_demo(folder, size=16, count=2, held_out=1)
    assert len(find_images(folder)) == 8
    assert os.listdir(tmp_path) == ["world"]


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        DataError,
        match=r"world: could not be written \(No space left on device\); free space on that disk \(old runs or",
    ):
        make_demo(tmp_path / "world", size=16, count=1, held_out=1)
    assert os.listdir(tmp_path) == []


def test_a_folder_with_something_in_it_is_refused_untouched(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(DataError, match="not empty"):
        make_demo(tmp_path, size=16, count=1, held_out=1)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    """Its shell would be left in a deleted folder."""
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    make_demo(Path("."), size=16, count=1, held_out=1)
    assert tmp_path.stat().st_ino == before
    assert len(find_images(tmp_path)) == 6


def test_hidden_files_do_not_fill_a_folder(tmp_path):
    (tmp_path / "world").mkdir()
    for name in (".gitkeep", ".DS_Store"):
        (tmp_path / "world" / name).write_text("kept")
    make_demo(tmp_path / "world", size=16, count=1, held_out=1)
    assert len(find_images(tmp_path / "world")) == 6
    assert all((tmp_path / "world" / name).read_text() == "kept" for name in (".gitkeep", ".DS_Store"))
    assert os.listdir(tmp_path) == ["world"]


@pytest.mark.parametrize("name", ["file", "file/world"])
def test_a_folder_that_cannot_be_created_is_an_error(tmp_path, name):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError, match=r"could not be written \(.+\)"):
        make_demo(tmp_path / name, size=16, count=1, held_out=1)
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_to_a_folder_is_followed(tmp_path):
    """To a larger disk, for example; the folder may be empty or not there yet."""
    for name in ("there", "new"):
        (tmp_path / "far").mkdir(exist_ok=True)
        (tmp_path / f"to {name}").symlink_to(tmp_path / "far" / name)
    (tmp_path / "far" / "there").mkdir()
    for name in ("there", "new"):
        make_demo(tmp_path / f"to {name}", size=16, count=1, held_out=1)
        assert (tmp_path / f"to {name}").is_symlink()
        assert len(find_images(tmp_path / "far" / name)) == 6
    assert sorted(os.listdir(tmp_path)) == ["far", "to new", "to there"]
    assert sorted(os.listdir(tmp_path / "far")) == ["new", "there"]


def test_other_users_may_read_it(tmp_path):
    make_demo(tmp_path / "deep" / "world", size=16, count=1, held_out=1)
    assert (tmp_path / "deep" / "world").stat().st_mode & 0o055 == 0o055


def test_of_two_at_once_one_draws(tmp_path):
    outcomes = []

    def draw():
        try:
            make_demo(tmp_path / "world", size=16, count=3, held_out=1)
            outcomes.append("drawn")
        except DataError as error:
            outcomes.append(str(error))

    threads = [Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("drawn") == 1
    assert sum("not empty" in line for line in outcomes) == 2
    assert len(find_images(tmp_path / "world")) == 10
    assert os.listdir(tmp_path) == ["world"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".world.part" / "trainA").mkdir(parents=True)
    (tmp_path / ".world.part" / "trainA" / "photo-99999.png").write_text("half")
    make_demo(tmp_path / "world", size=16, count=1, held_out=1)
    assert len(find_images(tmp_path / "world")) == 6
    assert os.listdir(tmp_path) == ["world"]
