"""Translating folders: the same tree comes out, nothing is overwritten, and unreadable images are reported."""

import errno
import logging
import os
import threading
import time

import numpy as np
import pytest
import torch
from helpers_inference import Blur, Shift, noise, translator
from helpers_root import modes_hold

from gan_nst.core.errors import DataError
from gan_nst.core.options import TranslateOptions
from gan_nst.images.arrays import to_image, to_uint8
from gan_nst.images.files import find_images, read_image, write_image
from gan_nst.images.finish import complete, prepare
from gan_nst.images.photo import Photo, read_photo, write_photo
from gan_nst.inference import folder
from gan_nst.inference.folder import translate_folder


def fill(root, *names, size=(20, 24)):
    for number, name in enumerate(names):
        write_image(noise(*size, seed=number), root / name)
    return root


def tree(root):
    return {path.relative_to(root).as_posix() for path in find_images(root)}


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in find_images(root)}


@pytest.fixture
def shift():
    return translator(Shift())


def test_a_tree_comes_out_as_the_same_tree(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "b.JPG", "c/d.webp", "c/e/f.png", "c/e/a.bmp")
    outcome = translate_folder(shift, source, tmp_path / "deep" / "out")
    assert tree(tmp_path / "deep" / "out") == {"a.png", "b.png", "c/d.png", "c/e/f.png", "c/e/a.png"}
    assert sorted(outcome.written) == find_images(tmp_path / "deep" / "out")
    assert outcome.failures == []
    for path in find_images(source):
        written = (tmp_path / "deep" / "out" / path.relative_to(source)).with_suffix(".png")
        np.testing.assert_array_equal(read_image(written), shift(read_image(path)))


def test_a_single_image_is_translated(tmp_path, shift):
    source = fill(tmp_path / "in", "a.jpg", "b.jpg")
    outcome = translate_folder(shift, source / "a.jpg", tmp_path / "out")
    assert outcome.written == [tmp_path / "out" / "a.png"]
    assert tree(tmp_path / "out") == {"a.png"}


@pytest.mark.parametrize(
    "names", [("a.jpg", "a.png", "a.jpg.png"), ("a.jpg", "a.png", "a.jpg.png", "a.jpg.jpg")]
)
def test_no_two_images_get_the_same_name(tmp_path, shift, names):
    source = fill(tmp_path / "in", *names)
    outcome = translate_folder(shift, source, tmp_path / "out")
    assert len(set(outcome.written)) == len(tree(tmp_path / "out")) == len(names)


def test_an_unreadable_image_is_reported_and_skipped(tmp_path, shift, caplog):
    source = fill(tmp_path / "in", "a.png", "b.png", "c.png", "d/e.png")
    (source / "b.png").write_bytes(b"")
    (source / "d" / "e.png").write_text("no image")
    outcome = translate_folder(shift, source, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a.png", "c.png"}
    assert len(outcome.written) == len(outcome.failures) == 2
    assert all(str(source / name) in " ".join(outcome.failures) for name in ("b.png", "d/e.png"))
    assert not any("\n" in failure for failure in outcome.failures)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_an_unwritable_image_is_reported_and_skipped(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "c/b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "c").write_text("a file where a folder must be")
    outcome = translate_folder(shift, source, tmp_path / "out")
    assert outcome.written == [tmp_path / "out" / "a.png"]
    assert len(outcome.failures) == 1
    assert "could not be written" in outcome.failures[0]


def test_an_input_is_never_overwritten(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "b.jpg")
    before = contents(source)
    with pytest.raises(DataError, match=r"a\.png: would overwrite an input; give another folder"):
        translate_folder(shift, source, source)
    with pytest.raises(DataError, match="would overwrite an input"):
        translate_folder(shift, source / "a.png", source)
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(DataError, match="would overwrite an input"):
        translate_folder(shift, source, tmp_path / "link")
    assert contents(source) == before


def test_output_next_to_inputs_of_another_format_is_allowed(tmp_path, shift):
    source = fill(tmp_path / "in", "a.jpg", "b.jpg")
    before = contents(source)
    translate_folder(shift, source, source)
    assert contents(source).items() >= before.items()
    assert tree(source) == {"a.jpg", "b.jpg", "a.png", "b.png"}


def test_an_output_inside_the_input_does_not_become_an_input(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "c/b.png")
    for _ in range(2):
        outcome = translate_folder(shift, source, source / "out")
        assert len(outcome.written) == 2
    assert tree(source) == {"a.png", "c/b.png", "out/a.png", "out/c/b.png"}


def test_a_second_run_gives_the_same_files(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "c/b.png")
    translate_folder(shift, source, tmp_path / "out")
    first = contents(tmp_path / "out")
    translate_folder(shift, source, tmp_path / "out")
    assert contents(tmp_path / "out") == first


def test_images_far_from_the_training_scale_cause_a_warning(tmp_path, caplog):
    source = fill(tmp_path / "in", "near.png", size=(40, 50))
    fill(source, "large.png", size=(150, 120))
    fill(source, "small.png", size=(14, 90))
    made = translator(Shift(), load_size=40)
    translate_folder(made, source / "near.png", tmp_path / "out")
    assert caplog.messages == []
    translate_folder(made, source, tmp_path / "out")
    (message,) = caplog.messages
    assert message.startswith("2 of 3 images are far from the training scale (large.png: 3 times)")
    assert "near 40 pixels" in message


def test_only_what_a_killed_process_left_of_the_outputs_is_removed(tmp_path, shift):
    source, output = fill(tmp_path / "in", "a.png"), tmp_path / "out"
    left = [".a.png.part", ".b.png.0123abcd.part", "a.png.0123abcd.part"]
    output.mkdir()
    for name in (".a.png.0123abcd.part", *left):
        (output / name).touch()
    translate_folder(shift, source, output)
    assert sorted(os.listdir(output)) == sorted(["a.png", *left])


def test_no_hidden_leftovers(tmp_path, shift):
    translate_folder(shift, fill(tmp_path / "in", "a.png", "b.png"), tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["a.png", "b.png"]


RESUMED = TranslateOptions(resume=True)


def test_options_reach_the_files(tmp_path, shift):
    write_photo(Photo(noise(20, 24), alpha=noise(20, 24, seed=1)[..., 0]), tmp_path / "in" / "a.png")
    for quality in (30, 95):
        options = TranslateOptions(format="jpeg", suffix=f"_{quality}", quality=quality)
        translate_folder(shift, tmp_path / "in", tmp_path / "out", options)
    assert tree(tmp_path / "out") == {"a_30.jpg", "a_95.jpg"}
    small, large = (tmp_path / "out" / name for name in ("a_30.jpg", "a_95.jpg"))
    assert small.stat().st_size < large.stat().st_size
    translate_folder(shift, tmp_path / "in", tmp_path / "weak", TranslateOptions(strength=0.0))
    np.testing.assert_array_equal(
        read_photo(tmp_path / "weak" / "a.png").pixels, read_photo(tmp_path / "in" / "a.png").pixels
    )


def test_a_photo_is_translated_as_its_file_is(tmp_path, shift):
    source = tmp_path / "in" / "a.png"
    write_photo(Photo(noise(20, 24), alpha=noise(20, 24, seed=1)[..., 0]), source)
    options = TranslateOptions(strength=0.5)
    translate_folder(shift, source, tmp_path / "out.png", options)
    photo = read_photo(source)
    photo = complete(photo, shift.translate([prepare(photo, options)])[0], options)
    written = read_photo(tmp_path / "out.png")
    np.testing.assert_array_equal(photo.pixels, written.pixels)
    np.testing.assert_array_equal(photo.alpha, written.alpha)


def test_16_bits_are_kept(tmp_path, shift):
    write_photo(Photo(noise(20, 24).astype(np.uint16) * 257), tmp_path / "in" / "a.png")
    translate_folder(shift, tmp_path / "in", tmp_path / "out")
    assert read_photo(tmp_path / "out" / "a.png").pixels.dtype == np.uint16


def test_a_too_large_image_is_refused_and_the_rest_translated(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", size=(20, 24))
    fill(source, "b.png", size=(30, 40))
    outcome = translate_folder(shift, source, tmp_path / "out", TranslateOptions(max_pixels=1000))
    assert tree(tmp_path / "out") == {"a.png"}
    assert "30" in outcome.failures[0]
    assert "40" in outcome.failures[0]


def test_resume_skips_what_is_finished(tmp_path, shift):
    source, output = fill(tmp_path / "in", "a.png", "b.png", "c.png", "d.png"), tmp_path / "out"
    translate_folder(shift, source, output)
    (output / "b.png").unlink()
    for name in "ab":
        (output / f".{name}.png.0123abcd.part").write_text("killed here")
    os.utime(output / "c.png", (1000, 1000))  # older than its input
    (source / "e.png").write_text("broken")
    before = contents(output)
    stamp = (output / "a.png").stat().st_mtime_ns
    outcome = translate_folder(shift, source, output, RESUMED)
    assert sorted(outcome.written) == [output / "b.png", output / "c.png"]
    assert (outcome.finished, len(outcome.failures)) == (2, 1)
    assert contents(output).items() >= before.items()
    assert (output / "a.png").stat().st_mtime_ns == stamp
    assert sorted(os.listdir(output)) == ["a.png", "b.png", "c.png", "d.png"]
    # Without --resume, all are translated again.
    assert len(translate_folder(shift, source, output).written) == 4


def test_resume_among_the_inputs_is_refused(tmp_path, shift):
    source = fill(tmp_path / "in", "a.jpg")
    for how in ({"options": RESUMED}, {"share": (0, 2)}):
        with pytest.raises(DataError, match="would mistake outputs there for inputs; give another folder"):
            translate_folder(shift, source, source, **how)
    translate_folder(shift, source, source / "out", RESUMED)
    assert tree(source) == {"a.jpg", "out/a.png"}


def test_processes_share_a_folder_without_gaps_or_overlap(tmp_path, shift):
    source = fill(tmp_path / "in", *(f"{number}.png" for number in range(11)))
    written = []
    for number in range(3):
        options = RESUMED if number == 2 else TranslateOptions()
        written.append(translate_folder(shift, source, tmp_path / "out", options, (number, 3)).written)
    assert [len(part) for part in written] == [4, 4, 3]
    assert sorted(path for part in written for path in part) == find_images(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(source)
    # Finished images are skipped within each share; the shares do not change.
    (tmp_path / "out" / "0.png").unlink()
    again = [translate_folder(shift, source, tmp_path / "out", RESUMED, (n, 3)) for n in range(3)]
    assert [(len(outcome.written), outcome.finished) for outcome in again] == [(1, 3), (0, 4), (0, 3)]


def test_more_processes_than_images(tmp_path, shift):
    outcome = translate_folder(shift, fill(tmp_path / "in", "a.png"), tmp_path / "out", share=(1, 2))
    assert outcome.written == outcome.failures == []


def full_after(count, monkeypatch):
    """Fills the disk after `count` images have been written."""
    replace, written = os.replace, []

    def limited(*paths):
        if len(written) == count:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(paths)
        replace(*paths)

    monkeypatch.setattr(os, "replace", limited)


def test_a_full_disk_stops_the_work_and_is_reported_once(tmp_path, shift, monkeypatch, caplog):
    source = fill(tmp_path / "in", *(f"{number:03}.png" for number in range(200)))
    full_after(3, monkeypatch)
    outcome = translate_folder(shift, source, tmp_path / "out")
    assert len(outcome.written) == 3
    assert len(outcome.failures) == 1
    assert "No space left on device" in outcome.failures[0]
    assert outcome.untried == 196
    assert len(caplog.messages) == 2
    assert "stopped: the disk is full; 3 of 200 images translated" in caplog.messages[1]
    assert len(os.listdir(tmp_path / "out")) == 3  # no `.part` file either
    monkeypatch.undo()
    assert len(translate_folder(shift, source, tmp_path / "out", RESUMED).written) == 197


class Scarce(Shift):
    """A network that has memory for batches of `pixels` pixels."""

    def __init__(self, pixels, error):
        super().__init__()
        self.pixels, self.error = pixels, error

    def forward(self, x):
        if x[:, 0].numel() > self.pixels:
            raise self.error
        return super().forward(x)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you"),
    ],
)
def test_an_image_that_exceeds_the_memory_is_reported_and_the_rest_translated(tmp_path, error):
    source = fill(tmp_path / "in", "a.png", "b.png", "c.png")
    fill(source, "large.png", size=(64, 64))
    outcome = translate_folder(translator(Scarce(2 * 24 * 24, error)), source, tmp_path / "out")
    # Three together were too many, but not one by one.
    assert tree(tmp_path / "out") == {"a.png", "b.png", "c.png"}
    assert outcome.failures == [
        f"{source / 'large.png'}: not enough memory; give less --memory, or --scale 0.5"
    ]


@pytest.mark.parametrize("part", ["read_photo", "prepare", "complete", "write_photo"])
def test_running_out_of_memory_outside_the_network(tmp_path, shift, monkeypatch, part):
    real = getattr(folder, part)

    def scarce(*arguments):
        if any("b.png" in str(argument) or getattr(argument, "exif", None) == b"b" for argument in arguments):
            raise MemoryError
        return real(*arguments)

    def marked(path, largest):
        return Photo(read_image(path), exif=b"b" if path.name == "b.png" else None)

    monkeypatch.setattr(folder, "read_photo", marked)
    monkeypatch.setattr(folder, part, scarce)
    source = fill(tmp_path / "in", "a.png", "b.png", "c.png")
    outcome = translate_folder(shift, source, tmp_path / "out")
    assert len(outcome.written) == 2
    assert outcome.failures == [f"{source / 'b.png'}: not enough memory; give less --memory, or --scale 0.5"]


def test_what_the_translator_refuses_is_reported_by_name(tmp_path):
    refusal = DataError("90x90 pixels take about 2 GiB at once")
    source = fill(tmp_path / "in", "a.png")
    outcome = translate_folder(translator(Scarce(0, refusal)), source, tmp_path / "out")
    assert outcome.failures == [f"{source / 'a.png'}: 90x90 pixels take about 2 GiB at once"]


@pytest.mark.parametrize("part", ["read_photo", "prepare", "complete", "write_photo", "network"])
def test_an_unexpected_exception_fails_only_one_image(tmp_path, monkeypatch, caplog, part):
    broken = noise(20, 24, seed=1)

    def shows_it(thing):
        pixels = getattr(thing, "pixels", thing)
        if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8:
            return np.array_equal(pixels, broken)
        return str(thing).endswith("b.png")

    def stumbles(real):
        def work(*arguments):
            if any(map(shows_it, arguments)):
                raise ValueError("so\nit is")
            return real(*arguments)

        return work

    class Stumbling(Shift):
        def forward(self, x):
            if any(np.array_equal(to_image(to_uint8(one))[:20, :24], broken) for one in x):
                raise ValueError("so\nit is")
            return super().forward(x)

    if part != "network":
        monkeypatch.setattr(folder, part, stumbles(getattr(folder, part)))
    source = fill(tmp_path / "in", "a.png", "b.png", "c.png")
    made = translator(Stumbling() if part == "network" else Shift())
    with caplog.at_level(logging.DEBUG, "gan_nst"):
        outcome = translate_folder(made, source, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a.png", "c.png"}
    assert outcome.failures == [f"{source / 'b.png'}: could not be translated (ValueError: so it is)"]
    assert any(record.exc_info and record.levelno == logging.DEBUG for record in caplog.records)
    assert [t for t in threading.enumerate() if t.name.startswith(("reader", "writer"))] == []


def test_reading_and_writing_overlap_the_network(tmp_path, monkeypatch):
    """Each takes 20 ms per image: 60 sequentially, 20 in parallel."""
    real_read, real_write = folder.read_photo, folder.write_photo

    class Slow(Shift):
        def forward(self, x):
            time.sleep(0.02 * len(x))
            return super().forward(x)

    def slowly(real):
        def act(*arguments):
            time.sleep(0.02)
            return real(*arguments)

        return act

    monkeypatch.setattr(folder, "read_photo", slowly(real_read))
    monkeypatch.setattr(folder, "write_photo", slowly(real_write))
    monkeypatch.setattr("gan_nst.inference.folder._LARGEST_BATCH", 2)
    source = fill(tmp_path / "in", *(f"{number}.png" for number in range(40)), size=(8, 8))
    began = time.monotonic()
    translate_folder(translator(Slow()), source, tmp_path / "out")
    assert time.monotonic() - began < 0.75 * 40 * 0.06


@pytest.mark.parametrize("side", ["read", "written"])
def test_the_images_held_in_memory_are_bounded(tmp_path, monkeypatch, side):
    """With a slow network or a slow disk, the number of waiting bytes is bounded."""
    held, most, lock = set(), 0, threading.Lock()
    monkeypatch.setattr(folder, "_READ_AHEAD", 3 * 3000)
    monkeypatch.setattr(folder, "_WRITE_BEHIND", 3 * 6000)
    monkeypatch.setattr("gan_nst.inference.folder._BATCH_PIXELS", 1000)

    class Slow(Shift):
        def forward(self, x):
            time.sleep(0.003 if side == "read" else 0)
            return super().forward(x)

    def read(path, largest):
        nonlocal most
        with lock:
            held.add(path.name)
            most = max(most, len(held))
        return Photo(noise(25, 40))

    def write(photo, path, encoding):
        time.sleep(0.003 if side == "written" else 0)
        with lock:
            held.remove(path.name)

    monkeypatch.setattr(folder, "read_photo", read)
    monkeypatch.setattr(folder, "write_photo", write)
    source = tmp_path / "in"
    source.mkdir()
    for number in range(300):
        (source / f"{number}.png").touch()
    assert len(translate_folder(translator(Slow()), source, tmp_path / "out").written) == 300
    # Three wait to be translated and three to be written, and one of each is being processed.
    assert most <= 10


def test_images_of_one_size_are_translated_together(tmp_path):
    network = Blur(1)
    source = fill(tmp_path / "in", *(f"{name}.png" for name in "abcd"))
    translate_folder(translator(network), source, tmp_path / "out")
    assert network.seen == [(4, 3, 20, 24)]


def test_bad_inputs_are_reported_in_one_line_each(tmp_path, shift):
    source = fill(tmp_path / "in", "good.png", "folder.png/inside.png", "truncated.jpg", size=(60, 60))
    intact = (source / "truncated.jpg").read_bytes()
    (source / "truncated.jpg").write_bytes(intact[: len(intact) // 2])
    (source / "zero.png").touch()
    (source / "text.png").write_text("I am not an image.")
    (source / "a_png.jpg").write_bytes((source / "good.png").read_bytes())  # a PNG by its content
    (source / "broken_link.png").symlink_to(source / "none.png")
    outcome = translate_folder(shift, source, tmp_path / "out")
    assert tree(tmp_path / "out") == {"good.png", "folder.png/inside.png", "a_png.png"}
    assert len(outcome.failures) == 4
    for name in ("zero.png", "text.png", "truncated.jpg", "broken_link.png"):
        (line,) = (line for line in outcome.failures if str(source / name) in line)
        assert "\n" not in line


def test_an_input_without_read_permission(tmp_path, shift):
    source = fill(tmp_path / "in", "a.png", "b.png")
    (source / "b.png").chmod(0)
    with modes_hold():
        outcome = translate_folder(shift, source, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a.png"}
    assert "b.png: cannot be read" in outcome.failures[0]
