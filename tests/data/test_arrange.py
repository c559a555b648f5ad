"""Finds the data set among the images of an archive."""

import logging
from pathlib import PurePosixPath

import pytest

from gan_nst.core.errors import DataError
from gan_nst.data.archives import arrange
from gan_nst.data.domains import DataSettings, locate


@pytest.fixture
def arranged(tmp_path, caplog):
    """Arranges images of these names: how many are in each folder, the files of the set by name, and what is logged."""

    def arranged(*names):
        names = [name for name in names if name]
        for name in names:
            (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "from" / name).write_text(name)
        with caplog.at_level(logging.INFO):
            counts = arrange(tmp_path / "from", tmp_path / "set", "pets.zip")
        files = (path for path in (tmp_path / "set").rglob("*") if path.is_file())
        files = {path.relative_to(tmp_path / "set").as_posix(): path.read_text() for path in files}
        return counts, files, caplog.messages

    return arranged


@pytest.mark.parametrize("top", ["", "set/", "a/b/c/"])
@pytest.mark.parametrize("layout", ["{0}{1}", "{0}/{1}", "{0}_{1}", "{0}/{2}"])
def test_known_layouts_at_any_depth(arranged, tmp_path, top, layout):
    names = {
        (split, domain): f"{top}{layout.format(split, domain, domain.lower())}/deep/1.png"
        for split in ("train", "val", "test")
        for domain in "AB"
    }
    counts, files, logged = arranged(*names.values(), f"{top}docs/figure.png")
    assert files == {f"{split}{domain}/deep/1.png": name for (split, domain), name in names.items()}
    assert counts == dict.fromkeys(["trainA", "trainB", "valA", "valB", "testA", "testB"], 1)
    assert logged == ["pets.zip: 1 image in other folders skipped"]
    assert set(locate(DataSettings(root=tmp_path, domain="set")).held_out) == set()


def test_the_more_complete_of_two_layouts_wins(arranged):
    """`maps` has both the pairs, joined in train, test and val, and the domains."""
    pairs = [f"maps/{split}/{number}.jpg" for split in ("train", "val", "test") for number in range(2)]
    _, files, logged = arranged(*pairs, "maps/trainA/1.jpg", "maps/trainB/1.jpg", "maps/old/trainA/1.jpg")
    assert files == {"trainA/1.jpg": "maps/trainA/1.jpg", "trainB/1.jpg": "maps/trainB/1.jpg"}
    assert logged == ["pets.zip: 7 images in other folders skipped"]


@pytest.mark.parametrize("names", [("dogs/1.png", "cats/1.png"), ("x/dogs/1.png", "x/cats/deep/2.png")])
def test_two_plain_folders_by_name(arranged, names):
    _, files, logged = arranged(*names)
    assert set(files) == {"trainB/1.png", next(f"trainA/{n.split('cats/')[1]}" for n in names if "cats" in n)}
    top = "x/" if "x/" in names[0] else ""
    assert logged == [
        f"{top}cats became trainA and {top}dogs became trainB, by name; swap them if you want the reverse"
    ]


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("1.png",),
        ("one/1.png",),
        ("one/1.png", "two/1.png", "three/1.png"),
        ("one/1.png", "two/1.png", "loose.png"),
        ("train/1.png", "test/1.png"),
        ("Training/1.png", "validation/1.png"),
        ("cats/train/1.png", "cats/test/1.png", "dogs/1.png"),
        ("cats/train/1.png", "cats/test/1.png", "dogs/train/1.png", "dogs/test/1.png"),
        ("cats/x/Validation/1.png", "dogs/1.png"),
    ],
)
def test_without_a_data_set_the_folders_are_reported(arranged, tmp_path, names):
    """Test images must not be trained on."""
    with pytest.raises(DataError) as raised:
        arranged(*names)
    for name in names:
        assert str(PurePosixPath(name).parent) in str(raised.value)
    assert names or "no images" in str(raised.value)
    assert not (tmp_path / "set").exists()


def test_several_data_sets_are_refused(arranged):
    with pytest.raises(
        DataError, match=r"pets\.zip: 2 data sets found \(x/trainA, y/trainA\); unpack it yourself"
    ):
        arranged("x/trainA/1.png", "x/trainB/1.png", "y/trainA/1.png", "y/trainB/1.png")


def test_many_folders_are_abbreviated(arranged):
    with pytest.raises(DataError, match=r"15 \(1 image\) and 92 more; unpack"):
        arranged(*(f"{number}/1.png" for number in range(100)))
