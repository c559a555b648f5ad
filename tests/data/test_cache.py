"""The cache decodes once, follows its files, survives interruptions and changes no pixel."""

import fcntl
import io
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile

import numpy as np
import pytest
from helpers_data import fill, folder_of, noise, rewrite_cache, tiny_settings, with_entries
from helpers_root import modes_hold

from gan_nst.core.errors import DataError
from gan_nst.data import cache
from gan_nst.data.cache import read_entries
from gan_nst.images.arrays import resize_image
from gan_nst.images.files import read_image, write_image


def open_images(files, settings, what):
    """The images of these files, and the files that are left."""
    images, folder = cache.open_images(folder_of(files), settings, what)
    assert folder.root == files[0].parent
    return images, list(folder.files)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files decoded, in order; clear it between openings."""
    names = []

    def counting(path):
        names.append(path.name)
        return read_image(path)

    monkeypatch.setattr(cache, "read_image", counting)
    return names


@pytest.fixture
def files(tmp_path):
    return fill(tmp_path / "images", 5)


@pytest.fixture
def settings(tmp_path):
    return tiny_settings(tmp_path)


def same(images, files, settings):
    """Whether these are those files' images at load size."""
    expected = [resize_image(read_image(f), settings.load_size, settings.resize) for f in files]
    assert len(images) == len(expected)
    for index, image in enumerate(expected):
        np.testing.assert_array_equal(images[index], image)
    return True


def touch(path, image):
    """Replaces an image, with a modification time that certainly differs."""
    before = path.stat().st_mtime_ns
    write_image(image, path)
    os.utime(path, ns=(before, before + 1_000_000))


def test_images_are_decoded_once(files, settings, decoded):
    images, good = open_images(files, settings, "a")
    assert images.cache is not None
    assert good == files
    assert sorted(decoded) == [file.name for file in files]
    decoded.clear()
    images, good = open_images(files, settings, "a")
    assert good == files
    assert same(images, files, settings)
    assert decoded == []


@pytest.mark.parametrize("resize", ["short_side", "squash", "none"])
def test_a_cache_changes_no_pixel(tmp_path, resize):
    files = fill(tmp_path / "p", 3, (12, 20)) + fill(tmp_path / "p", 2, (31, 15), first=3)
    with_cache = tiny_settings(tmp_path, resize=resize)
    without = with_cache.model_copy(update={"cache": "never"})
    cached, decoded = open_images(files, with_cache, "a")[0], open_images(files, without, "a")[0]
    assert cached.cache is not None
    assert decoded.cache is None
    assert same(cached, files, with_cache)
    assert same(decoded, files, with_cache)
    for index in range(len(files)):
        assert cached[index].dtype == decoded[index].dtype == np.uint8


def test_never_writes_nothing_and_a_folder_may_be_named(tmp_path, files):
    open_images(files, tiny_settings(tmp_path, cache="never"), "a")
    assert os.listdir(tmp_path) == ["images"]
    open_images(files, tiny_settings(tmp_path, cache=str(tmp_path / "deep" / "cache")), "a")
    assert sorted(os.listdir(tmp_path)) == ["deep", "images"]
    assert any((tmp_path / "deep" / "cache").iterdir())


def test_only_a_changed_file_is_decoded_again(files, settings, decoded):
    open_images(files, settings, "a")
    decoded.clear()
    touch(files[2], noise(12, 14, 99))
    images, _ = open_images(files, settings, "a")
    assert decoded == [files[2].name]
    assert same(images, files, settings)


def test_a_change_of_only_the_time_is_noticed(files, settings, decoded):
    open_images(files, settings, "a")
    decoded.clear()
    stamp = files[1].stat()
    os.utime(files[1], ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    open_images(files, settings, "a")
    assert decoded == [files[1].name]


def test_added_and_removed_files_are_noticed(tmp_path, files, settings, decoded):
    open_images(files, settings, "a")
    decoded.clear()
    more = fill(tmp_path / "images", 2, (20, 13), first=5)
    images, _ = open_images(files + more, settings, "a")
    assert sorted(decoded) == [file.name for file in more]
    assert same(images, files + more, settings)
    decoded.clear()
    files[0].unlink()
    images, _ = open_images(files[1:] + more, settings, "a")
    assert decoded == []
    assert same(images, files[1:] + more, settings)


def test_runs_that_hold_out_different_images_do_not_evict_each_other(files, settings, decoded):
    one, other = files[:3], files[2:]
    for _ in range(2):
        for held_out in (one, other):
            assert same(open_images(held_out, settings, "validation")[0], held_out, settings)
    assert sorted(decoded) == [file.name for file in files]


def test_open_images_do_not_change_while_the_cache_is_rebuilt(files, settings):
    images, _ = open_images(files, settings, "a")
    before = [images[index] for index in range(len(files))]
    touch(files[0], noise(40, 12, 7))
    open_images(files, settings, "a")
    for index, image in enumerate(before):
        np.testing.assert_array_equal(images[index], image)


def test_another_size_has_its_own_cache(tmp_path, files, settings, decoded):
    open_images(files, settings, "a")
    larger = tiny_settings(tmp_path, load_size=11)
    assert same(open_images(files, larger, "a")[0], files, larger)
    assert len(decoded) == 10
    assert same(open_images(files, settings, "a")[0], files, settings)
    assert same(open_images(files, tiny_settings(tmp_path, crop_size=9), "a")[0], files, settings)
    assert len(decoded) == 10


def data_file(tmp_path):
    (path,) = (tmp_path / ".cache").glob("*.bin")
    return path


def test_a_truncated_data_file_is_rebuilt(tmp_path, files, settings, decoded):
    open_images(files, settings, "a")
    decoded.clear()
    path = data_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert same(open_images(files, settings, "a")[0], files, settings)
    assert len(decoded) == len(files)


@pytest.mark.parametrize("content", ["", "{", "PK", "PK\5\6" + "\0" * 18])
def test_a_file_that_is_not_a_cache_is_rebuilt(tmp_path, files, settings, decoded, caplog, content):
    open_images(files, settings, "a")
    decoded.clear()
    data_file(tmp_path).write_text(content)
    assert same(open_images(files, settings, "a")[0], files, settings)
    assert len(decoded) == len(files)
    assert "not a cache, or damaged" in caplog.text


def test_a_removed_cache_is_rebuilt(tmp_path, files, settings):
    open_images(files, settings, "a")
    data_file(tmp_path).unlink()
    assert same(open_images(files, settings, "a")[0], files, settings)


@pytest.mark.parametrize("fault", ["fsync", "replace", "decode"])
def test_an_interrupted_build_corrupts_nothing(tmp_path, files, settings, monkeypatch, fault):
    old, _ = open_images(files[:3], settings, "a")

    def cut(*arguments):
        raise KeyboardInterrupt

    if fault == "decode":
        monkeypatch.setattr(cache, "read_image", cut)
    else:
        monkeypatch.setattr(cache.os, fault, cut)
    with pytest.raises(KeyboardInterrupt):
        open_images(files, settings, "a")
    monkeypatch.undo()
    assert not list((tmp_path / ".cache").glob("*.part"))
    assert same(old, files[:3], settings)
    assert same(open_images(files, settings, "a")[0], files, settings)


@pytest.mark.parametrize("before", [0, 2])
def test_an_interrupted_build_resumes_where_it_was(files, settings, monkeypatch, decoded, before):
    if before:
        open_images(files[:before], settings, "a")
    monkeypatch.setattr(cache, "cpus", lambda: 1)
    count_and_read = cache.read_image

    def interrupted(path):
        if path == files[3]:
            raise KeyboardInterrupt
        return count_and_read(path)

    monkeypatch.setattr(cache, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_images(files, settings, "a")
    monkeypatch.setattr(cache, "read_image", count_and_read)
    decoded.clear()
    assert same(open_images(files, settings, "a")[0], files, settings)
    assert sorted(decoded) == ["003.png", "004.png"]


def test_a_build_interrupted_while_copying_keeps_the_old_cache(tmp_path, files, settings, monkeypatch):
    open_images(files[:3], settings, "a")
    before = data_file(tmp_path).read_bytes()
    real = cache.Images.__getitem__

    def interrupted(images, index):
        if index == 2:
            raise KeyboardInterrupt
        return real(images, index)

    monkeypatch.setattr(cache.Images, "__getitem__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_images(files, settings, "a")
    assert data_file(tmp_path).read_bytes() == before


@pytest.mark.parametrize("how", ["auto", "never"])
def test_broken_files_are_listed_or_skipped(tmp_path, files, caplog, how):
    files[1].write_bytes(b"")
    files[3].write_bytes(files[3].read_bytes()[:60])
    settings = tiny_settings(tmp_path, cache=how)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError) as caught:
            open_images(files, settings, "domain a")
        message = str(caught.value)
        assert message.startswith(
            "domain a: 2 of 5 images cannot be used (data.skip_broken=true skips them): "
        )
        assert all(str(file) in message for file in (files[1], files[3]))
        assert "\n" not in message
        intact = [files[0], files[2], files[4]]
        caplog.clear()
        images, good = open_images(files, tiny_settings(tmp_path, cache=how, skip_broken=True), "domain a")
        assert good == intact
        assert same(images, intact, settings)
        assert len([m for m in caplog.messages if m.startswith("skipped: ")]) == 2


def test_of_many_broken_files_some_are_listed(tmp_path):
    files = fill(tmp_path / "p", 14)
    for file in files[1:]:
        file.write_text("no image")
    with pytest.raises(DataError, match=r"13 of 14 .*; and 3 more$"):
        open_images(files, tiny_settings(tmp_path), "a")


@pytest.mark.parametrize("how", ["auto", "never"])
def test_no_usable_image_is_an_error(tmp_path, files, how):
    for file in files:
        file.write_text("no image")
    for _ in range(2):
        with pytest.raises(DataError, match="domain a: no usable images among 5"):
            open_images(files, tiny_settings(tmp_path, cache=how, skip_broken=True), "domain a")


@pytest.mark.parametrize("how", ["auto", "never"])
def test_a_repaired_file_is_used(tmp_path, files, how):
    settings = tiny_settings(tmp_path, cache=how)
    files[1].write_bytes(b"")
    with pytest.raises(DataError):
        open_images(files, settings, "a")
    write_image(noise(12, 14, 50), files[1])
    assert same(open_images(files, settings, "a")[0], files, settings)


@pytest.mark.parametrize("how", ["auto", "never"])
def test_images_smaller_than_the_crop_are_refused_unless_upscaling_is_allowed(tmp_path, files, how):
    write_image(noise(7, 30), files[2])
    settings = tiny_settings(tmp_path, cache=how)
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"002\.png: 7 pixels are smaller than data\.crop_size=8 \(data\.upscale"
        ):
            open_images(files, settings, "a")
    allowed = tiny_settings(tmp_path, cache=how, upscale=True)
    assert same(open_images(files, allowed, "a")[0], files, allowed)
    unresized = tiny_settings(tmp_path, cache=how, upscale=True, resize="none")
    with pytest.raises(DataError, match="7 pixels"):
        open_images(files, unresized, "a")


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("how", ["auto", "folder"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_full_disk_is_reported_and_the_space_given_back(
    tmp_path, files, monkeypatch, caplog, call, how, before
):
    folder = tmp_path / ".cache"
    settings = tiny_settings(tmp_path, cache="auto" if how == "auto" else str(folder))
    if before:
        open_images(files[:before], settings, "a")
    there = {path.name: path.read_bytes() for path in folder.glob("*") if path.suffix != ".lock"}
    failed = []
    remedy = "free space on that disk (old runs or datasets/.cache, for example)"

    def fill_up():
        if not failed:  # what is given back is room again
            failed.append(True)
            raise OSError(28, "No space left on device")

    class FullFile(io.FileIO):
        def write(self, content):
            fill_up()
            return super().write(content)

    if call == "write":
        monkeypatch.setattr(cache, "open", FullFile, raising=False)
    else:
        real = getattr(os, call)
        monkeypatch.setattr(os, call, lambda *arguments: fill_up() or real(*arguments))
    if how == "auto":
        images, good = open_images(files, settings, "a")
        assert images.cache is None
        assert good == files
        message = f"(No space left on device); {remedy}; images are decoded at every access"
        assert any(f"{folder}: the cache cannot be written {message}" in m for m in caplog.messages)
    else:
        message = re.escape(f"(No space left on device); {remedy}, or use data.cache=never")
        with pytest.raises(DataError, match=message):
            open_images(files, settings, "a")
    monkeypatch.undo()
    assert failed
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"} == there
    assert same(open_images(files, settings, "a")[0], files, settings)


@pytest.mark.parametrize("before", [0, 3])
def test_auto_decodes_on_the_fly_where_the_disk_is_nearly_full(
    tmp_path, files, settings, monkeypatch, caplog, before
):
    if before:  # the new file is as large as both together
        open_images(files[:before], settings, "a")
    there = [path.read_bytes() for path in (tmp_path / ".cache").glob("*.bin")]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    images, _ = open_images(files, settings, "a")
    assert images.cache is None
    assert same(images, files, settings)
    assert any("not enough free disk to cache 5 images" in message for message in caplog.messages)
    assert [path.read_bytes() for path in (tmp_path / ".cache").glob("*.bin")] == there


def test_auto_decodes_on_the_fly_without_permission_to_write(tmp_path, files, settings, caplog):
    tmp_path.chmod(0o555)
    with modes_hold():
        images, _ = open_images(files, settings, "a")
    tmp_path.chmod(0o755)
    assert images.cache is None
    assert same(images, files, settings)
    assert "the cache cannot be written (Permission denied); make it writable" in caplog.text


def test_two_processes_may_build_one_cache_at_once(tmp_path, settings, decoded):
    files = fill(tmp_path / "images", 60, (64, 64))
    program = textwrap.dedent(f"""
        import sys, time, pathlib
        from gan_nst.data.cache import open_images
        from gan_nst.data.domains import DataSettings, all_images
        root = pathlib.Path({str(tmp_path)!r})
        settings = DataSettings(root=root, load_size=10, crop_size=8)
        (root / sys.argv[1]).touch()
        while len(list(root.glob("ready-*"))) < 2:
            time.sleep(0.001)
        images, good = open_images(all_images(root / "images"), settings, "a")
        print(len(good.files), sum(int(images[index].sum()) for index in range(len(images))))
    """)
    running = [
        subprocess.Popen([sys.executable, "-c", program, f"ready-{n}"], stdout=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    images, _ = open_images(files, settings, "a")
    assert decoded == []
    assert same(images, files, settings)
    total = sum(int(images[index].sum()) for index in range(60))
    assert outputs == [f"60 {total}\n"] * 2


def test_cached_images_can_be_sent_to_another_process(tmp_path):
    files, settings = fill(tmp_path / "images", 4, (60, 70)), tiny_settings(tmp_path, load_size=50)
    images, _ = open_images(files[:3], settings, "a")
    packed = pickle.dumps(images)
    # It opens the file there, rather than carry the images.
    assert len(packed) < 0.1 * sum(images[index].nbytes for index in range(3))
    assert same(pickle.loads(packed), files[:3], settings)
    open_images(files, settings, "a")  # what another run adds changes nothing
    assert same(pickle.loads(packed), files[:3], settings)
    data_file(tmp_path).unlink()
    assert same(images, files[:3], settings)
    assert same(pickle.loads(packed), files[:3], settings)  # decoded


def test_changing_an_image_changes_nothing_in_the_cache(files, settings):
    images, _ = open_images(files, settings, "a")
    images[0][:] = 0
    assert same(images, files, settings)


def test_a_broken_file_does_not_rebuild_the_cache(tmp_path, files, settings, decoded):
    original = files[0].read_bytes()
    files[0].write_bytes(b"no image")
    lenient = settings.model_copy(update={"skip_broken": True})
    built = []
    for _ in range(2):
        assert len(open_images(files, lenient, "a")[0]) == len(files) - 1
        built.append(data_file(tmp_path).stat())
    assert built[0] == built[1]
    assert len(decoded) == len(files) + 1  # the broken one is tried again
    files[0].write_bytes(original)
    assert same(open_images(files, settings, "a")[0], files, settings)


def test_a_reader_of_a_rebuilt_cache_never_sees_other_images(files, settings):
    reader = open_images(files[1:], settings, "a")[0]
    expected, sent = [reader[index] for index in range(4)], pickle.dumps(reader)
    for file in files[1:3]:
        touch(file, noise(30, 20, 9))
    open_images(files, settings, "a")
    assert all(np.array_equal(reader[index], expected[index]) for index in range(4))
    late = pickle.loads(sent)  # a loader process that starts later has only the new cache
    assert all(np.array_equal(late[index], expected[index]) for index in (2, 3))
    for index in (0, 1):
        with pytest.raises(DataError, match="changed since this training began"):
            late[index]


@pytest.mark.parametrize("how", ["auto", "never"])
def test_an_image_knows_its_file(tmp_path, files, how):
    files[1].write_bytes(b"")
    settings = tiny_settings(tmp_path, cache=how, skip_broken=True)
    images, good = open_images(files, settings, "a")
    for one in (images, pickle.loads(pickle.dumps(images))):
        assert [one.file(index) for index in range(len(one))] == good


def killed_after(images, files, settings):
    """Leaves the files that a process leaves when it is killed while decoding."""
    process = os.fork()
    if process == 0:
        try:
            left, read = [images], cache.read_image

            def deadly(path):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return read(path)

            cache.read_image, cache.cpus = deadly, lambda: 1
            open_images(files, settings, "a")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("before", [0, 2])
def test_a_killed_build_leaves_nothing_after_the_next_start(tmp_path, files, settings, decoded, before):
    def left():
        return {path.name: path.read_bytes() for path in (tmp_path / ".cache").glob("*")}

    if before:
        open_images(files[:before], settings, "a")
    original = left()
    killed_after(2, files, settings)
    decoded.clear()
    if before:  # nothing needs decoding
        assert same(open_images(files[:before], settings, "a")[0], files[:before], settings)
        assert left() == original
    assert same(open_images(files, settings, "a")[0], files, settings)
    assert len(decoded) == 5 - before
    assert sorted(path.suffix for path in (tmp_path / ".cache").iterdir()) == [".bin", ".lock"]


def test_leftovers_of_a_killed_build_are_removed_even_when_nothing_is_built(tmp_path, files, settings):
    open_images(files, settings, "a")
    path = data_file(tmp_path)
    stray, other = (path.with_name(f".{name}.0123abcd.part") for name in (path.name, "another.bin"))
    stray.write_bytes(b"x")
    other.write_bytes(b"of another cache")
    open_images(files, settings, "a")
    assert not stray.exists()
    assert other.exists()


def test_a_cache_does_not_grow_with_its_changes(tmp_path, files, settings):
    images, _ = open_images(files, settings, "a")
    size, expected = data_file(tmp_path).stat().st_size, images[4]
    for number in range(8):
        touch(files[number % 5], noise(12, 14, 70 + number))
        assert same(open_images(files, settings, "a")[0], files, settings)
        assert data_file(tmp_path).stat().st_size == size
    np.testing.assert_array_equal(images[4], expected)


def test_damaged_pixels_are_not_copied_into_a_new_cache(tmp_path, files, settings, caplog):
    open_images(files, settings, "a")
    content = bytearray(data_file(tmp_path).read_bytes())
    content[400] ^= 4
    data_file(tmp_path).write_bytes(content)
    touch(files[4], noise(12, 14, 99))
    images, _ = open_images(files, settings, "a")
    assert same(images, files, settings)
    assert not caplog.messages


def test_pixels_may_look_like_the_end_of_an_archive(tmp_path, caplog):
    """Which Python's zipfile looks for when it appends to a file."""
    settings = tiny_settings(tmp_path, resize="none")
    files = fill(tmp_path / "images", 2)
    image = noise(12, 14)
    image.reshape(-1)[-22:] = np.frombuffer(b"PK\5\6" + bytes(18), np.uint8)
    write_image(image, files[1])
    for _ in range(2):
        assert same(open_images(files, settings, "a")[0], files, settings)
    assert not caplog.messages


def test_damaged_pixels_are_never_returned(tmp_path, files, settings, caplog):
    images, _ = open_images(files, settings, "a")
    path = data_file(tmp_path)
    content = bytearray(path.read_bytes())
    for place in (400, 500, 5 * 10 * 12 * 3 - 1):  # two in the second image, one in the last
        content[place] ^= 4
    path.write_bytes(content)
    assert same(images, files, settings)
    assert same(open_images(files, settings, "a")[0], files, settings)
    assert (
        len(
            [
                m
                for m in caplog.messages
                if "damaged, or rebuilt by another run (found at" in m and "001.png)" in m
            ]
        )
        == 2
    )
    files[1].unlink()
    with pytest.raises(DataError, match=r"001\.png: vanished since this training began"):
        images[1]


def test_a_data_file_truncated_while_it_is_read_does_no_harm(tmp_path, files, settings):
    images, _ = open_images(files, settings, "a")
    os.truncate(data_file(tmp_path), 100)
    assert same(images, files, settings)


@pytest.mark.parametrize("change", ["vanish", "pixels", "broken", "time"])
def test_a_file_that_changes_during_training_is_an_error_or_does_no_harm(files, settings, change):
    cached, _ = open_images(files, settings, "a")
    decoded, _ = open_images(files, settings.model_copy(update={"cache": "never"}), "a")
    before = cached[2]
    if change == "vanish":
        files[2].unlink()
    elif change == "pixels":
        touch(files[2], noise(12, 14, 99))
    elif change == "broken":
        files[2].write_bytes(b"no image")
    else:
        os.utime(files[2], ns=(5, 5))
    what = "vanished" if change == "vanish" else "changed"
    message = rf"002\.png: {what} since this training began; restore it"
    with pytest.raises(DataError, match=message) as caught:
        decoded[2]
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(cached[2], before)
    np.testing.assert_array_equal(decoded[1], cached[1])


def test_waiting_for_another_process_is_reported(files, settings, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(cache, "_PATIENCE", 0.01)
    open_images(files, settings, "the cartoons")
    (path,) = (tmp_path / ".cache").glob("*.lock")
    lock = os.open(path, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    timer = threading.Timer(0.3, os.close, [lock])
    timer.start()
    with caplog.at_level(logging.INFO, "gan_nst"):
        assert same(open_images(files, settings, "the cartoons")[0], files, settings)
    timer.join()
    assert any("waiting for another process that is preparing the cartoons" in m for m in caplog.messages)


def test_a_file_system_without_locks_is_reported(tmp_path, files, settings, monkeypatch, caplog):
    def unable(*arguments, **options):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(cache.FileLock, "acquire", unable)
    assert open_images(files, settings, "a")[0].cache is None
    assert any("cannot be written (no" in message.lower() for message in caplog.messages)
    named = settings.model_copy(update={"cache": str(tmp_path / "c")})
    with pytest.raises(DataError, match=r"cannot be written \([Nn]o .*data\.cache=never"):
        open_images(files, named, "a")


FALSE = {
    "beyond the data": {"offset": 10**15},
    "before the data": {"offset": -1},
    "another image's data": {"offset": 0},
    "a huge image": {"height": 2**31 - 1},
    "more than a number holds": {"height": 2**62, "width": 2**62},
    "a negative image": {"width": -3},
    "an image that is negative twice": {"width": -3, "height": -3},
    "no height": {"height": 0},
    "no width": {"width": 0},
    "a negative side before": {"side": -5},
    "no side before": {"side": 0},
}


@pytest.mark.parametrize("what", FALSE)
def test_a_false_entry_is_not_believed(tmp_path, files, settings, caplog, what):
    open_images(files, settings, "a")
    rewrite_cache(data_file(tmp_path), with_entries(1, **FALSE[what]))
    assert same(open_images(files, settings, "a")[0], files, settings)
    assert re.search(r"damaged(, or rebuilt by another run)? \(", caplog.text)


@pytest.mark.parametrize(
    "change",
    [
        {"entries": b""},
        {"entries": b"x"},
        {"entries": np.ones((5, 6), np.int64).tobytes()},
        {"entries": np.ones((4, 7), np.int64).tobytes()},
        {"paths": b""},
        {"paths": b"000.png\0001.png"},
    ],
)
def test_a_cache_of_another_form_is_not_believed(tmp_path, files, settings, caplog, change):
    open_images(files, settings, "a")
    rewrite_cache(data_file(tmp_path), lambda members: {**members, **change})
    assert not read_entries(data_file(tmp_path))
    assert "not a cache, or damaged" in caplog.text
    rewrite_cache(data_file(tmp_path), lambda members: {"other": b""})
    assert not read_entries(data_file(tmp_path))


def test_data_behind_a_link_is_not_written_to(tmp_path, files, settings):
    open_images(files[:3], settings, "a")
    path, outside = data_file(tmp_path), tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    original = outside.read_bytes()
    assert same(open_images(files, settings, "a")[0], files, settings)
    assert outside.read_bytes() == original


@pytest.mark.parametrize(("make", "cached"), [(os.mkfifo, True), (os.mkdir, False)])
def test_a_cache_that_is_not_a_file_blocks_nobody(tmp_path, files, settings, make, cached):
    open_images(files, settings, "a")
    path = data_file(tmp_path)
    path.unlink()
    make(path)
    images, _ = open_images(files, settings, "a")
    assert (images.cache is not None) == cached
    assert same(images, files, settings)


def test_damaged_entries_change_no_pixel(tmp_path, files, settings):
    open_images(files, settings, "a")
    path = data_file(tmp_path)
    written = read_entries(path)
    assert len(written) == 5
    original = path.read_bytes()
    for place in range(5 * 10 * 12 * 3, len(original), 3):
        path.write_bytes(original[:place] + bytes([original[place] ^ 1 << place % 8]) + original[place + 1 :])
        assert read_entries(path) in ({}, written), place
        path.write_bytes(original[:place])
        assert not read_entries(path), place


def test_a_cache_of_many_gigabytes_is_read(tmp_path):
    path = tmp_path / "large.bin"
    with open(path, "w+b") as file:
        file.truncate(5 * 2**30)  # a hole, which takes no room
        file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("paths", b"1.png")
            archive.writestr("entries", np.arange(1, 8).tobytes())
    assert read_entries(path) == {"1.png": tuple(range(1, 8))}
