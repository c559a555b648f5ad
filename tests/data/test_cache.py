"""The cache: decodes once, follows its files, survives what interrupts it, and changes no pixel."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from helpers_data import fill, noise, tiny_settings

from gan_nst.data import cache
from gan_nst.data.cache import CachedPictures, DecodedPictures
from gan_nst.data.folders import Folder
from gan_nst.errors import DataError
from gan_nst.images import read_picture, resize_picture, write_picture


def open_pictures(files, settings, what):
    """The pictures of these files, and the files that are left."""
    pictures, folder = cache.open_pictures(Folder(files[0].parent, tuple(files)), settings, what)
    assert folder.root == files[0].parent
    return pictures, list(folder.files)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files decoded, in order; clear it between openings."""
    names = []

    def counting(path):
        names.append(path.name)
        return read_picture(path)

    monkeypatch.setattr(cache, "read_picture", counting)
    return names


@pytest.fixture
def files(tmp_path):
    return fill(tmp_path / "pictures", 5)


@pytest.fixture
def settings(tmp_path):
    return tiny_settings(tmp_path)


def same(pictures, files, settings):
    """Whether these are those files' pictures at load size."""
    expected = [resize_picture(read_picture(f), settings.load_size, settings.resize) for f in files]
    assert len(pictures) == len(expected)
    for index, picture in enumerate(expected):
        np.testing.assert_array_equal(pictures[index], picture)
    return True


def touch(path, picture):
    """Replaces a picture, surely with another time than before."""
    before = path.stat().st_mtime_ns
    write_picture(picture, path)
    os.utime(path, ns=(before, before + 1_000_000))


def test_pictures_are_decoded_once(files, settings, decoded):
    pictures, good = open_pictures(files, settings, "a")
    assert isinstance(pictures, CachedPictures)
    assert good == files
    assert decoded == [file.name for file in files]
    decoded.clear()
    pictures, good = open_pictures(files, settings, "a")
    assert good == files
    assert same(pictures, files, settings)
    assert decoded == []


@pytest.mark.parametrize("resize", ["short_side", "squash", "none"])
def test_a_cache_changes_no_pixel(tmp_path, resize):
    files = fill(tmp_path / "p", 3, (12, 20)) + fill(tmp_path / "p", 2, (31, 15), first=3)
    with_cache = tiny_settings(tmp_path, resize=resize)
    without = with_cache.model_copy(update={"cache": "never"})
    cached, decoded = open_pictures(files, with_cache, "a")[0], open_pictures(files, without, "a")[0]
    assert isinstance(cached, CachedPictures)
    assert isinstance(decoded, DecodedPictures)
    assert same(cached, files, with_cache)
    assert same(decoded, files, with_cache)
    for index in range(len(files)):
        assert cached[index].dtype == decoded[index].dtype == np.uint8


def test_never_writes_nothing_and_a_folder_may_be_named(tmp_path, files):
    open_pictures(files, tiny_settings(tmp_path, cache="never"), "a")
    assert os.listdir(tmp_path) == ["pictures"]
    open_pictures(files, tiny_settings(tmp_path, cache=str(tmp_path / "deep" / "cache")), "a")
    assert sorted(os.listdir(tmp_path)) == ["deep", "pictures"]
    assert any((tmp_path / "deep" / "cache").iterdir())


def test_a_changed_file_alone_is_decoded_anew(files, settings, decoded):
    open_pictures(files, settings, "a")
    decoded.clear()
    touch(files[2], noise(12, 14, 99))
    pictures, _ = open_pictures(files, settings, "a")
    assert decoded == [files[2].name]
    assert same(pictures, files, settings)


def test_a_change_of_the_time_alone_is_noticed(files, settings, decoded):
    open_pictures(files, settings, "a")
    decoded.clear()
    stamp = files[1].stat()
    os.utime(files[1], ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    open_pictures(files, settings, "a")
    assert decoded == [files[1].name]


def test_added_and_removed_files_are_noticed(tmp_path, files, settings, decoded):
    open_pictures(files, settings, "a")
    decoded.clear()
    more = fill(tmp_path / "pictures", 2, (20, 13), first=5)
    pictures, _ = open_pictures(files + more, settings, "a")
    assert decoded == [file.name for file in more]
    assert same(pictures, files + more, settings)
    decoded.clear()
    files[0].unlink()
    pictures, _ = open_pictures(files[1:] + more, settings, "a")
    assert decoded == []
    assert same(pictures, files[1:] + more, settings)


def test_two_splits_of_one_folder_share_it_without_driving_each_other_out(files, settings, decoded):
    one, other = files[:3], files[3:]
    for _ in range(2):
        first, _ = open_pictures(one, settings, "training")
        second, _ = open_pictures(other, settings, "validation")
        assert same(first, one, settings)
        assert same(second, other, settings)
    assert sorted(decoded) == [file.name for file in files]


def test_pictures_open_while_the_cache_is_rebuilt_stay_as_they_were(files, settings):
    pictures, _ = open_pictures(files, settings, "a")
    before = [pictures[index] for index in range(len(files))]
    touch(files[0], noise(40, 12, 7))
    open_pictures(files, settings, "a")
    for index, picture in enumerate(before):
        np.testing.assert_array_equal(pictures[index], picture)


def test_other_sizes_are_another_cache(tmp_path, files, settings, decoded):
    open_pictures(files, settings, "a")
    larger = tiny_settings(tmp_path, load_size=11)
    assert same(open_pictures(files, larger, "a")[0], files, larger)
    assert len(decoded) == 10
    assert same(open_pictures(files, settings, "a")[0], files, settings)
    assert same(open_pictures(files, tiny_settings(tmp_path, crop_size=9), "a")[0], files, settings)
    assert len(decoded) == 10


def data_file(tmp_path):
    (path,) = (tmp_path / ".cache").glob("*.bin")
    return path


def test_a_truncated_data_file_is_rebuilt(tmp_path, files, settings, decoded):
    open_pictures(files, settings, "a")
    decoded.clear()
    path = data_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert same(open_pictures(files, settings, "a")[0], files, settings)
    assert len(decoded) == len(files)


@pytest.mark.parametrize("content", ["", "{", "[[1, 2]]", '{"a": 1}', "[1]", "null", "[]"])
def test_a_spoilt_index_is_rebuilt(tmp_path, files, settings, decoded, content):
    open_pictures(files, settings, "a")
    decoded.clear()
    (index,) = (tmp_path / ".cache").glob("*.json")
    index.write_text(content)
    assert same(open_pictures(files, settings, "a")[0], files, settings)
    assert len(decoded) == len(files)


@pytest.mark.parametrize("lost", ["*.bin", "*.json"])
def test_a_lost_part_is_rebuilt(tmp_path, files, settings, lost):
    open_pictures(files, settings, "a")
    (part,) = (tmp_path / ".cache").glob(lost)
    part.unlink()
    assert same(open_pictures(files, settings, "a")[0], files, settings)


@pytest.mark.parametrize("fault", ["fsync", "replace", "decode"])
def test_a_build_that_is_cut_short_spoils_nothing(tmp_path, files, settings, monkeypatch, fault):
    old, _ = open_pictures(files[:3], settings, "a")

    def cut(*arguments):
        raise KeyboardInterrupt

    if fault == "decode":
        monkeypatch.setattr(cache, "read_picture", cut)
    else:
        monkeypatch.setattr(cache.os, fault, cut)
    with pytest.raises(KeyboardInterrupt):
        open_pictures(files, settings, "a")
    monkeypatch.undo()
    assert not list((tmp_path / ".cache").glob("*.part"))
    assert same(old, files[:3], settings)
    assert same(open_pictures(files, settings, "a")[0], files, settings)


@pytest.mark.parametrize("how", ["auto", "never"])
def test_broken_files_are_listed_or_left_out(tmp_path, files, caplog, how):
    files[1].write_bytes(b"")
    files[3].write_bytes(files[3].read_bytes()[:60])
    settings = tiny_settings(tmp_path, cache=how)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError) as caught:
            open_pictures(files, settings, "domain a")
        message = str(caught.value)
        assert message.startswith(
            "domain a: 2 of 5 pictures cannot be used (data.skip_broken=true leaves them out): "
        )
        assert all(str(file) in message for file in (files[1], files[3]))
        assert "\n" not in message
        whole = [files[0], files[2], files[4]]
        caplog.clear()
        pictures, good = open_pictures(
            files, tiny_settings(tmp_path, cache=how, skip_broken=True), "domain a"
        )
        assert good == whole
        assert same(pictures, whole, settings)
        assert len([m for m in caplog.messages if m.startswith("left out: ")]) == 2


def test_of_many_broken_files_some_are_listed(tmp_path):
    files = fill(tmp_path / "p", 14)
    for file in files[1:]:
        file.write_text("no picture")
    with pytest.raises(DataError, match=r"13 of 14 .*; and 3 more$"):
        open_pictures(files, tiny_settings(tmp_path), "a")


@pytest.mark.parametrize("how", ["auto", "never"])
def test_no_usable_picture_is_told(tmp_path, files, how):
    for file in files:
        file.write_text("no picture")
    for _ in range(2):
        with pytest.raises(DataError, match="domain a: no usable pictures among 5"):
            open_pictures(files, tiny_settings(tmp_path, cache=how, skip_broken=True), "domain a")


@pytest.mark.parametrize("how", ["auto", "never"])
def test_a_repaired_file_is_taken(tmp_path, files, how):
    settings = tiny_settings(tmp_path, cache=how)
    files[1].write_bytes(b"")
    with pytest.raises(DataError):
        open_pictures(files, settings, "a")
    write_picture(noise(12, 14, 50), files[1])
    assert same(open_pictures(files, settings, "a")[0], files, settings)


@pytest.mark.parametrize("how", ["auto", "never"])
def test_pictures_smaller_than_the_crop_are_refused_unless_enlarging_is_allowed(tmp_path, files, how):
    write_picture(noise(7, 30), files[2])
    settings = tiny_settings(tmp_path, cache=how)
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"002\.png: 7 pixels are smaller than data\.crop_size=8 \(data\.upscale"
        ):
            open_pictures(files, settings, "a")
    allowed = tiny_settings(tmp_path, cache=how, upscale=True)
    assert same(open_pictures(files, allowed, "a")[0], files, allowed)
    unresized = tiny_settings(tmp_path, cache=how, upscale=True, resize="none")
    with pytest.raises(DataError, match="7 pixels"):
        open_pictures(files, unresized, "a")


def test_a_full_disk_is_told_with_what_to_do(tmp_path, files, settings, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left on device; free space, or use data\.cache=never"):
        open_pictures(files, settings, "a")
    assert not list((tmp_path / ".cache").glob("*.part"))


def test_auto_decodes_on_the_fly_where_the_disk_is_nearly_full(
    tmp_path, files, settings, monkeypatch, caplog
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    pictures, _ = open_pictures(files, settings, "a")
    assert isinstance(pictures, DecodedPictures)
    assert same(pictures, files, settings)
    assert any("not enough free disk" in message for message in caplog.messages)
    assert not (tmp_path / ".cache").exists()


def test_auto_decodes_on_the_fly_where_it_may_not_write(files, settings, monkeypatch, caplog):
    monkeypatch.setattr(cache.os, "access", lambda path, mode: False)
    assert isinstance(open_pictures(files, settings, "a")[0], DecodedPictures)
    assert any("not writable" in message for message in caplog.messages)


def test_two_processes_may_build_it_at_once(tmp_path, settings, decoded):
    files = fill(tmp_path / "pictures", 60, (64, 64))
    program = textwrap.dedent(f"""
        import sys, time, pathlib
        from gan_nst.data.cache import open_pictures
        from gan_nst.data.folders import Folder
        from gan_nst.data.settings import DataSettings
        from gan_nst.images import find_pictures
        root = pathlib.Path({str(tmp_path)!r})
        settings = DataSettings(root=root, load_size=10, crop_size=8)
        (root / sys.argv[1]).touch()
        while len(list(root.glob("ready-*"))) < 2:
            time.sleep(0.001)
        folder = Folder(root, tuple(find_pictures(root / "pictures")))
        pictures, good = open_pictures(folder, settings, "a")
        print(len(good.files), sum(int(pictures[index].sum()) for index in range(len(pictures))))
    """)
    running = [
        subprocess.Popen([sys.executable, "-c", program, f"ready-{n}"], stdout=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    pictures, _ = open_pictures(files, settings, "a")
    assert decoded == []
    assert same(pictures, files, settings)
    total = sum(int(pictures[index].sum()) for index in range(60))
    assert outputs == [f"60 {total}\n"] * 2


def test_cached_pictures_can_be_sent_to_another_process(files, settings):
    pictures, _ = open_pictures(files[1:4], settings, "a")
    packed = pickle.dumps(pictures)
    assert len(packed) < 1000  # it maps the file there, rather than carry the pictures
    assert same(pickle.loads(packed), files[1:4], settings)


def test_changing_a_picture_taken_from_it_changes_nothing_in_it(files, settings):
    pictures, _ = open_pictures(files, settings, "a")
    pictures[0][:] = 0
    assert same(pictures, files, settings)


def test_a_broken_file_does_not_rebuild_the_cache_until_it_is_mended(tmp_path, files, settings, decoded):
    whole = files[0].read_bytes()
    files[0].write_bytes(b"no picture")
    lenient = settings.model_copy(update={"skip_broken": True})
    built = []
    for _ in range(2):
        assert len(open_pictures(files, lenient, "a")[0]) == len(files) - 1
        built.append(data_file(tmp_path))
    assert built[0] == built[1]
    assert len(decoded) == len(files) + 1  # the broken one is tried again
    files[0].write_bytes(whole)
    assert same(open_pictures(files, settings, "a")[0], files, settings)


def test_a_reader_of_a_rebuilt_cache_never_sees_other_pictures(files, settings):
    reader = open_pictures(files[1:], settings, "a")[0]
    expected, sent = reader[0], pickle.dumps(reader)
    open_pictures(files, settings, "a")
    assert np.array_equal(reader[0], expected)
    with pytest.raises(DataError, match="rebuilt by another run"):
        pickle.loads(sent)


def told_otherwise(settings, change):
    """Changes what the index says of its entries: path, bytes, time, side, offset, height, width, problem."""
    (index,) = (settings.root / ".cache").glob("*.json")
    content = json.loads(index.read_text())
    content["entries"] = [change(entry) for entry in content["entries"]]
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: [*entry[:4], -1, *entry[5:]],
        lambda entry: [*entry[:5], -entry[5], -entry[6], *entry[7:]],
        lambda entry: [*entry[:5], 10**9, 0, *entry[7:]],
        lambda entry: [*entry[:5], 0, *entry[6:]],
        lambda entry: [*entry[:5], 1.5, *entry[6:]],
        lambda entry: [*entry[:3], -5, *entry[4:]],
        lambda entry: [*entry[:3], "x", *entry[4:]],
        lambda entry: [*entry[:3], True, *entry[4:]],
        lambda entry: [*entry[:7], ["x"]],
        lambda entry: [["x"], *entry[1:]],
    ],
)
def test_an_index_that_cannot_be_is_made_anew(files, settings, decoded, change):
    open_pictures(files, settings, "x")
    told_otherwise(settings, change)
    decoded.clear()
    pictures, left = open_pictures(files, settings, "x")
    assert len(decoded) == 5
    assert same(pictures, left, settings)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 10_000, "cposix\nsystem\n", "[]", '{"data": 3, "entries": []}']
)
def test_an_index_that_is_none_is_made_anew(files, settings, decoded, text):
    open_pictures(files, settings, "x")
    (index,) = (settings.root / ".cache").glob("*.json")
    index.write_text(text)
    decoded.clear()
    pictures, left = open_pictures(files, settings, "x")
    assert len(decoded) == 5
    assert same(pictures, left, settings)
