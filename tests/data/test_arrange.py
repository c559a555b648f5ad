"""Finds the data set among the images of an archive."""

from pathlib import PurePosixPath

import pytest

from gan_nst.core.errors import DataError
from gan_nst.data.archives import arrange
from gan_nst.data.domains import DataSettings, locate


@pytest.fixture
def arranged(tmp_path):
    """Arranges images of these names: the result, and the files of the set by name."""

    def arranged(*names):
        names = [name for name in names if name]
        for name in names:
            (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "from" / name).write_text(name)
        found = arrange(tmp_path / "from", [PurePosixPath(name) for name in names], tmp_path / "set")
        files = (path for path in (tmp_path / "set").rglob("*") if path.is_file())
        return found, {path.relative_to(tmp_path / "set").as_posix(): path.read_text() for path in files}

    return arranged


@pytest.mark.parametrize("top", ["", "set/", "a/b/c/"])
@pytest.mark.parametrize("layout", ["{0}{1}", "{0}/{1}", "{0}_{1}", "{0}/{2}"])
def test_known_layouts_at_any_depth(arranged, tmp_path, top, layout):
    names = {
        (split, domain): f"{top}{layout.format(split, domain, domain.lower())}/deep/1.png"
        for split in ("train", "val", "test")
        for domain in "AB"
    }
    found, files = arranged(*names.values(), f"{top}docs/figure.png")
    assert files == {f"{split}{domain}/deep/1.png": name for (split, domain), name in names.items()}
    assert found.counts == dict.fromkeys(["trainA", "trainB", "valA", "valB", "testA", "testB"], 1)
    assert (found.skipped, found.guessed) == (1, ())
    assert set(locate(DataSettings(root=tmp_path, domain="set")).held_out) == set()


def test_the_more_complete_of_two_layouts_wins(arranged):
    """`maps` has both the pairs, joined in train, test and val, and the domains."""
    pairs = [f"maps/{split}/{number}.jpg" for split in ("train", "val", "test") for number in range(2)]
    found, files = arranged(*pairs, "maps/trainA/1.jpg", "maps/trainB/1.jpg", "maps/old/trainA/1.jpg")
    assert files == {"trainA/1.jpg": "maps/trainA/1.jpg", "trainB/1.jpg": "maps/trainB/1.jpg"}
    assert found.skipped == 7


@pytest.mark.parametrize("names", [("dogs/1.png", "cats/1.png"), ("x/dogs/1.png", "x/cats/deep/2.png")])
def test_two_plain_folders_by_name(arranged, names):
    found, files = arranged(*names)
    assert set(files) == {"trainB/1.png", next(f"trainA/{n.split('cats/')[1]}" for n in names if "cats" in n)}
    assert [guess.split("/")[-1] for guess in found.guessed] == ["cats", "dogs"]


@pytest.mark.parametrize("top", ["", "x/"])
def test_splits_within_two_plain_folders(arranged, top):
    """Test images must not be trained on."""
    names = [
        f"{top}{domain}/{split}/{split}.png"
        for domain in ("photos", "cartoons")
        for split in ("Training", "test", "validation")
    ]
    found, files = arranged(*names, f"{top}photos/test/deep/2.png")
    assert files == {
        "trainA/Training.png": f"{top}cartoons/Training/Training.png",
        "trainB/Training.png": f"{top}photos/Training/Training.png",
        "valA/validation.png": f"{top}cartoons/validation/validation.png",
        "valB/validation.png": f"{top}photos/validation/validation.png",
        "testA/test.png": f"{top}cartoons/test/test.png",
        "testB/test.png": f"{top}photos/test/test.png",
        "testB/deep/2.png": f"{top}photos/test/deep/2.png",
    }
    assert found.counts == dict.fromkeys(["trainA", "trainB", "valA", "valB", "testA"], 1) | {"testB": 2}
    assert found.guessed == (f"{top}cartoons/Training", f"{top}photos/Training")


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
        ("cats/train/1.png", "cats/test/1.png", "dogs/test/1.png"),
        ("cats/train/1.png", "cats/more/1.png", "dogs/train/1.png"),
        ("cats/train/1.png", "cats/Train/1.png", "dogs/train/1.png"),
        ("cats/x/train/1.png", "cats/x/test/1.png", "dogs/x/train/1.png"),
        ("cats/train/test/1.png", "dogs/train/1.png"),
    ],
)
def test_without_a_data_set_the_folders_are_reported(arranged, tmp_path, names):
    with pytest.raises(DataError) as raised:
        arranged(*names)
    for name in names:
        assert str(PurePosixPath(name).parent) in str(raised.value)
    assert names or "no images" in str(raised.value)
    assert not (tmp_path / "set").exists()


def test_several_data_sets_are_refused(arranged):
    with pytest.raises(DataError, match=r"2 data sets found \(x/trainA, y/trainA\)"):
        arranged("x/trainA/1.png", "x/trainB/1.png", "y/trainA/1.png", "y/trainB/1.png")


def test_many_folders_are_abbreviated(arranged):
    with pytest.raises(DataError, match=r"\.\.\.$"):
        arranged(*(f"{number}/1.png" for number in range(100)))
