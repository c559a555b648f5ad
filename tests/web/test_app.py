"""`gan-nst app`: its results are the files that `translate` writes, and it opens nothing but uploads."""

import errno
import os
import signal
import socket
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import torch
from helpers_app import Visitor, as_file, visiting, write_generator
from helpers_data import coordinates, noise
from helpers_runs import finish, one_line, start
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("gradio", reason="gradio is not installed")

from gan_nst.commands.translate import translate
from gan_nst.core.errors import CheckpointError, DataError, SettingsError
from gan_nst.core.options import AppOptions, TranslateOptions
from gan_nst.images.files import write_image
from gan_nst.images.photo import Photo
from gan_nst.inference.translator import Translator
from gan_nst.runs.generators import load_translator
from gan_nst.web import jobs as jobs_module
from gan_nst.web import server as server_module
from gan_nst.web.jobs import Choice, Jobs, Result, archive, find_choices, preview
from gan_nst.web.server import serving

ON_CPU = AppOptions(port=0, device="cpu", precision="float32")
LIMITS = replace(ON_CPU, max_upload=1, max_pixels=20_000)
HOSTILE_NUMBERS = [-1, 2, 1.5, True, None, "0", "runs", "../../etc", [0], {"path": "/etc/passwd"}]


@pytest.fixture(scope="module")
def generators(tmp_path_factory):
    """Two tiny generators' files."""
    folder = tmp_path_factory.mktemp("generators")
    return [write_generator(folder / f"{name}.safetensors", seed) for seed, name in enumerate(("one", "two"))]


@pytest.fixture(scope="module")
def visitor(generators):
    with visiting(find_choices(generators), LIMITS) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A 16-bit PNG with alpha, a JPEG rotated by its EXIF tag, and a plain PNG of an odd size."""
    folder = tmp_path_factory.mktemp("images")
    deep = np.random.default_rng(0).integers(0, 65536, (37, 50, 4), np.uint16)
    cv2.imwrite(str(folder / "deep.png"), deep)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    Image.fromarray(noise(40, 61)).save(folder / "turned.jpg", exif=exif)
    write_image(noise(33, 45, seed=1), folder / "plain.png")
    return folder


def written(generator, image, folder, **options):
    """Returns what `translate` writes for an image: (name, bytes)."""
    outcome = translate(
        generator, image, folder, TranslateOptions(device="cpu", precision="float32", **options)
    )
    assert len(outcome.written) == 1
    return outcome.written[0].name, outcome.written[0].read_bytes()


# Results


@pytest.mark.parametrize("name", ["deep.png", "turned.jpg", "plain.png"])
@pytest.mark.parametrize("form", ["png", "same"])
def test_a_result_is_the_file_that_translate_writes(visitor, generators, images, tmp_path, name, form):
    (upload,) = visitor.upload(images / name)
    (result,) = visitor.results(upload, form=form)
    assert result == written(generators[0], images / name, tmp_path, format=form)


def test_run_strength_colours_and_working_size_take_effect(visitor, generators, images, tmp_path):
    (upload,) = visitor.upload(images / "plain.png")
    plain = visitor.results(upload)
    for number, options in enumerate([{"run": 1}, {"strength": 0.5}, {"colours": "luma"}, {"scale": 0.5}]):
        (result,) = visitor.results(upload, **options)
        given = {"preserve_color" if key == "colours" else key: value for key, value in options.items()}
        generator = generators[given.pop("run", 0)]
        assert result == written(generator, images / "plain.png", tmp_path / str(number), **given)
        assert [result] != plain, options


def test_several_images_come_with_an_archive_of_all(visitor, images):
    uploads = visitor.upload(images / "plain.png", images / "turned.jpg", ("plain.png", png(noise(20, 20))))
    *results, (name, packed) = visitor.results(*uploads)
    assert [name for name, _ in results] == ["plain.png", "turned.png", "plain.png"]
    assert name == "all.zip"
    with zipfile.ZipFile(BytesIO(packed)) as archive:
        assert archive.namelist() == ["plain.png", "turned.png", "3-plain.png"]
        assert [archive.read(name) for name in archive.namelist()] == [content for _, content in results]


def test_the_previews_are_before_and_after(visitor):
    smooth = coordinates(60, 90) * 2
    (upload,) = visitor.upload(("smooth.png", png(smooth[..., ::-1])))
    _, output = visitor.translate(upload, strength=0)
    contents = [visitor.http.get(f"gradio_api/file={image['path']}").content for image in output["data"][1]]
    before, after = (np.asarray(Image.open(BytesIO(content)).convert("RGB"), int) for content in contents)
    assert np.abs(before - smooth).mean() < 4
    assert np.array_equal(before, after)


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize("form", ["webp", "same"])
def test_a_preview_never_overwrites_the_result(visitor, generators, tmp_path, name, form):
    image = tmp_path / f"{name}.webp"
    Image.fromarray(noise(40, 61)).save(image, lossless=True)
    (upload,) = visitor.upload(image)
    (result,) = visitor.results(upload, form=form)
    assert result == written(generators[0], image, tmp_path / "out", format=form)


@pytest.mark.parametrize(
    "names",
    [
        ["3-x.png", "x.png", "x.png"],
        ["x.png", "x.png", "2-x.png"],
        ["x.png", "4-x.png", "4-4-x.png", "x.png"],
    ],
)
def test_files_in_an_archive_have_different_names(tmp_path, names):
    results = []
    for number, name in enumerate(names):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        path.write_text(str(number))
        results.append(Result(path, path, path))
    with zipfile.ZipFile(archive(results)) as packed:
        assert len(set(packed.namelist())) == len(names)
        assert [packed.read(name).decode() for name in packed.namelist()] == list(map(str, range(len(names))))


def test_a_preview_is_small_over_white_and_8_bits():
    deep = np.full((2000, 4000, 3), 65535 // 2, np.uint16)
    alpha = np.zeros((2000, 4000), np.uint16)
    alpha[:, 2000:] = 65535
    image = preview(Photo(deep, alpha, exif=b"secret"))
    assert (image.size, image.mode, image.info) == ((1600, 800), "RGB", {})
    pixels = np.asarray(image)
    assert set(pixels[:, :790].ravel()) == {255}
    assert set(pixels[:, 810:].ravel()) == {127}
    assert preview(Photo(np.zeros((1, 5000, 3), np.uint8))).size == (1600, 1)


def test_the_page_loads_nothing_from_other_servers(visitor):
    page = visitor.http.get("")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert visitor.config["analytics_enabled"] is False
    assert "fonts.g" not in page.text + visitor.http.get("theme.css").text
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


# Refusals


def test_no_path_that_was_not_uploaded_is_opened(visitor, generators, images, tmp_path):
    (upload,) = visitor.upload(images / "plain.png")
    store = Path(upload).parents[1]
    (store / "link.png").symlink_to(images / "plain.png")
    hostile = [
        "/etc/passwd",
        generators[0],
        images / "plain.png",
        os.path.relpath(images / "plain.png"),
        f"{store}/../../../etc/passwd",
        store / "link.png",
        store,
        "http://127.0.0.1:1/plain.png",
        "https://example.com/plain.png",
        "file:///etc/passwd",
        "",
        "\0",
    ]
    for path in map(str, hostile):
        for route in ("file=", "file/"):
            url = f"gradio_api/{route}{path}".replace("\0", "%00")
            assert visitor.http.get(url).status_code in (403, 404), url
        for file in (as_file(path), as_file(path) | {"url": visitor.address}, {"path": path}):
            outer = {"path": upload, "inner": file}
            for data in (
                [[file], 0, 1, "none", 1, "png"],
                [[outer], 0, 1, "none", 1, "png"],
                [[], file, 1, "none", 1, "png"],
                [[], 0, 1, "none", 1, {"deep": [file]}],
            ):
                assert visitor.join("translate", *data).status_code == 403, path  # before Gradio sees it
    assert visitor.results(upload)


def test_the_queue_cannot_be_bypassed(visitor):
    question = {"data": [[], 0, 1, "none", 1, "png"], "fn_index": visitor.numbers["translate"]}
    assert visitor.http.post("gradio_api/run/translate", json=question).status_code == 404


@pytest.mark.parametrize("number", HOSTILE_NUMBERS)
def test_an_unknown_run_is_refused(visitor, generators, images, tmp_path, number):
    (upload,) = visitor.upload(images / "plain.png")
    answer = visitor.join("translate", [as_file(upload)], number, 1, "none", 1, "png")
    if answer.status_code == 200:
        succeeded, output = visitor.outcome()
        assert not succeeded
        assert "\n" not in output["error"]
        given = str(number)  # of paths, an error may quote this one only
        assert "/" not in output["error"].replace(given, "")
    with pytest.raises(SettingsError, match="no such run"):
        Jobs(find_choices(generators), tmp_path).translate(
            Path(upload), number, TranslateOptions(device="cpu", precision="float32")
        )


@pytest.mark.parametrize(
    "options",
    [
        {"strength": 2},
        {"strength": "x"},
        {"scale": 0},
        {"colours": "all"},
        {"form": "exe"},
        {"form": "../x"},
    ],
)
def test_options_that_the_page_does_not_show_are_refused(visitor, images, options):
    (upload,) = visitor.upload(images / "plain.png")
    succeeded, output = visitor.translate(upload, **options)
    assert not succeeded
    assert "Traceback" not in str(output)
    assert visitor.results(upload)


def test_a_file_that_is_too_large_is_refused(visitor, images):
    large = ("large.png", bytes(LIMITS.max_upload * 1_000_000 + 1))
    answer = visitor.http.post("gradio_api/upload", files=[("files", large)])
    assert answer.status_code == 413
    assert visitor.results(*visitor.upload(images / "plain.png"))


def test_a_file_named_to_another_function_is_not_opened(visitor):
    for number in visitor.numbers.values():
        for path in ("/etc/passwd", "https://example.com/x.png"):
            question = {"data": [as_file(path)], "fn_index": number}
            answer = visitor.http.post("gradio_api/run/upload", json=question)
            assert answer.status_code >= 400
            assert "root:" not in answer.text


def test_too_many_images_or_pixels_or_no_image_is_one_line(visitor, images):
    succeeded, output = visitor.translate()
    assert (succeeded, output["error"]) == (False, "no image yet; drop one first")
    (upload,) = visitor.upload(images / "plain.png")
    succeeded, output = visitor.translate(*[upload] * 21)
    assert (succeeded, output["error"]) == (False, "21 images; translate at most 20 at a time")
    (upload,) = visitor.upload(("wide.png", png(np.zeros((100, 201, 3), np.uint8))))
    succeeded, output = visitor.translate(upload)
    assert not succeeded
    assert output["error"].startswith("wide.png: ")
    assert "\n" not in output["error"]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_broken_image_is_one_line_and_the_others_are_translated(visitor, images, content):
    broken, good = visitor.upload(("broken.png", content), images / "plain.png")
    succeeded, output = visitor.translate(broken)
    assert not succeeded
    assert output["error"].startswith("broken.png: ")
    assert "\n" not in output["error"]
    assert "Traceback" not in output["error"]
    succeeded, output = visitor.translate(broken, good)
    assert succeeded
    assert "1 image translated" in output["data"][0]
    assert "not translated: broken.png" in output["data"][0]
    assert len(output["data"][3]["value"]) == 1


def test_a_file_name_is_never_markup_or_a_path(visitor, images):
    (upload,) = visitor.upload(("../../<img src=x onerror=alert(1)>.png", b"no image"))
    succeeded, output = visitor.translate(upload)
    assert not succeeded
    assert "<" not in output["error"]
    assert ".." not in output["error"]


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example:7860"}, {"origin": "http://evil.example"}, {"origin": "null"}]
)
def test_requests_from_other_sites_are_refused(visitor, headers):
    assert visitor.http.get("config", headers=headers).status_code in (400, 403)
    question = {"data": [[], 0, 1, "none", 1, "png"], "fn_index": visitor.numbers["translate"]}
    question["session_hash"] = "x"
    answer = visitor.http.post("gradio_api/queue/join", json=question, headers=headers)
    assert answer.status_code in (400, 403)
    answer = visitor.http.post("gradio_api/upload", files=[("files", ("x.png", b""))], headers=headers)
    assert answer.status_code in (400, 403)
    own = {"origin": visitor.address.rstrip("/")}
    assert visitor.http.get("config", headers=own).status_code == 200


def test_a_page_at_another_loopback_address_refuses_other_names(generators):
    with visiting(find_choices(generators), replace(LIMITS, host="127.0.0.2")) as visitor:
        assert "127.0.0.2" in visitor.address
        assert visitor.http.get("config").status_code == 200
        assert visitor.http.get("config", headers={"host": "evil.example:7860"}).status_code == 403


@pytest.mark.parametrize(
    "size",
    [
        "Content-Length: 10000000000",
        "Content-Length: x",
        "Transfer-Encoding: chunked",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "X: y",
    ],
)
def test_a_request_that_is_large_or_of_unknown_size_is_refused_unread(visitor, size):
    address = urlsplit(visitor.address)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        head = f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: {address.netloc}\r\n{size}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).split()[1] in (b"400", b"403")


# Parts


def test_translators_are_loaded_once_and_few_are_kept_in_memory(tmp_path, monkeypatch):
    loaded = []

    def load(path, options):
        loaded.append(path.stem)
        return load_translator(path, options)

    monkeypatch.setattr(jobs_module, "load_translator", load)
    choices = find_choices([write_generator(tmp_path / f"{n}.safetensors") for n in range(5)])
    upload = tmp_path / "one.png"
    write_image(noise(20, 20), upload)
    jobs = Jobs(choices, tmp_path)
    for number in (0, 1, 0, 2, 0, 3, 0, 1):
        jobs.translate(upload, number, TranslateOptions(device="cpu", precision="float32"))
    assert loaded == ["0", "1", "2", "3", "1"]


def test_a_missing_generator_reveals_no_folder(visitor, images, tmp_path, caplog):
    path = write_generator(tmp_path / "secret" / "x.safetensors")
    jobs = Jobs(find_choices([path]), tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"^secret/x\.safetensors: a to b: cannot be loaded"):
        jobs.translate(images / "plain.png", 0, TranslateOptions(device="cpu", precision="float32"))
    assert f"{path}: no such" in caplog.text


def test_runs_and_generators_in_a_folder_are_found_newest_first(tmp_path, images, caplog):
    tmp_path = tmp_path / "not2these"
    runs = tmp_path / "runs" / "horse2zebra" / "cyclegan"
    for stamp in ("20240101-000000", "20250101-000000"):
        (runs / stamp / "checkpoints").mkdir(parents=True)
        write_generator(runs / stamp / "generator.safetensors")
        write_generator(runs / stamp / "generator_ba.safetensors", 1, "ba")
    (runs / "20260101-000000" / "checkpoints").mkdir(parents=True)  # nothing was saved
    (runs / "latest").symlink_to("20250101-000000")
    single = write_generator(tmp_path / "runs" / "other.safetensors")
    choices = find_choices([tmp_path / "runs", single, runs / "20240101-000000"])
    assert choices == [
        Choice(single, "ab", "runs/other.safetensors: not to these"),
        *(
            Choice(runs / stamp, direction, f"horse2zebra/cyclegan/{stamp}: {label}")
            for stamp in ("20250101-000000", "20240101-000000")
            for direction, label in (("ab", "horse to zebra"), ("ba", "zebra to horse"))
        ),
    ]
    assert "20260101-000000/checkpoints: no checkpoints found" in caplog.text
    result = Jobs(choices, tmp_path).translate(
        images / "plain.png", 2, TranslateOptions(device="cpu", precision="float32")
    )
    options = {"direction": "ba"}
    assert written(runs / "20250101-000000", images / "plain.png", tmp_path / "out", **options) == (
        "plain.png",
        result.file.read_bytes(),
    )
    for wrong in (tmp_path / "nothing", runs / "20260101-000000"):
        with pytest.raises(CheckpointError, match=wrong.name):
            find_choices([wrong])


def test_a_file_without_a_generator_is_skipped(tmp_path, caplog):
    good = write_generator(tmp_path / "good.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:100])
    save_file({"x": torch.zeros(1)}, tmp_path / "features.safetensors")
    assert [choice.path for choice in find_choices([tmp_path])] == [good]
    assert "cut.safetensors: not a readable safetensors file" in caplog.text
    assert (
        "features.safetensors: a safetensors file, but not an exported gan_nst generator; skipped"
        in caplog.text
    )


def test_one_image_is_translated_at_a_time(generators, tmp_path, monkeypatch):
    busy, most = [], []

    def translate_folder(*arguments):
        busy.append(1)
        most.append(len(busy))
        time.sleep(0.02)
        busy.pop()
        return original(*arguments)

    original = jobs_module.translate_folder
    monkeypatch.setattr(jobs_module, "translate_folder", translate_folder)
    upload = tmp_path / "one.png"
    write_image(noise(20, 20), upload)
    jobs = Jobs(find_choices(generators), tmp_path)
    with ThreadPoolExecutor(3) as visitors:
        results = list(
            visitors.map(
                lambda _: jobs.translate(upload, 0, TranslateOptions(device="cpu", precision="float32")),
                range(9),
            )
        )
    assert len({result.file for result in results}) == 9
    assert most == [1] * 9


def test_an_abandoned_job_does_not_block_others(visitor, images):
    uploads = visitor.upload(images / "plain.png", images / "turned.jpg")
    other = Visitor(visitor.address)
    other.join("translate", [as_file(upload) for upload in uploads], 0, 1, "none", 1, "png")
    with other.http.stream("GET", f"gradio_api/queue/data?session_hash={other.session}") as stream:
        next(stream.iter_lines())
    other.http.close()
    assert visitor.results(uploads[0])


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "lower the working size, under More"),
        (
            DataError("is 90 pixels wide and needs 9 GiB; raise --memory"),
            "lower the working size, under More",
        ),
        (None, "upload a smaller image"),
    ],
)
def test_a_remedy_is_one_that_visitors_have(generators, tmp_path, monkeypatch, failure, remedy):
    def fail(*_):
        raise failure

    upload = tmp_path / "one.png"
    write_image(noise(20, 20), upload)
    jobs = Jobs(find_choices(generators), tmp_path)
    options = TranslateOptions(device="cpu", precision="float32")
    if failure is None:
        options = replace(options, max_pixels=399)
    else:
        monkeypatch.setattr(Translator, "translate", fail)
    with pytest.raises(DataError, match=rf"^one\.png: [^;]*; {remedy}$") as caught:
        jobs.translate(upload, 0, options)
    assert "--" not in str(caught.value)


def test_an_unexpected_error_is_one_line_without_folders(generators, tmp_path, caplog, monkeypatch):
    def fail(*_):
        raise errors.pop()

    monkeypatch.setattr(jobs_module, "load_translator", fail)
    upload = tmp_path / "one.png"
    write_image(noise(20, 20), upload)
    jobs = Jobs(find_choices(generators), tmp_path)
    errors = [
        RuntimeError(f"CUDA out of memory\n{tmp_path}"),
        DataError(f"{tmp_path}/a1/0/my one.png: could not be written"),
    ]
    for message in ("my one.png: could not be written", "one.png: could not be translated (RuntimeError)"):
        with pytest.raises(DataError) as caught:
            jobs.translate(upload, 0, TranslateOptions(device="cpu", precision="float32"))
        assert str(caught.value) == message
    assert "CUDA out of memory" in caplog.text


def test_a_full_disk_is_one_line(generators, images, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with visiting(find_choices(generators), LIMITS) as visitor:
        uploads = visitor.upload(images / "plain.png", images / "turned.jpg")
        with monkeypatch.context() as full:
            full.setattr("PIL.Image.Image.save", fail)
            succeeded, output = visitor.translate(uploads[0])
            assert not succeeded
            assert output["error"].startswith(
                "plain.png: could not be written (No space left on device); free"
            )
        with monkeypatch.context() as full:
            full.setattr(zipfile.ZipFile, "write", fail)
            succeeded, output = visitor.translate(*uploads)
            assert succeeded
            assert "all.zip: could not be written (No space left on device); free" in output["data"][0]
            assert len(output["data"][3]["value"]) == 2
        assert visitor.results(uploads[0])


def test_temporary_files_are_deleted_at_the_end(generators, images, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/before")
    with serving(find_choices(generators), ON_CPU) as (address, thread):
        visitor = Visitor(address)
        (upload,) = visitor.upload(images / "plain.png")
        assert visitor.results(upload)
        visitor.http.close()
    assert not thread.is_alive()
    assert not Path(upload).parents[1].exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "/before"


def test_old_uploads_and_results_are_deleted(generators, images, monkeypatch):
    monkeypatch.setattr(jobs_module, "KEPT", 1)  # seconds
    monkeypatch.setattr(server_module, "_SWEEP_EVERY", 0.2)
    with visiting(find_choices(generators), LIMITS) as visitor:
        (upload,) = visitor.upload(images / "plain.png")
        succeeded, _ = visitor.translate(upload)
        assert succeeded
        deadline = time.monotonic() + 20
        while list(Path(upload).parents[1].iterdir()):  # previews too, without another request
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_what_was_used_or_written_within_a_day_is_kept(tmp_path):
    yesterday = time.time() - 25 * 3600
    for name, ages in (("unused", ()), ("used", ("x.png",)), ("filled", (".",))):
        (tmp_path / name / "previews").mkdir(parents=True)
        (tmp_path / name / "x.png").touch()
        for path in (tmp_path / name, *(tmp_path / name).iterdir()):
            os.utime(path, (yesterday, yesterday))
        for recent in ages:
            os.utime(tmp_path / name / recent)
    (tmp_path / "cancelled-upload").touch()
    os.utime(tmp_path / "cancelled-upload", (yesterday, yesterday))
    Jobs([], tmp_path).delete_old()
    assert {path.name for path in tmp_path.iterdir()} == {"used", "filled"}


def test_an_upload_is_kept_for_a_day_after_each_use(visitor, images):
    (upload,) = map(Path, visitor.upload(images / "plain.png"))
    for path in (upload, upload.parent):
        os.utime(path, (0, 0))
    assert visitor.results(str(upload))
    Jobs([], upload.parents[1]).delete_old()
    assert upload.exists()


def test_an_upload_that_was_deleted_is_reported_to_the_page(visitor, images):
    (upload,) = visitor.upload(images / "turned.jpg")
    Path(upload).unlink()
    answer = visitor.join("translate", [as_file(upload)], 0, 1, "none", 1, "png")
    assert answer.status_code == 403
    assert answer.json()["detail"].endswith("its files were deleted after a day; upload them again")


# The command


def test_a_wrong_path_host_or_port_is_one_line(gan_nst, generators, tmp_path):
    one_line(gan_nst("app", tmp_path / "nothing"), "nothing", "no such run")
    one_line(gan_nst("app", tmp_path), "no run or generator found")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one_line(gan_nst("app", generators[0], "--port", port), port, "in use", "--port")
    with pytest.raises(SettingsError, match="65535, got 99999"):
        AppOptions(port=99999)
    one_line(gan_nst("app", generators[0], "--host", "203.0.113.9", "--port", 0), "203.0.113.9")
    one_line(gan_nst("app", generators[0], "--host", "a" * 64, "--port", 0), "aaaa")


def test_a_missing_gradio_is_one_line(gan_nst, generators, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    one_line(gan_nst("app", generators[0]), 'pip install "gan_nst[app]"')


@pytest.mark.parametrize(
    ("number", "host"),
    [(signal.SIGINT, "0.0.0.0"), (signal.SIGTERM, "0.0.0.0"), (signal.SIGTERM, "127.0.0.2")],
)
def test_a_signal_stops_it_and_leaves_nothing(generators, tmp_path, number, host, monkeypatch):
    monkeypatch.setitem(__import__("helpers_runs").ENVIRONMENT, "TMPDIR", str(tmp_path))
    process = start("app", generators[0], "--port", 0, "--device", "cpu", "--host", host)
    line = process.stdout.readline()
    assert "open http://" in line, finish(process)
    address = line.split("open ")[1].split()[0].replace("localhost", "127.0.0.1")
    visitor = Visitor(address)
    visitor.upload(("one.png", png(noise(20, 20))))
    with visitor.http.stream("GET", "gradio_api/heartbeat/x"):  # an open page does not hold it up
        process.send_signal(number)
        code, out, err = finish(process, timeout=30)
    visitor.http.close()
    assert (code, out.strip()) == (0, "stopped"), err
    assert err.count("\n") == (host == "0.0.0.0")
    assert ("anyone who can reach" in err) == (host == "0.0.0.0")
    assert not list(tmp_path.glob("gan_nst-app-*"))


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"translation": "ab"}', "9" * 10_000])
def test_a_file_with_broken_metadata_is_skipped(tmp_path, text):
    save_file({"w": torch.zeros(1)}, tmp_path / "bad.safetensors", {"gan_nst": text})
    good = write_generator(tmp_path / "good.safetensors")
    assert [choice.path for choice in find_choices([tmp_path])] == [good]
