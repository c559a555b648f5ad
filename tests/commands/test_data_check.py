"""`gan-nst data check` finds problems before training starts."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers_data import noise
from helpers_root import modes_hold
from helpers_runs import one_line
from PIL import Image

import gan_nst as package
from gan_nst.core.errors import one_line as escaped
from gan_nst.data import check as data_check
from gan_nst.data.domains import all_images
from gan_nst.images.files import write_image
from gan_nst.runs.settings import load_settings


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A valid data set: 8 images per domain, 3 each for validation and test."""
    monkeypatch.setattr(data_check, "FEW", 4)
    for number, split in enumerate(("trainA", "trainB", "valA", "valB", "testA", "testB")):
        for index in range(8 if split.startswith("train") else 3):
            write_image(noise(40, 40, seed=100 * number + index), tmp_path / "data" / split / f"{index}.png")
    return tmp_path / "data"


def check(gan_nst, folder, *options):
    """Runs the command: its exit code, its output, and the JSON it wrote."""
    code, out, err = gan_nst(
        "data", "check", folder, "--crop-size", 32, "--json", folder.parent / "x.json", *options
    )
    assert err == ""
    return code, out, json.loads((folder.parent / "x.json").read_text())


def only(lines, *parts):
    """Asserts that there is exactly one line, and that it holds all parts."""
    assert len(lines) == 1, lines
    for part in parts:
        assert str(part) in lines[0]


def test_a_good_data_set_has_nothing_wrong(gan_nst, data):
    code, out, result = check(gan_nst, data)
    assert code == 0
    assert "nothing is wrong" in out
    assert (result["ok"], result["wrong"], result["advice"]) == (True, [], [])
    assert result["paired"] == ["validation", "test"]
    first = result["parts"][0]
    assert (first["split"], first["domain"], first["images"]) == ("training", "a", 8)
    assert first["sizes"] == {"smallest": [40, 40], "median": [40, 40], "largest": [40, 40]}
    assert first["formats"] == {"PNG": 8}
    assert all(abs(value - 127.5) < 3 for value in first["colour"]["mean"])
    assert first["colour"]["gray_share"] == 0


def test_every_broken_file_is_named(gan_nst, data):
    for index in range(12):
        (data / "trainA" / f"bad{index:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, out, result = check(gan_nst, data)
    assert code == 1
    only(result["wrong"], "domain a, training: 12 broken files", "bad09.png: not a readable", "and 2 more")
    assert [entry["file"] for entry in result["parts"][0]["broken"]] == [
        str(data / "trainA" / f"bad{index:02d}.png") for index in range(12)
    ]
    assert "something is wrong" in out


def test_a_domain_without_readable_files_is_reported(gan_nst, data):
    for file in (data / "trainB").iterdir():
        file.write_bytes(b"")
    code, out, result = check(gan_nst, data)
    assert code == 1
    only(result["wrong"], "domain b, training: 8 broken files: ", "7.png: not a readable")
    assert result["parts"][1]["sizes"] is None


def test_small_images_are_wrong_except_for_testing(gan_nst, data):
    write_image(noise(20, 50, seed=1), data / "trainB" / "small.png")
    write_image(noise(20, 50, seed=2), data / "testB" / "small.png")
    code, _, result = check(gan_nst, data)
    assert code == 1
    only(result["wrong"], "1 image smaller than the crop of 32 pixels", "small.png (50 x 20)", "data.upscale")


@pytest.mark.parametrize(("split", "word"), [("testA", "test image"), ("valA", "validation image")])
@pytest.mark.parametrize("nearly", [False, True])
def test_leaks_are_wrong(gan_nst, data, split, word, nearly):
    with Image.open(data / "trainA" / "3.png") as image:
        image.resize((80, 80) if nearly else (40, 40)).save(data / split / "copy.png")
    code, _, result = check(gan_nst, data)
    assert code == 1
    sign = "~" if nearly else "="
    pair = f"{data / split / 'copy.png'} {sign} {data / 'trainA' / '3.png'}"
    only(result["wrong"], f"1 {word} of domain a also in training", pair)
    assert result["duplicates"][0][0]["same_pixels"] is not nearly


def test_duplicates_within_a_split_are_advice(gan_nst, data):
    shutil.copy(data / "trainA" / "3.png", data / "trainA" / "copy.png")
    code, _, result = check(gan_nst, data)
    assert code == 0
    only(result["advice"], "domain a, training: 2 images are duplicates, in 1 group", "copy.png")


def test_a_domain_that_copies_the_other_is_wrong(gan_nst, data):
    shutil.rmtree(data / "trainB")
    shutil.copytree(data / "trainA", data / "trainB")
    code, _, result = check(gan_nst, data)
    assert code == 1
    only(result["wrong"], "8 images in both domains, equal pixel by pixel: ")


def test_a_near_duplicate_in_the_other_domain_is_advice(gan_nst, data):
    with Image.open(data / "trainA" / "3.png") as image:
        image.resize((80, 80)).save(data / "trainB" / "copy.png")
    code, _, result = check(gan_nst, data)
    assert code == 0
    pair = f"{data / 'trainA' / '3.png'} ~ {data / 'trainB' / 'copy.png'}"
    only(result["advice"], f"training: 1 image of a with a near-duplicate in b: {pair}")


def test_a_test_image_of_the_other_domain_is_not_a_leak(gan_nst, data):
    with Image.open(data / "trainA" / "3.png") as image:
        image.resize((80, 80)).save(data / "testB" / "0.png")
    assert check(gan_nst, data)[0] == 0


def test_advice(gan_nst, data, monkeypatch):
    monkeypatch.setattr(data_check, "FEW", 200)
    for index in range(30):
        gray = np.repeat(noise(40, 40, seed=1000 + index)[..., :1], 3, 2)
        write_image(gray, data / "trainB" / f"gray{index}.png")
    for index in range(8):
        (data / "trainB" / f"{index}.png").unlink()
    write_image(np.full((40, 40, 3), 9, np.uint8), data / "trainA" / "flat.png")
    write_image(noise(40, 200, seed=5), data / "trainA" / "long.png")
    write_image(noise(40, 40, seed=77), data / "testA" / "alone.png")
    write_image(noise(40, 40, seed=78), data.parent / "outside.png")
    (data / "valA" / "0.png").unlink()
    (data / "valA" / "0.png").symlink_to(data.parent / "outside.png")
    code, _, result = check(gan_nst, data)
    assert code == 0, result["wrong"]
    expected = [
        "domain a: only 10 training images; add more, or try method.differentiable_augmentation",
        "domain b: only 30 training images",
        "domain b is gray, the other is in colour",
        "test: 1 name in one domain only, so the split is not paired: alone",
        "domain a, training: 1 image of a single colour, or nearly",
        "domain a, training: 1 image so elongated that a square crop shows little",
        "domain a, validation: 1 link to files outside the folder",
    ]
    for line, part in zip(result["advice"], expected, strict=True):
        assert part in line
    assert result["paired"] == ["validation"]


def test_a_few_gray_images_are_reported(gan_nst, data):
    for index in range(2):
        gray = np.repeat(noise(40, 40, seed=1000 + index)[..., :1], 3, 2)
        write_image(gray, data / "trainB" / f"gray{index}.png")
    advice = check(gan_nst, data)[2]["advice"]
    only(advice, "domain b, training: 20% of the images are gray, the others are in colour")


def test_unbalanced_domains_are_reported(gan_nst, data):
    for index in range(40):
        write_image(noise(40, 40, seed=2000 + index), data / "trainB" / f"more{index}.png")
    only(check(gan_nst, data)[2]["advice"], "unbalanced: 8 training images of a, 48 of b")


def test_held_out_splits_are_checked_as_training_holds_them_out(gan_nst, data):
    for split in ("valA", "valB", "testA", "testB"):
        shutil.rmtree(data / split)
    for index in range(60):
        write_image(noise(40, 40, seed=3000 + index % 30), data / "trainA" / f"{index}.png")
    code, out, result = check(gan_nst, data)
    assert "no test split" in out
    assert code == 1
    assert any("leak" in line for line in result["wrong"])
    assert result["paired"] == []


@contextlib.contextmanager
def closed(folder):
    """Within the context a folder cannot be read."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0)
    try:
        with modes_hold():
            yield f"{folder}: cannot be searched for images (Permission denied)"
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("name", ["trainA/sub", "testB/sub"])
def test_an_unreadable_folder_is_wrong_but_the_rest_is_checked(gan_nst, data, name):
    (data / "valA" / "bad.png").write_bytes(b"")
    with closed(data / name) as line:
        code, out, result = check(gan_nst, data)
    assert code == 1
    assert f"wrong: {line}" in out.splitlines()
    assert len(result["wrong"]) == 2
    assert result["wrong"][0] == line
    assert [part["images"] for part in result["parts"]] == [8, 8, 4, 3, 3, 3]


@pytest.mark.parametrize("name", ["trainA", "trainB", "valA", "testB"])
def test_an_unreadable_domain_is_reported_once(gan_nst, data, name):
    with closed(data / name) as line:
        code, _, result = check(gan_nst, data)
    assert code == 1
    assert result["wrong"] == [line]
    assert len(result["parts"]) == 5


def test_an_unreadable_folder_that_may_hold_a_split_is_reported(gan_nst, data):
    for domain in "AB":
        shutil.rmtree(data / f"test{domain}")
    with closed(data / "test"):
        code, _, result = check(gan_nst, data)
    assert code == 1
    assert [line.split(": ")[0] for line in result["wrong"]] == [str(data / "test" / d) for d in "AB"]


def test_an_unreadable_folder_within_a_plain_one_is_reported(gan_nst, data):
    with closed(data / "trainA" / "sub") as line:
        code, _, result = check(gan_nst, data / "trainA")
    assert code == 1
    assert result["wrong"] == [line]
    assert result["parts"][0]["images"] == 8


@pytest.mark.parametrize("within", ["", "trainA"])
def test_without_a_readable_folder_there_is_no_report(gan_nst, data, within):
    """The given folder, or one above it, is unreadable."""
    with closed(data):
        one_line(gan_nst("data", "check", data / within), data, "cannot be searched for", "Permission denied")


def test_training_refuses_an_unreadable_folder(gan_nst, data):
    given = ["data.cache=never", "--domain", "data", "--method", "cyclegan", f"data.root={data.parent}"]
    with closed(data / "testA" / "sub") as line:
        one_line(gan_nst("train", *given, "--dry-run"), line)
    with closed(data):
        one_line(gan_nst("train", *given, "--dry-run"), data / "trainA", "Permission denied")
        folders = [f"data.a={data / 'trainA'}", f"data.b={data / 'trainB'}"]
        one_line(gan_nst("train", *given, *folders, "--dry-run"), data / "trainA", "Permission denied")


def test_files_without_an_image_extension_are_counted(gan_nst, data):
    others = ["trainA/1.heic", "trainA/sub/2.HEIC", "trainA/notes.txt", "trainA/README", "valB/.DS_Store"]
    others += ["testB/x.\x1b[2J", *(f"testA/{number}.{number}" for number in range(8)), "other.txt"]
    for name in others:
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).touch()
    code, out, result = check(gan_nst, data)
    assert code == 0
    text = "skipped, by file extension"
    assert result["advice"] == [
        f"{data / 'trainA'}: 4 files {text}: .heic 2, .txt 1, none 1",
        f"{data / 'testA'}: 8 files {text}: .0 1, .1 1, .2 1, .3 1, .4 1 and 3 more",
        f"{data / 'testB'}: 1 file {text}: .\x1b[2j 1",
    ]
    assert "\x1b" not in out
    assert list(result["skipped"][str(data / "testA")]) == [f".{number}" for number in range(8)]
    assert result["skipped"] == {
        str(data / "trainA"): {".heic": 2, ".txt": 1, "": 1},
        str(data / "testA"): {f".{number}": 1 for number in range(8)},
        str(data / "testB"): {".\x1b[2j": 1},
    }
    assert result["parts"][0]["images"] == 8


def test_files_of_a_split_without_images_are_counted(gan_nst, data):
    for split in ("valA", "valB"):
        for file in (data / split).iterdir():
            file.rename(file.with_suffix(".heic"))
    assert check(gan_nst, data)[2]["skipped"] == {str(data / f"val{d}"): {".heic": 3} for d in "AB"}


def test_files_are_counted_once_with_held_out_splits_and_in_a_plain_folder(gan_nst, data):
    for split in ("valA", "valB", "testA", "testB"):
        shutil.rmtree(data / split)
    (data / "trainA" / "x.heic").touch()
    counted = {str(data / "trainA"): {".heic": 1}}
    assert check(gan_nst, data)[2]["skipped"] == counted
    assert check(gan_nst, data / "trainA")[2]["skipped"] == counted


def test_a_dash_writes_only_the_json_to_standard_output(gan_nst, data):
    for split in ("testA", "testB"):  # so that more than the report is logged
        shutil.rmtree(data / split)
    before = set(data.parent.rglob("*"))
    code, out, err = gan_nst("data", "check", data, "--crop-size", 32, "--json", "-")
    assert (code, err) == (0, "")
    assert set(data.parent.rglob("*")) == before
    assert json.loads(out) == check(gan_nst, data)[2]


@pytest.mark.parametrize("name", ["below/x.json", "x.json/below", "nowhere/x.json", "below", "fifo"])
def test_an_unwritable_json_file_is_refused_before_anything_is_checked(gan_nst, data, monkeypatch, name):
    monkeypatch.delattr("gan_nst.commands.data_check.check_images")
    (data / "x.json").write_text("mine")
    (data / "below").mkdir(mode=0o500)
    os.mkfifo(data / "fifo")
    with modes_hold():
        one_line(gan_nst("data", "check", data, "--json", data / name), data / name)
    assert (data / "fifo").is_fifo()


def test_a_plain_folder_is_checked(gan_nst, data):
    os.chdir(data / "trainA")
    code, out, err = gan_nst("data", "check", ".", "--crop-size", 32)
    assert (code, err) == (0, "")
    assert "images  8 " in out
    code, out, _ = gan_nst("data", "check", data / "trainA")
    assert code == 1
    assert "8 images smaller than the crop of 256 pixels" in out


@pytest.mark.parametrize("name", [b"bad\tname", b"\xff\x1b[2J", "\u202e".encode(), b"..."])
@pytest.mark.parametrize("plain", [False, True])
def test_a_folder_of_any_name_is_checked(gan_nst, data, name, plain):
    folder = data.parent / os.fsdecode(name)
    (data / "trainA" if plain else data).rename(folder)
    code, out, result = check(gan_nst, folder)
    assert code == 0
    assert (result["folder"], result["parts"][0]["images"]) == (str(folder), 8)
    assert escaped(f"{folder}: nothing is wrong") in out.splitlines()


@pytest.mark.parametrize("name", ["/", "..", "."])
def test_a_folder_without_a_name_is_checked(gan_nst, data, monkeypatch, name):
    """Uses another folder in its place, so that not all images of this machine are opened."""
    monkeypatch.setattr("gan_nst.commands.data_check.all_images", lambda folder: all_images(data / "trainA"))
    code, out, err = gan_nst("data", "check", name, "--crop-size", 32)
    assert (code, err) == (0, "")
    assert out.endswith(f"\n{name}: nothing is wrong\n")


def test_names_that_are_not_text_are_written(gan_nst, data):
    (data / "trainA" / os.fsdecode(b"\xff\n\x1b[2J.png")).write_bytes(b"")
    code, out, result = check(gan_nst, data)
    assert code == 1
    assert "\x1b" not in out
    assert sum(r"\n\x1b[2J.png: " in line for line in out.splitlines()) == 1
    assert result["parts"][0]["broken"][0]["file"] == str(data / "trainA" / os.fsdecode(b"\xff\n\x1b[2J.png"))


def test_the_settings_of_a_domain_apply(gan_nst, datasets):
    Path("datasets").symlink_to(datasets)
    code, out, err = gan_nst("data", "check", "--domain", "photo2cartoon", "--json", "x.json")
    result = json.loads(Path("x.json").read_text())
    settings, _, _ = load_settings(Path("experiments/photo2cartoon/cyclegan.yaml"), [])
    assert (result["crop_size"], result["folder"]) == (settings.data.crop_size, "datasets/photo2cartoon")
    assert (code, err) == (1, ""), out  # the test suite's images are smaller


def test_mistakes_are_reported_in_one_line(gan_nst, data, tmp_path):
    one_line(gan_nst("data", "check"), "give either a folder or --domain")
    one_line(gan_nst("data", "check", data, "--domain", "x"), "not both")
    one_line(gan_nst("data", "check", tmp_path / "none"), "none: no such folder")
    one_line(gan_nst("data", "check", data / "trainA" / "0.png"), "0.png: not a folder")
    (tmp_path / "empty").mkdir()
    one_line(gan_nst("data", "check", tmp_path / "empty"), "empty: no images (looked for .png .jpg")
    one_line(
        gan_nst("data", "check", data, "--json", tmp_path / "no" / "x.json"),
        "x.json: its folder does not exist",
    )
    one_line(gan_nst("data", "check", "--domain", "nothing"), "no such folder")
    shutil.rmtree(data / "trainB")
    one_line(gan_nst("data", "check", data), "no training images of domain b")


def test_the_function_returns_what_is_written(data, tmp_path):
    result = package.data_check(data, package.CheckOptions(crop_size=32, json=tmp_path / "x.json"))
    assert result == json.loads((tmp_path / "x.json").read_text())
