"""The mapping of input images to output files."""

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from gan_nst.core.errors import DataError, SettingsError
from gan_nst.core.options import Naming
from gan_nst.inference.outputs import (
    is_finished,
    names_an_image,
    outputs_among_inputs,
    plan_outputs,
    remove_unfinished,
)


def fill(root, *names):
    """Creates empty files, since planning does not open them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def planned(source, output, *naming):
    """The plan as relative names."""
    return {
        file.relative_to(source).as_posix(): target.relative_to(output).as_posix()
        for file, target in plan_outputs(source, output, Naming(*naming)).items()
    }


NAMES = ["a.png", "b.JPG", "c/d.tif", "c/e.bmp", "f.jpeg"]


@pytest.mark.parametrize(
    ("format", "suffix", "outputs"),
    [
        (None, "", ["a.png", "b.png", "c/d.png", "c/e.png", "f.png"]),
        ("png", "_x", ["a_x.png", "b_x.png", "c/d_x.png", "c/e_x.png", "f_x.png"]),
        ("jpeg", "", ["a.jpg", "b.jpg", "c/d.jpg", "c/e.jpg", "f.jpg"]),
        ("same", ".toon", ["a.toon.png", "b.toon.JPG", "c/d.toon.tif", "c/e.toon.png", "f.toon.jpeg"]),
        ("webp", "", ["a.webp", "b.webp", "c/d.webp", "c/e.webp", "f.webp"]),
        ("tiff", "", ["a.tif", "b.tif", "c/d.tif", "c/e.tif", "f.tif"]),
        ("avif", "", ["a.avif", "b.avif", "c/d.avif", "c/e.avif", "f.avif"]),
    ],
)
def test_names(tmp_path, format, suffix, outputs):
    source = fill(tmp_path / "in", *NAMES)
    assert planned(source, tmp_path / "out", format, suffix) == dict(zip(NAMES, outputs, strict=True))


@pytest.mark.parametrize(
    ("naming", "names", "outputs"),
    [
        ((), ["a.jpg", "a.png", "b.png", "c/a.png"], ["a.jpg.png", "a.png.png", "b.png", "c/a.png"]),
        (("jpeg", "_x"), ["a.jpg", "a.png"], ["a.jpg_x.jpg", "a.png_x.jpg"]),
        (("same",), ["a.jpg", "a.png"], ["a.jpg", "a.png"]),
        (("same",), ["a.bmp", "a.png"], ["a.bmp.png", "a.png.png"]),
        ((None, "_x"), ["a.png", "a_x.png"], ["a_x.png", "a_x_x.png"]),
        ((), ["a.jpg", "a.jpg.png", "a.png"], ["a.jpg.png", "a.jpg.png.png", "a.png.png"]),
    ],
)
def test_names_that_would_be_shared(tmp_path, naming, names, outputs):
    source = fill(tmp_path / "in", *names)
    assert planned(source, tmp_path / "out", *naming) == dict(zip(names, outputs, strict=True))


@pytest.mark.parametrize("existing", ["", "file"])
def test_the_output_of_a_single_image_may_be_a_file(tmp_path, existing):
    source, output = fill(tmp_path, "a.png") / "a.png", tmp_path / "new" / "b.JPG"
    if existing:
        fill(tmp_path, "new/b.JPG")
    assert plan_outputs(source, output) == {source: output}
    assert output.parent.is_dir()
    assert plan_outputs(source, output, Naming("jpeg")) == {source: output}
    with pytest.raises(SettingsError, match=r"is named \.jpg; omit --format png"):
        plan_outputs(source, output, Naming("png"))
    with pytest.raises(SettingsError, match="is a file name; omit --suffix"):
        plan_outputs(source, output, Naming(None, "_x"))


def test_a_folder_may_be_named_like_an_image(tmp_path):
    source = fill(tmp_path / "in.png", "a.png", "x.jpg/b.png")
    (tmp_path / "out.png").mkdir()
    assert not names_an_image(tmp_path / "out.png")
    assert planned(source, tmp_path / "out.png") == {"a.png": "a.png", "x.jpg/b.png": "x.jpg/b.png"}
    assert plan_outputs(source / "a.png", tmp_path / "out.png") == {
        source / "a.png": tmp_path / "out.png" / "a.png"
    }


def test_impossible_outputs_are_refused(tmp_path):
    source = fill(tmp_path / "in", "a.png")
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        ((tmp_path / "none", tmp_path / "out"), "none: no such file or folder"),
        ((tmp_path / "empty", tmp_path / "out"), r"empty: no images \(looked for \.png"),
        ((source, source / "a.png"), "is a file; --output must be a folder"),
        ((source, source / "a.png" / "out"), "could not be created"),
        ((source / "a.png", source / "a.png" / "out.png"), "a.png: could not be created"),
        ((source / "a.png", tmp_path / "out.gif"), r"out\.gif: images are written as \.png \.jpg"),
        (
            (source / "a.png", tmp_path / "out.jpgg"),
            r"out\.jpgg: images .* if you mean a folder, create it first",
        ),
        ((source / "a.png", source / "a.png"), "would overwrite an input"),
        ((source, source), "would overwrite an input; give another folder"),
    ]:
        with pytest.raises(DataError, match=message):
            plan_outputs(*arguments)
    with pytest.raises(
        SettingsError, match="--format: expected one of png, jpeg, webp, tiff, avif, same, got 'gif'"
    ):
        Naming("gif")
    with pytest.raises(SettingsError, match="--suffix: expected a part of a file's name"):
        Naming(None, "/../x")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    source = fill(tmp_path / "in", "a.png")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "out")
    with pytest.raises(DataError, match="out: not writable"):
        plan_outputs(source, tmp_path / "out")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
def test_a_folder_in_which_nobody_may_write(tmp_path):
    """Not even root can create folders in /proc."""
    with pytest.raises(DataError, match=r"could not be created|not writable"):
        plan_outputs(fill(tmp_path / "in", "a.png"), Path("/proc/gan_nst"))


def test_outputs_inside_the_input_are_not_inputs(tmp_path):
    source = fill(tmp_path / "in", "a.png", "out/a.png", "out/c/b.png")
    assert planned(source, source / "out") == {"a.png": "a.png"}
    assert not outputs_among_inputs(source, source / "out", plan_outputs(source, source / "out").values())


def test_inputs_inside_the_output_are_not_written_over(tmp_path):
    source = fill(tmp_path / "in", "b.png", "in/b.jpg")
    with pytest.raises(DataError, match=r"in/b\.png: would overwrite an input; give another folder"):
        plan_outputs(source, tmp_path)
    plan = plan_outputs(source, tmp_path, Naming("webp"))
    assert plan == {source / "b.png": tmp_path / "b.webp", source / "in" / "b.jpg": source / "b.webp"}
    assert outputs_among_inputs(source, tmp_path, plan.values())


def test_outputs_among_the_inputs(tmp_path):
    source = fill(tmp_path / "in", "a.jpg")
    (tmp_path / "link").symlink_to(source)
    for output, among in [
        (source, True),
        (tmp_path / "link", True),
        (tmp_path / "out", False),
        (tmp_path, False),
    ]:
        assert outputs_among_inputs(source, output, plan_outputs(source, output).values()) == among
    one = source / "a.jpg"
    assert not outputs_among_inputs(one, source, plan_outputs(one, source).values())


def test_an_output_is_finished_if_it_exists_and_is_not_older(tmp_path):
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGB", (4, 4)).save(source)
    assert not is_finished(source, target)
    target.touch()
    assert not is_finished(source, target)  # the machine lost power before it was written
    target.write_bytes(source.read_bytes())
    for age, finished in [(-1, False), (0, True), (1, True)]:
        os.utime(source, (1000, 1000))
        os.utime(target, (1000 + age, 1000 + age))
        assert is_finished(source, target) == finished
    assert not is_finished(tmp_path / "none", target)


def test_only_our_own_temporary_files_are_removed(tmp_path):
    left = [".a.png.part", ".b.png.0123abcd.part", "a.png", "a.png.0123abcd.part", "c/.a.png.0123abcd.part"]
    fill(tmp_path, ".a.png.0123abcd.part", *left)
    remove_unfinished([tmp_path / "a.png", tmp_path / "c" / "b.png", tmp_path / "none" / "x.png"])
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == left


@pytest.mark.parametrize("link", ["sub", "sub/deep", "sub/deep/deeper"])
def test_a_linked_folder_among_the_outputs_that_leads_outside_is_not_followed(tmp_path, link):
    source = fill(tmp_path / "in", "sub/deep/deeper/x.png", "y.png")
    (tmp_path / "outside").mkdir()
    (tmp_path / "out" / link).parent.mkdir(parents=True)
    (tmp_path / "out" / link).symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(DataError, match="leads out of"):
        plan_outputs(source, tmp_path / "out")


def test_links_within_the_outputs_and_a_linked_output_are_followed(tmp_path):
    source = fill(tmp_path / "in", "sub/x.png")
    (tmp_path / "real" / "other").mkdir(parents=True)
    (tmp_path / "real" / "sub").symlink_to("other", target_is_directory=True)
    (tmp_path / "out").symlink_to("real", target_is_directory=True)
    assert planned(source, tmp_path / "out") == {"sub/x.png": "sub/x.png"}


def test_a_link_to_itself_is_planned_like_any_other_image(tmp_path):
    """It is reported by name when read, and the others are translated."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").symlink_to(tmp_path / "in" / "x.png")
    (tmp_path / "in" / "y.png").write_bytes(b"")
    targets = plan_outputs(tmp_path / "in", tmp_path / "in" / "out")
    assert sorted(file.name for file in targets) == ["x.png", "y.png"]
