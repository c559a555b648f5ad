"""Translating folders: the same tree comes out, nothing is written over, and what cannot be read is told."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_inference import Blur, Shift, translator

from gan_nst.errors import DataError
from gan_nst.images import find_pictures, read_picture, write_picture
from gan_nst.inference import folder
from gan_nst.inference.folder import translate_folder, translate_stream
from gan_nst.networks import build


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def fill(root, *names, size=(20, 24)):
    for number, name in enumerate(names):
        write_picture(noise(*size, seed=number), root / name)
    return root


def tree(root):
    return {path.relative_to(root).as_posix() for path in find_pictures(root)}


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in find_pictures(root)}


@pytest.fixture
def shift():
    return translator(Shift())


def test_a_tree_comes_out_as_the_same_tree(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "b.JPG", "c/d.webp", "c/e/f.png", "c/e/a.bmp")
    outcome = translate_folder(shift, source, tmp_path / "deep" / "out")
    assert tree(tmp_path / "deep" / "out") == {"a.png", "b.png", "c/d.png", "c/e/f.png", "c/e/a.png"}
    assert sorted(outcome.written) == find_pictures(tmp_path / "deep" / "out")
    assert outcome.failures == []
    for path in find_pictures(source):
        written = (tmp_path / "deep" / "out" / path.relative_to(source)).with_suffix(".png")
        np.testing.assert_array_equal(read_picture(written), shift(read_picture(path)))


def test_one_picture_will_do(tmp_path, shift):
    source = fill(tmp_path / "in", "a.jpg", "b.jpg")
    outcome = translate_folder(shift, source / "a.jpg", tmp_path / "out")
    assert outcome.written == [tmp_path / "out" / "a.png"]
    assert tree(tmp_path / "out") == {"a.png"}


def test_pictures_whose_names_differ_in_the_suffix_alone_keep_it(tmp_path, shift):
    source = fill(tmp_path / "in", "a.jpg", "a.png", "b.png", "c/a.png")
    translate_folder(shift, source, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a.jpg.png", "a.png.png", "b.png", "c/a.png"}


@pytest.mark.parametrize(
    "names", [("a.jpg", "a.png", "a.jpg.png"), ("a.jpg", "a.png", "a.jpg.png", "a.jpg.jpg")]
)
def test_no_two_pictures_are_written_to_one_name(tmp_path, shift, names):
    source = fill(tmp_path / "in", *names)
    outcome = translate_folder(shift, source, tmp_path / "out")
    assert len(set(outcome.written)) == len(tree(tmp_path / "out")) == len(names)


def test_what_cannot_be_read_is_told_and_left_out(tmp_path, shift, caplog):
    source = fill(tmp_path / "in", "a.png", "b.png", "c.png", "d/e.png")
    (source / "b.png").write_bytes(b"")
    (source / "d" / "e.png").write_text("no picture")
    outcome = translate_folder(shift, source, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a.png", "c.png"}
    assert len(outcome.written) == len(outcome.failures) == 2
    assert all(str(source / name) in " ".join(outcome.failures) for name in ("b.png", "d/e.png"))
    assert not any("\n" in failure for failure in outcome.failures)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_what_cannot_be_written_is_told_and_left_out(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "c/b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "c").write_text("a file where a folder must be")
    outcome = translate_folder(shift, source, tmp_path / "out")
    assert outcome.written == [tmp_path / "out" / "a.png"]
    assert len(outcome.failures) == 1
    assert "could not be written" in outcome.failures[0]


def test_an_input_is_never_written_over(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "b.jpg")
    before = contents(source)
    with pytest.raises(DataError, match=r"a\.png: would be written over an input; give another folder"):
        translate_folder(shift, source, source)
    with pytest.raises(DataError, match="would be written over an input"):
        translate_folder(shift, source / "a.png", source)
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(DataError, match="would be written over an input"):
        translate_folder(shift, source, tmp_path / "link")
    assert contents(source) == before


def test_output_beside_inputs_of_another_kind_is_allowed(tmp_path, shift):
    source = fill(tmp_path / "in", "a.jpg", "b.jpg")
    before = contents(source)
    translate_folder(shift, source, source)
    assert contents(source).items() >= before.items()
    assert tree(source) == {"a.jpg", "b.jpg", "a.png", "b.png"}


def test_an_output_inside_the_input_is_no_input_the_next_time(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "c/b.png")
    for _ in range(2):
        outcome = translate_folder(shift, source, source / "out")
        assert len(outcome.written) == 2
    assert tree(source) == {"a.png", "c/b.png", "out/a.png", "out/c/b.png"}


def test_a_second_time_gives_the_same_files(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "c/b.png")
    translate_folder(shift, source, tmp_path / "out")
    first = contents(tmp_path / "out")
    translate_folder(shift, source, tmp_path / "out")
    assert contents(tmp_path / "out") == first


def test_what_cannot_be_done_at_all_is_told(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png")
    with pytest.raises(DataError, match=r"none: no such file or folder"):
        translate_folder(shift, tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no pictures \(looked for \.png"):
        translate_folder(shift, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="is a file; --output names a folder"):
        translate_folder(shift, source, source / "a.png")
    with pytest.raises(DataError, match="cannot be made"):
        translate_folder(shift, source, source / "a.png" / "out")
    assert not (tmp_path / "out").exists()


SIZES = [(20, 24), (17, 24), (20, 24), (31, 16), (17, 24), (20, 24), (20, 24)]


def named(sizes):
    return [(Path(f"{number}.png"), noise(*size, seed=number)) for number, size in enumerate(sizes)]


def test_pictures_of_equal_size_pass_together_and_come_out_as_alone():
    torch.manual_seed(0)
    made = translator(build({"name": "resnet", "width": 4, "blocks": 1, "downsamplings": 2}))
    pictures = named(SIZES)
    outputs = dict(translate_stream(made, pictures))
    assert outputs.keys() == {path for path, _ in pictures}
    for path, picture in pictures:
        alone = made(picture)
        assert outputs[path].shape == picture.shape
        difference = np.abs(outputs[path].astype(int) - alone)
        assert difference.max() <= 1  # at most the rounding of a sum in another order
        assert difference.mean() < 0.01


def test_batches_are_of_one_size_and_bounded(monkeypatch):
    network = Blur(1)
    list(translate_stream(translator(network), named(SIZES)))
    assert sorted(network.seen) == [(1, 3, 31, 16), (2, 3, 17, 24), (4, 3, 20, 24)]
    network.seen.clear()
    monkeypatch.setattr(folder, "_LARGEST_BATCH", 3)
    list(translate_stream(translator(network), named([(20, 24)] * 7)))
    assert network.seen == [(3, 3, 20, 24), (3, 3, 20, 24), (1, 3, 20, 24)]
    network.seen.clear()
    monkeypatch.setattr(folder, "_PIXELS_A_BATCH", 2 * 20 * 24)
    list(translate_stream(translator(network), named([(20, 24)] * 3)))
    assert network.seen == [(2, 3, 20, 24), (1, 3, 20, 24)]


def test_what_waits_for_company_is_bounded(monkeypatch):
    """With every picture of another size the first comes out long before the last goes in."""
    monkeypatch.setattr(folder, "_PIXELS_A_BATCH", 1000)
    taken = []

    def pictures():
        for number in range(200):
            taken.append(number)
            yield Path(f"{number}.png"), noise(16 + number % 50, 16 + number // 50, seed=number)

    longest, returned = 0, 0
    for _ in translate_stream(translator(Shift()), pictures()):
        returned += 1
        longest = max(longest, len(taken) - returned)
    assert returned == 200
    assert longest < 40


def test_pictures_far_from_the_training_scale_are_warned_of(tmp_path, caplog):
    source = fill(tmp_path / "in", "near.png", size=(40, 50))
    fill(source, "large.png", size=(150, 120))
    fill(source, "small.png", size=(14, 90))
    made = translator(Shift(), load_size=40)
    translate_folder(made, source / "near.png", tmp_path / "out")
    assert caplog.messages == []
    translate_folder(made, source, tmp_path / "out")
    (message,) = caplog.messages
    assert message.startswith("2 of 3 pictures are far from the training scale (large.png: 3 times)")
    assert "near 40 pixels" in message


def test_no_hidden_leftovers(tmp_path, shift):
    translate_folder(shift, fill(tmp_path / "in", "a.png", "b.png"), tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["a.png", "b.png"]
