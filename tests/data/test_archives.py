"""Valid archives yield all of their images; others are refused."""

import bz2
import errno
import gzip
import io
import logging
import lzma
import os
import re
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers_archives import data_set, hostile_archives, image, tar_of, zip_of
from helpers_root import modes_hold

from gan_nst.core.errors import DataError
from gan_nst.data import archives
from gan_nst.data.archives import ArchiveRefused, unpack

KINDS = {
    "zip": zip_of,
    "deflated": lambda files: zip_of(files, zipfile.ZIP_DEFLATED),
    "tar": tar_of,
    "ustar": lambda files: tar_of(files, form=tarfile.USTAR_FORMAT),
    "gnu": lambda files: tar_of(files, form=tarfile.GNU_FORMAT),
    "gz": lambda files: tar_of(files, gzip.compress),
    "bz2": lambda files: tar_of(files, bz2.compress),
    "xz": lambda files: tar_of(files, lzma.compress),
}


def files_in(folder):
    """The files below a folder, by name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.fixture
def take(tmp_path, caplog):
    """Unpacks bytes: the extracted files, and how many were skipped. Nothing may appear outside of the folder."""

    def take(data, largest=1 << 30):
        caplog.clear()
        around = tmp_path / "around"
        (around / "inside").mkdir(parents=True)
        (tmp_path / "archive").write_bytes(data)
        with caplog.at_level(logging.INFO):
            unpack(tmp_path / "archive", around / "inside" / "out", largest=largest, called="archive")
        assert {p.name for p in around.rglob("*")} - {p.name for p in (around / "inside").rglob("*")} == {
            "inside"
        }
        skipped = re.findall(r"archive: (\d+) other files? skipped", caplog.text)
        return files_in(around / "inside" / "out"), int(skipped[0]) if skipped else 0

    return take


@pytest.mark.parametrize("kind", KINDS)
def test_valid_archives_yield_their_images(take, kind):
    files = data_set("some/where/") | {
        f"trainA/{'long ' * (18 if kind == 'ustar' else 40)}.png": image(7),
        "trainA/π 漢字.JPG": image(8),
    }
    assert take(KINDS[kind](files)) == (files, 0)


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_unusual_but_harmless_names(take, kind):
    names = [
        "2011-05-26 17:48:57.jpg",
        "a..b.png",
        "...png.png/..x/1.png",
        "con.png",
        "-rf.png",
        "$(id).png",
        "a'b\".png",
        "two\nlines.png",
        "\x1b[31mred.png",
        "\u202egnp.exe.png",
    ]
    files = {f"trainA/{name}": image(number) for number, name in enumerate(names)}
    hidden = [name for name in files if "/." in name]
    expected = {name: data for name, data in files.items() if name not in hidden}
    assert take(KINDS[kind](files)) == (expected, len(hidden))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_start_with_a_dot(take, kind):
    files = data_set("set/")
    assert take(KINDS[kind]([(f"./{name}", data) for name, data in files.items()])) == (files, 0)


def test_a_global_header_is_harmless(take):
    """`git archive` records its commit in one."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", pax_headers={"comment": "0123abcd" * 5}) as archive:
        for name, data in data_set().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert b"comment=0123abcd" in file.getvalue()
    assert take(file.getvalue()) == (data_set(), 0)


def test_names_that_are_not_text_are_kept(take):
    info = tarfile.TarInfo("trainA/caf\udce9.png")
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        info.size = len(image())
        archive.addfile(info, io.BytesIO(image()))
    files, _ = take(file.getvalue())
    assert [os.fsencode(name) for name in files] == [b"trainA/caf\xe9.png"]


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_only_images_are_extracted(take, kind):
    files = data_set()
    others = {
        "README.txt": b"hello",
        "trainA/.hidden.png": image(),
        ".git/x.png": image(),
        "__MACOSX/trainA/._0.png": b"\0\5\x16\7",
        "trainA/Thumbs.db": b"db",
        "trainA/run.py": b"import os",
        "trainA/weights.pkl": b"\x80\x04N.",
    }
    assert take(KINDS[kind](files | others)) == (files, len(others))


def test_modes_owners_and_times_are_not_restored(tmp_path):
    for number, mode in enumerate((0o6777, 0o000, 0o4755)):
        entry, member = zipfile.ZipInfo("a.png"), tarfile.TarInfo("a.png")
        entry.external_attr = (stat.S_IFREG | mode) << 16
        entry.create_system = 3
        member.mode, member.uid, member.mtime = mode, 12345, 1
        for kind, data in {"zip": zip_of([(entry, image())]), "tar": tar_of([(member, image())])}.items():
            archive, folder = tmp_path / f"{number}.{kind}", tmp_path / f"{number}-{kind}"
            archive.write_bytes(data)
            unpack(archive, folder, largest=1 << 30, called="archive")
            plain = tmp_path / "plain"
            plain.write_bytes(b"")
            found = (folder / "a.png").stat()
            assert (found.st_mode, found.st_uid) == (plain.stat().st_mode, os.getuid())
            assert found.st_mtime > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_gives_all_or_nothing(tmp_path, kind):
    """A tar may lack the empty blocks at its end, which contain nothing."""
    files = data_set(count=1)
    data = KINDS[kind](files)
    given = 0
    for cut in sorted(
        {len(data) * part // 60 for part in range(60)} | {len(data) - byte for byte in (1, 2, 4, 8, 20)}
    ):
        (tmp_path / "archive").write_bytes(data[:cut])
        folder = tmp_path / f"out{cut}"
        try:
            unpack(tmp_path / "archive", folder, largest=1 << 30, called="archive")
        except ArchiveRefused:
            continue
        assert files_in(folder) == files, cut
        given += 1
    assert given == 0 or kind in ("tar", "ustar", "gnu")


@pytest.mark.parametrize("kind", ["zip", "deflated", "tar", "gz", "xz"])
def test_a_damaged_archive_gives_its_images_or_a_refusal(tmp_path, kind):
    """Any other exception, or a file outside the folder, is a defect. Zip and gzip also detect changed images."""
    files = data_set(count=1)
    intact = np.frombuffer(KINDS[kind](files), np.uint8)
    rng = np.random.default_rng(0)
    for number in range(150):
        data = intact.copy()
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.choice([0, 255, 0x2E, 0x2F, data[place] ^ (1 << rng.integers(8))])
        (tmp_path / "archive").write_bytes(data.tobytes())
        folder = tmp_path / f"out{number}"
        try:
            unpack(tmp_path / "archive", folder, largest=1 << 30, called="archive")
        except ArchiveRefused:
            continue
        if kind != "tar":
            assert set(files_in(folder).values()) <= set(files.values()), number
    assert {path.name[:3] for path in tmp_path.iterdir()} <= {"arc", "out"}


@pytest.mark.parametrize("kind", ["zip", "deflated", "tar", "gz"])
def test_more_than_is_allowed_is_refused(take, kind):
    files = {"trainA/a.png": bytes(3000), "trainB/b.png": bytes(3000)}
    with pytest.raises(ArchiveRefused, match="it contains more than 5 kB; allow more with --max-size"):
        take(KINDS[kind](files), largest=5000)


def test_images_that_compress_well_are_accepted(take):
    files = {f"trainA/{number}.bmp": bytes(1 << 20) for number in range(20)}
    assert take(KINDS["gz"](files)) == (files, 0)


@pytest.mark.parametrize("kind", ["deflated", "gz", "bz2", "xz"])
def test_a_bomb_is_stopped_before_it_is_written(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "_SMALL", 3 << 20)
    (tmp_path / "bomb").write_bytes(KINDS[kind]({"a.png": bytes(100), "b.png": bytes(20 << 20)}))
    with pytest.raises(ArchiveRefused, match="expands to more than 100 times its size"):
        unpack(tmp_path / "bomb", tmp_path / "out", largest=1 << 40, called="bomb")
    assert files_in(tmp_path / "out") in ({}, {"a.png": bytes(100)})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "zip-encrypted.zip",
            "0.png: encrypted, or compressed in a rare way; unpack it yourself if you trust it",
        ),
        ("zip-bz2.zip", "0.png: encrypted, or compressed in a rare way; unpack it yourself if you trust it"),
        ("tar-hard-link-up.tar", "l.png: a link, a pipe"),
        ("tar-sparse.tar", "a sparse file; unpack it yourself"),
        ("page.zip", "a web page, not an archive"),
        ("noise.zip", "neither a zip nor a tar, or damaged"),
    ],
)
def test_refusals_say_what_to_do(take, name, reason):
    with pytest.raises(ArchiveRefused, match=reason):
        take(dict(hostile_archives())[name])


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html>...", b"\xef\xbb\xbf \r\n<html>", b'<?xml version="1.0"?><Error/>']
)
def test_a_page_instead_of_an_archive(take, page):
    with pytest.raises(ArchiveRefused, match="a web page, not an archive"):
        take(page)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_members(take, monkeypatch, kind):
    monkeypatch.setattr(archives, "_MAX_MEMBERS", 11)
    with pytest.raises(ArchiveRefused, match="more than 11 members"):
        take(KINDS[kind](data_set()))


@pytest.mark.parametrize("kind", ["tar", "gz"])
def test_memory_does_not_grow_with_the_members_of_a_tar(tmp_path, kind):
    def peak(count):
        (tmp_path / "archive").write_bytes(KINDS[kind]({f"{number}.txt": b"" for number in range(count)}))
        tracemalloc.start()
        unpack(tmp_path / "archive", tmp_path / "out", largest=1 << 30, called="archive")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    # Pathlib interns names, for which the interpreter's own table grows at times.
    assert min(peak(3000) for _ in range(3)) < peak(300) + 200_000


BOMBS = ["zip-bomb.zip", "zip-bz2.zip", "tar-bomb.tar.gz", "tar-bomb.tar.bz2", "tar-bomb.tar.xz"]
BOMBS += ["tar-bomb-header.tar.gz", "tar-bomb-name.tar.gz"]


@pytest.mark.parametrize("name", BOMBS)
def test_memory_does_not_grow_with_a_bomb(tmp_path, name):
    (tmp_path / "archive").write_bytes(dict(hostile_archives())[name])
    tracemalloc.start()
    with pytest.raises(ArchiveRefused):
        unpack(tmp_path / "archive", tmp_path / "out", largest=1 << 30, called="archive")
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()


def test_a_full_disk_is_not_taken_for_damage(tmp_path, monkeypatch):
    (tmp_path / "archive").write_bytes(zip_of(data_set()))

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(
        DataError, match=r"archive: could not be unpacked \(No space left on device\); free"
    ) as raised:
        unpack(tmp_path / "archive", tmp_path / "out", largest=1 << 30, called="archive")
    assert not isinstance(raised.value, ArchiveRefused)


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), OSError(errno.EMFILE, "Too many open files")]
)
def test_a_fault_of_the_machine_is_not_taken_for_damage(tmp_path, monkeypatch, error):
    """A download would be deleted."""
    (tmp_path / "archive").write_bytes(tar_of(data_set(), gzip.compress))
    real = gzip.GzipFile.read

    def read(file, size=-1):
        if size == len(image()):
            raise error
        return real(file, size)

    monkeypatch.setattr(gzip.GzipFile, "read", read)
    with pytest.raises(DataError, match=r"could not be unpacked \(.+\)$") as raised:
        unpack(tmp_path / "archive", tmp_path / "out", largest=1 << 30, called="archive")
    assert not isinstance(raised.value, ArchiveRefused)


def test_an_unreadable_archive_is_not_taken_for_damage(tmp_path):
    (tmp_path / "archive").write_bytes(tar_of(data_set()))
    (tmp_path / "archive").chmod(0)
    with modes_hold(), pytest.raises(DataError, match=r"not be unpacked \(Permission denied\)") as raised:
        unpack(tmp_path / "archive", tmp_path / "out", largest=1 << 30, called="archive")
    assert not isinstance(raised.value, ArchiveRefused)
