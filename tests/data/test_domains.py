"""Data sets in the layouts people have, and the splits held out from them."""

import logging

import numpy as np
import pytest

from gan_nst.core.errors import DataError
from gan_nst.data.domains import DataSet, DataSettings, Folder, fingerprint, has_images, locate
from gan_nst.images.files import write_image


def fill(folder, *names):
    for name in names:
        write_image(np.zeros((2, 2, 3), np.uint8), folder / name)
    return folder


def numbered(count, suffix=".png"):
    return [f"image-{number:04d}{suffix}" for number in range(count)]


def settings(root, **options):
    return DataSettings(root=root, domain="x", **options)


def names(data_set, split):
    return {domain: folder.names for domain, folder in getattr(data_set, split).items()}


LAYOUTS = {
    "trainA": lambda split, domain: f"{split}{domain.upper()}",
    "train/A": lambda split, domain: f"{split}/{domain.upper()}",
    "train/a": lambda split, domain: f"{split}/{domain}",
    "train_A": lambda split, domain: f"{split}_{domain.upper()}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_found(tmp_path, layout):
    for split in ("train", "val", "test"):
        for domain in "ab":
            fill(tmp_path / "x" / LAYOUTS[layout](split, domain), f"{split}-{domain}.png", f"z/{split}.jpg")
    found = locate(settings(tmp_path))
    for split, attribute in (("train", "training"), ("val", "validation"), ("test", "test")):
        assert names(found, attribute) == {d: [f"{split}-{d}", f"z/{split}"] for d in "ab"}
    assert has_images(settings(tmp_path))


def test_two_folders_anywhere_are_enough(tmp_path):
    paths = {key: fill(tmp_path / "outside" / key, f"{key}.png") for key in ("a", "b", "test_a", "test_b")}
    found = locate(settings(tmp_path, held_out=0, **paths))
    assert names(found, "training") == {"a": ["a"], "b": ["b"]}
    assert names(found, "test") == {"a": ["test_a"], "b": ["test_b"]}
    assert names(found, "validation") == {"a": [], "b": []}


def test_given_folders_take_precedence_over_the_data_sets_own(tmp_path):
    fill(tmp_path / "x" / "trainA", "own.png")
    fill(tmp_path / "x" / "testA", "own.png")
    a, b = fill(tmp_path / "a", "given.png"), fill(tmp_path / "b", "given.png")
    found = locate(settings(tmp_path, a=a, b=b, held_out=0))
    assert names(found, "training") == {"a": ["given"], "b": ["given"]}
    assert names(found, "test") == {"a": [], "b": []}


@pytest.fixture
def unsplit(tmp_path):
    """Only training folders: 200 images of a, 150 of b."""
    fill(tmp_path / "x" / "trainA", *numbered(200))
    fill(tmp_path / "x" / "trainB", *numbered(150, ".jpg"))
    return tmp_path


def test_missing_splits_are_held_out_without_overlap(unsplit):
    found = locate(settings(unsplit, held_out=0.2))
    for domain, count in (("a", 200), ("b", 150)):
        parts = [set(names(found, split)[domain]) for split in ("training", "validation", "test")]
        assert len(set.union(*parts)) == sum(map(len, parts)) == count
        for part in parts[1:]:  # 5 deviations of a binomial number
            assert abs(len(part) - 0.2 * count) < 5 * (count * 0.2 * 0.8) ** 0.5 + 0.04 * count


def test_adding_images_moves_none_to_another_split(unsplit):
    before = locate(settings(unsplit, held_out=0.2))
    fill(unsplit / "x" / "trainA", *(f"new-{number}.png" for number in range(100)), "aaa.png", "zzz.png")
    after = locate(settings(unsplit, held_out=0.2))
    for split in ("training", "validation", "test"):
        old, new = set(names(before, split)["a"]), set(names(after, split)["a"])
        assert old < new
        assert all(name.startswith(("new-", "aaa", "zzz")) for name in new - old)


def test_the_split_depends_on_names_alone(unsplit, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    fill(outside / "p", *numbered(200))
    fill(outside / "q", *numbered(150, ".webp"))
    one = locate(settings(unsplit, held_out=0.2))
    other = locate(settings(outside, a=outside / "p", b=outside / "q", held_out=0.2))
    for split in ("training", "validation", "test"):
        assert names(one, split) == names(other, split)


def test_a_larger_share_holds_out_more_of_the_same(unsplit):
    less, more = (set(names(locate(settings(unsplit, held_out=h)), "test")["a"]) for h in (0.1, 0.3))
    assert less < more


def test_only_missing_splits_are_held_out(unsplit):
    fill(unsplit / "x" / "testA", "t.png")
    found = locate(settings(unsplit, held_out=0.2))
    assert names(found, "test")["a"] == ["t"]
    assert len(names(found, "test")["b"]) > 10
    assert len(names(found, "validation")["a"]) > 10
    assert len(names(found, "training")["a"]) + len(names(found, "validation")["a"]) == 200


def test_holding_out_is_reported(unsplit, caplog):
    with caplog.at_level(logging.INFO, "gan_nst"):
        found = locate(settings(unsplit, held_out=0.2))
    count = len(names(found, "test")["a"])
    assert (
        f"{unsplit / 'x' / 'trainA'}: no test split found; holding out {count} of 200 images"
        in caplog.messages
    )
    assert sum("no validation split" in message for message in caplog.messages) == 2
    caplog.clear()
    with caplog.at_level(logging.INFO, "gan_nst"):
        found = locate(settings(unsplit, held_out=0))
    assert caplog.messages == []
    assert names(found, "test") == {"a": [], "b": []}


@pytest.mark.parametrize("number", range(30))
def test_a_domain_of_one_image_keeps_it_for_training(tmp_path, number):
    a, b = fill(tmp_path / "a", f"{number}.png"), fill(tmp_path / "b", "b.png")
    found = locate(settings(tmp_path, a=a, b=b, held_out=0.49))
    assert names(found, "training") == {"a": [str(number)], "b": ["b"]}


def test_the_error_for_missing_data_says_what_to_do(tmp_path):
    with pytest.raises(
        DataError, match=r"/x: no such folder; put images into .*trainA and .*trainB, or give data\.a"
    ):
        locate(settings(tmp_path))
    fill(tmp_path / "x" / "trainA", "a.png")
    with pytest.raises(DataError, match=r"/x: no training images of domain b; put images into"):
        locate(settings(tmp_path))
    (tmp_path / "x" / "trainB").mkdir()
    (tmp_path / "x" / "trainB" / "notes.txt").write_text("none here")
    with pytest.raises(DataError, match=r"trainB: no images \(looked for \.png \.jpg") as caught:
        locate(settings(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["a", "b", "test_a", "test_b"])
def test_the_error_for_a_missing_given_folder_names_its_setting(tmp_path, missing):
    given = {key: fill(tmp_path / key, "x.png") for key in ("a", "b", "test_a", "test_b")}
    given[missing] = tmp_path / "nowhere"
    with pytest.raises(DataError, match=rf"nowhere: no such folder \(data\.{missing}\)"):
        locate(settings(tmp_path, **given))


def test_an_empty_given_folder_is_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"/a: no images"):
        locate(settings(tmp_path, a=tmp_path / "a", b=fill(tmp_path / "b", "b.png")))


def test_a_folder_without_images_has_none(tmp_path):
    assert not has_images(settings(tmp_path))
    (tmp_path / "x" / "trainA").mkdir(parents=True)
    assert not has_images(settings(tmp_path))


def test_test_images_of_the_same_name_are_pairs(tmp_path):
    for domain in "AB":
        fill(tmp_path / "x" / f"train{domain}", "t.png")
    fill(tmp_path / "x" / "testA", "1.png", "d/2.png")
    fill(tmp_path / "x" / "testB", "1.jpg", "d/2.png")
    test = tmp_path / "x"
    assert locate(settings(tmp_path)).pairs("test") == [
        (test / "testA" / "1.png", test / "testB" / "1.jpg"),
        (test / "testA" / "d" / "2.png", test / "testB" / "d" / "2.png"),
    ]


@pytest.mark.parametrize("extra", ["testA/3.png", "testB/3.png"])
def test_one_image_without_a_counterpart_means_no_pairs(tmp_path, extra):
    for domain in "AB":
        fill(tmp_path / "x" / f"train{domain}", "t.png")
        fill(tmp_path / "x" / f"test{domain}", "1.png")
    fill(tmp_path / "x", extra)
    assert locate(settings(tmp_path)).pairs("test") == []


def test_no_test_images_mean_no_pairs(tmp_path):
    nothing = {domain: Folder(tmp_path, ()) for domain in "ab"}
    assert DataSet(nothing, nothing, nothing).pairs("test") == []


def test_the_fingerprint_stays_with_the_data_and_changes_with_a_file(tmp_path):
    for domain in "AB":
        fill(tmp_path / "x" / f"train{domain}", "1.png", "d/2.png")
        fill(tmp_path / "x" / f"test{domain}", "t.png")
    keep = {"held_out": 0.0}
    first = fingerprint(locate(settings(tmp_path, **keep)))
    (tmp_path / "x").rename(tmp_path / "moved")
    a, b = tmp_path / "moved" / "trainA", tmp_path / "moved" / "trainB"
    assert fingerprint(locate(settings(tmp_path, a=a, b=b, **keep))) == first
    assert fingerprint(locate(settings(tmp_path, a=b, b=a, **keep))) == first  # the names are the same
    fill(a, "3.png")
    second = fingerprint(locate(settings(tmp_path, a=a, b=b, **keep)))
    assert second != first
    assert fingerprint(locate(settings(tmp_path, a=b, b=a, **keep))) not in (first, second)
    (a / "3.png").rename(a / "4.png")
    assert fingerprint(locate(settings(tmp_path, a=a, b=b, **keep))) not in (first, second)


def test_a_held_out_test_split_is_never_paired(tmp_path):
    """Two folders numbered alike would give false pairs."""
    for side in ("A", "B"):
        (tmp_path / "x" / f"train{side}").mkdir(parents=True)
        for number in range(60):
            (tmp_path / "x" / f"train{side}" / f"{number:03d}.png").touch()
    data_set = locate(DataSettings(root=tmp_path, domain="x", held_out=0.1))
    assert data_set.test["a"].names == data_set.test["b"].names
    assert data_set.test["a"].names
    assert not data_set.pairs("test")
