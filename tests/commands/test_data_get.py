"""`gan-nst data get`: complete data sets or nothing, however it ends."""

import contextlib
import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import helpers_server
import pytest
from campaigns.children import Child
from filelock import FileLock
from helpers_archives import data_set, hostile_archives, image, tar_of, zip_of
from helpers_root import modes_hold
from helpers_runs import one_line
from helpers_server import Fault, serving

import gan_nst as package
from gan_nst.core.errors import DataError
from gan_nst.core.errors import one_line as escaped
from gan_nst.data import download
from gan_nst.data.domains import DataSettings, locate

PETS = zip_of(data_set("pets/"))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(download, "_WAITS", (0.0,) * 4)


@pytest.fixture
def site():
    with serving(files={"/pets.zip": PETS}) as site:
        yield site


def files_below(folder):
    """All files below a folder, hidden ones too, except the project's experiments."""
    found = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("experiments")}


def under(top, files):
    return {f"{top}/{name}": data for name, data in files.items()}


def test_an_address(gan_nst, site, in_project):
    code, out, err = gan_nst("data", "get", site.address + "/pets.zip?from=here")
    assert (code, err) == (0, "")
    assert (
        "datasets/pets: 3 images in trainA, 3 images in trainB, 3 images in testA, 3 images in testB" in out
    )
    assert hashlib.sha256(PETS).hexdigest() in out
    assert (
        "next: gan-nst data check datasets/pets, then gan-nst train --domain pets --method cyclegan data.root=datasets"
        in out
    )
    assert files_below(in_project) == under("datasets/pets", data_set())
    assert locate(DataSettings(domain="pets")).held_out == {"validation"}


def test_a_local_archive_is_kept(gan_nst, in_project):
    archive = tar_of(data_set(), gzip.compress)
    (in_project / "my pets.tar.gz").write_bytes(archive)
    code, out, err = gan_nst("data", "get", "my pets.tar.gz")
    assert (code, err) == (0, "")
    assert "gan-nst train --domain 'my pets' --method cyclegan data.root=datasets" in out
    assert files_below(in_project) == {
        "my pets.tar.gz": archive,
        **under("datasets/my pets", data_set()),
    }


def test_into_another_folder(gan_nst, site, in_project):
    (in_project / "there").mkdir()
    (in_project / "far" / "away").mkdir(parents=True)
    (in_project / "link").symlink_to("far/away/pets")
    for into in ("there", "deep/down/pets", "link"):
        code, out, err = gan_nst("data", "get", site.address + "/pets.zip", "--into", into)
        assert (code, err) == (0, "")
        assert f"{into}: 3 images in trainA" in out
    assert "gan-nst train --domain link --method cyclegan data.root=." in out
    places = ("there", "deep/down/pets", "far/away/pets")
    assert files_below(in_project) == {
        name: data for place in places for name, data in under(place, data_set()).items()
    }


def test_a_known_set(gan_nst, site, in_project, monkeypatch):
    entry = download.KnownSet("pets", "cats", "dogs", "nobody", len(PETS), hashlib.sha256(PETS).hexdigest())
    monkeypatch.setitem(download.KNOWN, "pets", entry)
    monkeypatch.setattr(download, "_SERVER", site.address + "/{}.zip")
    code, out, err = gan_nst("data", "get", "pets")
    assert (code, err) == (0, "")
    assert "a: cats; b: dogs; from nobody, whose terms apply" in out
    assert "not verified" not in out
    site.files["/pets.zip"] = zip_of(data_set(count=1))
    one_line(
        gan_nst("data", "get", "pets", "--into", "again"),
        "its SHA-256 is",
        entry.sha256,
    )
    assert files_below(in_project) == under("datasets/pets", data_set())


def test_the_table_is_sound():
    assert {"horse2zebra", "monet2photo", "apple2orange", "maps", "facades", "grumpifycat"} <= set(
        download.KNOWN
    )
    for name, entry in download.KNOWN.items():
        assert entry.name == name
        assert entry.size > 10**7
        assert entry.sha256 is None or (len(entry.sha256) == 64 and int(entry.sha256, 16))
        assert entry.url.startswith("https://")
        assert entry.url.endswith(f"/{name}.zip")


def test_without_a_source_the_known_sets_are_listed(gan_nst):
    code, out, err = gan_nst("data", "get")
    assert (code, err) == (0, "")
    assert all(name in out for name in download.KNOWN)
    assert "horse2zebra              117 MB  horses | zebras (ImageNet)" in out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["horse2zebr"], ["horse2zebr: not a known data set", "monet2photo"]),
        (["kittens"], ["kittens: not a known data set", "known sets are apple2orange"]),
        (["nothing.zip"], ["nothing.zip: not a known"]),
        (["."], [".: not a known"]),
        (["file:///etc/passwd"], ["file:///etc/passwd: not a known data set, an http(s) address or a file"]),
        (["ftp://example.org/x.zip"], ["not a known data set, an http(s) address or a file"]),
        (["http:///x.zip"], ["http:///x.zip: ", "no host given"]),
        (["http://[::1/x.zip"], ["http://[::1/x.zip: ", "IPv6"]),
        (["http://127.0.0.1:1"], ["gives the data set no name", "--into datasets/NAME"]),
        (["http://127.0.0.1:1/..%2f..%2f.x.zip"], ["gives the data set no name"]),
        (["http://127.0.0.1:1/x.zip"], ["http://127.0.0.1:1/x.zip: Connection refused", "by other means"]),
        (["http://127.0.0.1:1/x.zip", "--sha256", "123"], ["123: not a SHA-256", "64 hexadecimal digits"]),
        (["horse2zebra", "--into", "/"], ["/: not empty"]),
        (["horse2zebra", "--into", "."], [".: not empty"]),
        (["horse2zebra", "--into", "file/below"], ["file/below: could not be created"]),
        (["horse2zebra", "--into", "file"], ["file: not empty"]),
    ],
)
def test_mistakes(gan_nst, in_project, arguments, parts):
    (in_project / "file").write_text("mine")
    one_line(gan_nst("data", "get", *arguments), *parts)
    assert files_below(in_project) == {"file": b"mine"}


@pytest.mark.parametrize(
    "into", [[], ["--into", "missing/deep/y"], ["--into", "there/deep/y"], ["--into", "m/" + "y" * 300]]
)
def test_a_failure_leaves_no_workspace(gan_nst, in_project, into):
    (in_project / "there").mkdir()
    one_line(gan_nst("data", "get", "http://127.0.0.1:1/x.zip", *into))
    assert files_below(in_project) == {}
    assert not list(in_project.rglob("*.download"))


def test_a_folder_that_is_not_empty_is_kept(gan_nst, site, in_project):
    (in_project / "datasets" / "pets").mkdir(parents=True)
    (in_project / "datasets" / "pets" / ".mine").write_text("mine")
    one_line(gan_nst("data", "get", site.address + "/pets.zip"), "datasets/pets: not empty", "--into")
    assert files_below(in_project) == {"datasets/pets/.mine": b"mine"}
    assert site.requests == []


def test_a_folder_that_is_filled_meanwhile_is_kept(gan_nst, in_project, monkeypatch):
    (in_project / "pets.zip").write_bytes(PETS)
    real = package.data_get.__globals__["unpack"]

    def unpack(*arguments, **options):
        (in_project / "datasets" / "pets").mkdir(parents=True)
        (in_project / "datasets" / "pets" / "mine").write_text("mine")
        return real(*arguments, **options)

    monkeypatch.setitem(package.data_get.__globals__, "unpack", unpack)
    one_line(gan_nst("data", "get", "pets.zip"), "datasets/pets: could not be created (Directory not empty)")
    assert files_below(in_project) == {"pets.zip": PETS, "datasets/pets/mine": b"mine"}


def problem_with(name, data, folder):
    """Describes how a refusal is wrong: it must be one line that names the archive, and leave nothing."""
    (folder / name).write_bytes(data)
    try:
        package.data_get(name, package.GetOptions(into="into"))
        return "was not refused"
    except package.GanNstError as error:
        if not (str(error).startswith(f"{name}: ") and len(escaped(str(error))) < 500):
            return str(error)
    except Exception as error:
        return repr(error)
    (folder / name).unlink()
    left = files_below(folder)
    return f"left {list(left)}" if left or any(path.is_symlink() for path in folder.glob("[!e]*")) else None


def test_hostile_archives_leave_nothing(in_project):
    outside = [Path(name) for name in ("/tmp/absolute.png", "/tmp/x.png", "../up.png", "../../up.png")]
    before = [path.exists() for path in outside]
    problems = {name: problem_with(name, data, in_project) for name, data in hostile_archives()}
    assert len(problems) == 130
    assert {name: problem for name, problem in problems.items() if problem is not None} == {}
    assert [path.exists() for path in outside] == before


@pytest.mark.parametrize("name", ["zip-up.zip", "cut-50.tar.gz", "page.zip"])
def test_a_hostile_download_leaves_nothing(gan_nst, site, in_project, name):
    site.files["/x"] = dict(hostile_archives())[name]
    one_line(gan_nst("data", "get", site.address + "/x"), site.address + "/x")
    assert files_below(in_project) == {}


def test_without_a_data_set_the_download_is_kept(gan_nst, site, in_project):
    site.files["/x.zip"] = zip_of({f"{name}/1.png": image() for name in ("one", "two", "three")})
    archive = "datasets/.x.download/archive"
    one_line(
        gan_nst("data", "get", site.address + "/x.zip"), "one (1 image), three", archive, "data.a=FOLDER"
    )
    assert {name for name in files_below(in_project) if "lock" not in name and "json" not in name} == {
        archive
    }
    assert files_below(in_project)[archive] == site.files["/x.zip"]


def test_after_a_full_disk_nothing_is_downloaded_twice(gan_nst, site, in_project, monkeypatch):
    def full(*arguments, **options):
        raise DataError(
            "datasets/.pets.download/unpacked/0.png: could not be written (No space left on device)"
        )

    with monkeypatch.context() as patch:
        patch.setitem(package.data_get.__globals__, "unpack", full)
        one_line(gan_nst("data", "get", site.address + "/pets.zip"), "No space left on device")
    assert gan_nst("data", "get", site.address + "/pets.zip")[0] == 0
    assert len(site.requests) == 1
    assert files_below(in_project) == under("datasets/pets", data_set())


def test_an_unreadable_archive_is_named(gan_nst, in_project):
    (in_project / "pets.zip").write_bytes(PETS)
    (in_project / "pets.zip").chmod(0)
    with modes_hold():
        for check in ([], ["--sha256", "0" * 64]):
            result = gan_nst("data", "get", "pets.zip", *check)
            one_line(result, "gan-nst: pets.zip: could not be ", "(Permission denied)")


def test_the_current_folder_is_not_replaced(gan_nst, in_project, monkeypatch):
    (in_project / "pets.zip").write_bytes(PETS)
    (in_project / "here").mkdir()
    monkeypatch.chdir(in_project / "here")
    for into in (".", "../here"):
        one_line(
            gan_nst("data", "get", "../pets.zip", "--into", into), f"{into}: not empty, or the current folder"
        )
    assert os.listdir(".") == []
    assert files_below(in_project) == {"pets.zip": PETS}
    (in_project / "here").rmdir()  # it is still the same folder


def test_the_next_command_names_the_folder(gan_nst, in_project):
    (in_project / "pets.zip").write_bytes(PETS)
    code, out, err = gan_nst("data", "get", "pets.zip", "--into", "mine/none/..")
    assert (code, err) == (0, "")
    assert "gan-nst train --domain mine --method cyclegan data.root=." in out
    assert files_below(in_project / "mine") == data_set()


def test_two_plain_folders(gan_nst, in_project):
    (in_project / "pets.zip").write_bytes(zip_of({f"{name}/1.png": image() for name in ("dogs", "cats")}))
    code, out, err = gan_nst("data", "get", "pets.zip")
    assert (code, err) == (0, "")
    assert "cats became trainA and dogs became trainB, by name" in out


@pytest.mark.parametrize(
    ("splits", "missing"),
    [(("testA", "testB"), "no trainA and no trainB"), (("trainA", "testA", "testB"), "no trainB")],
)
def test_a_set_without_training_images_is_reported(gan_nst, in_project, splits, missing):
    (in_project / "pets.zip").write_bytes(zip_of(data_set(splits=splits)))
    code, out, err = gan_nst("data", "get", "pets.zip")
    assert code == 0
    assert f"datasets/pets: {missing}: usable for evaluation, but not for training" in err
    assert "gan-nst train" not in out


def test_sizes_and_sums(gan_nst, site, in_project):
    (in_project / "pets.zip").write_bytes(PETS)
    one_line(gan_nst("data", "get", "pets.zip", "--max-size", "0.5k"), "pets.zip: it contains more than 512")
    one_line(
        gan_nst("data", "get", "pets.zip", "--sha256", "0" * 64), "pets.zip: its SHA-256 is", "expected 000"
    )
    one_line(
        gan_nst("data", "get", site.address + "/pets.zip", "--max-size", "1k"), "more than 1 kB", "--max-size"
    )
    one_line(
        gan_nst("data", "get", site.address + "/pets.zip", "--sha256", "0" * 64),
        "its SHA-256 is",
        "expected 000",
    )
    assert files_below(in_project) == {"pets.zip": PETS}
    right = hashlib.sha256(PETS).hexdigest().upper()
    assert gan_nst("data", "get", site.address + "/pets.zip", "--sha256", right)[0] == 0


def test_one_at_a_time(gan_nst, site, in_project):
    work = in_project / "datasets" / ".pets.download"
    work.mkdir(parents=True)
    with FileLock(work / "lock"):
        one_line(
            gan_nst("data", "get", site.address + "/pets.zip"), "datasets/pets: another gan-nst data get"
        )
    assert gan_nst("data", "get", site.address + "/pets.zip")[0] == 0
    assert files_below(in_project) == under("datasets/pets", data_set())


def test_two_at_once_make_one_set(site, in_project):
    site.speed = 20_000
    results = []

    def get():
        try:
            package.data_get(site.address + "/pets.zip")
            results.append("done")
        except package.GanNstError as error:
            results.append(str(error))

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("done") == 1
    assert all("another gan-nst" in text or "not empty" in text for text in results if text != "done")
    assert files_below(in_project) == under("datasets/pets", data_set())


def test_ctrl_c_keeps_what_was_received(gan_nst, site, in_project, monkeypatch):
    site.faults = [Fault(after=1000)]

    def interrupted(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupted)
        code, _, err = gan_nst("data", "get", site.address + "/pets.zip")
        assert (code, err) == (130, "gan-nst: interrupted\n")
    code, out, err = gan_nst("data", "get", site.address + "/pets.zip")
    assert (code, err) == (0, "")
    assert "resuming " in out
    assert site.requests[-1] == ("/pets.zip", "bytes=1000-")
    assert files_below(in_project) == under("datasets/pets", data_set())


@contextlib.contextmanager
def served_separately(folder, speed):
    """The address of the pets on a server in its own process, so that this one has no threads when it forks."""
    (folder / "served").write_bytes(PETS)
    command = [sys.executable, helpers_server.__file__, folder / "served", str(speed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server.stdout.readline().strip() + "/pets.zip"
        server.stdin.close()


CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "socket.connect"}


def die_at(number, address):
    """Gets the pets, but is killed right before its n-th change of a file or connection."""
    left = [number]

    def hook(event, arguments):
        outside = (
            event == "open" and os.path.isabs(str(arguments[0])) and str(Path.cwd()) not in str(arguments[0])
        )
        if event in CHANGES and not outside:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    package.data_get(address)


def test_killed_anywhere_the_same_command_resumes(in_project, tmp_path_factory):
    """Before each change of a file: the set is complete or absent, and nothing remains of the first attempt."""
    with served_separately(tmp_path_factory.mktemp("server"), 0) as address:
        for number in range(1, 500):
            ending = Child(die_at, number, address).wait(60)
            found = {
                name: data
                for name, data in files_below(in_project).items()
                if name.startswith("datasets/pets/")
            }
            assert found in ({}, under("datasets/pets", data_set())), number
            if found:  # killed while it cleaned up, as the next one does
                with contextlib.suppress(package.GanNstError):
                    package.data_get(address)
            else:
                package.data_get(address)
            assert files_below(in_project) == under("datasets/pets", data_set()), number
            shutil.rmtree("datasets")
            if ending.problem is None:
                break
            assert ending.problem == "died of SIGKILL", ending
    assert 50 < number < 400


def test_repeated_kills_do_not_prevent_progress(in_project, tmp_path_factory):
    sizes = [0]
    with served_separately(tmp_path_factory.mktemp("server"), len(PETS) / 2) as address:
        for _ in range(20):
            child = Child(package.data_get, address)
            if (ending := child.wait(0.6)).problem is None:
                break
            assert ending.timed_out, ending
            sizes.append(Path("datasets/.pets.download/archive").stat().st_size)
            assert sizes[-1] >= sizes[-2]
    assert 3 <= len(sizes) < 15
    assert files_below(in_project) == under("datasets/pets", data_set())
