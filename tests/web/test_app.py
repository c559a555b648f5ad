"""`gan-nst app`: what the page gives is what `translate` writes, and it opens nothing but what was dropped on it."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
import zipfile
from io import BytesIO
from pathlib import Path

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
from gan_nst.core.options import Computing, TranslateOptions
from gan_nst.images.files import write_image
from gan_nst.images.finish import Finish
from gan_nst.images.photo import Photo
from gan_nst.inference.outputs import Naming
from gan_nst.web.gate import Gate
from gan_nst.web.jobs import Jobs, Result, Store, archive, preview
from gan_nst.web.offer import Offer, Source, make_offer
from gan_nst.web.page import _refusal
from gan_nst.web.server import Limits, serving

LIMITS = Limits(upload=300_000, pixels=20_000)
HOSTILE_NUMBERS = [-1, 2, 1.5, True, None, "0", "runs", "../../etc", [0], {"path": "/etc/passwd"}]


@pytest.fixture(scope="module")
def generators(tmp_path_factory):
    """Two tiny generators' files."""
    folder = tmp_path_factory.mktemp("generators")
    return [write_generator(folder / f"{name}.safetensors", seed) for seed, name in enumerate(("one", "two"))]


@pytest.fixture(scope="module")
def visitor(generators):
    with visiting(make_offer(generators, Computing("cpu", "float32")), limits=LIMITS) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A PNG of 16 bits with alpha, a JPEG that lies on its side, and a plain one of an odd size."""
    folder = tmp_path_factory.mktemp("images")
    deep = np.random.default_rng(0).integers(0, 65536, (37, 50, 4), np.uint16)
    cv2.imwrite(str(folder / "deep.png"), deep)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    Image.fromarray(noise(40, 61)).save(folder / "turned.jpg", exif=exif)
    write_image(noise(33, 45, seed=1), folder / "plain.png")
    return folder


def written(generator, image, folder, **options):
    """What `translate` writes of an image: (name, bytes)."""
    outcome = translate(
        generator, image, folder, TranslateOptions(device="cpu", precision="float32", **options)
    )
    assert len(outcome.written) == 1
    return outcome.written[0].name, outcome.written[0].read_bytes()


# What it gives


@pytest.mark.parametrize("name", ["deep.png", "turned.jpg", "plain.png"])
@pytest.mark.parametrize("form", ["png", "same"])
def test_the_result_is_the_file_that_translate_writes(visitor, generators, images, tmp_path, name, form):
    (upload,) = visitor.upload(images / name)
    (result,) = visitor.results(upload, form=form)
    assert result == written(generators[0], images / name, tmp_path, format=form)


def test_run_strength_colours_and_size_reach_the_translation(visitor, generators, images, tmp_path):
    (upload,) = visitor.upload(images / "plain.png")
    plain = visitor.results(upload)
    for number, options in enumerate([{"run": 1}, {"strength": 0.5}, {"colours": "luma"}, {"scale": 0.5}]):
        (result,) = visitor.results(upload, **options)
        given = {"preserve_color" if key == "colours" else key: value for key, value in options.items()}
        generator = generators[given.pop("run", 0)]
        assert result == written(generator, images / "plain.png", tmp_path / str(number), **given)
        assert [result] != plain, options


def test_several_images_come_back_with_one_archive_of_all(visitor, images):
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
    shown = [visitor.http.get(f"gradio_api/file={image['path']}").content for image in output["data"][1]]
    before, after = (np.asarray(Image.open(BytesIO(content)).convert("RGB"), int) for content in shown)
    assert np.abs(before - smooth).mean() < 4
    assert np.array_equal(before, after)


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize("form", ["webp", "same"])
def test_a_preview_is_never_written_over_the_result(visitor, generators, tmp_path, name, form):
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
def test_no_two_files_of_an_archive_share_a_name(tmp_path, names):
    results = []
    for number, name in enumerate(names):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        path.write_text(str(number))
        results.append(Result(path, path, path))
    with zipfile.ZipFile(archive(results, tmp_path)) as packed:
        assert len(set(packed.namelist())) == len(names)
        assert [packed.read(name).decode() for name in packed.namelist()] == list(map(str, range(len(names))))


def test_a_preview_is_small_over_white_and_of_8_bits():
    deep = np.full((2000, 4000, 3), 65535 // 2, np.uint16)
    alpha = np.zeros((2000, 4000), np.uint16)
    alpha[:, 2000:] = 65535
    shown = preview(Photo(deep, alpha, exif=b"secret"))
    assert (shown.pixels.shape, shown.pixels.dtype) == ((800, 1600, 3), np.uint8)
    assert (shown.alpha, shown.exif) == (None, None)
    assert set(shown.pixels[:, :790].ravel()) == {255}
    assert set(shown.pixels[:, 810:].ravel()) == {127}
    assert preview(Photo(np.zeros((1, 5000, 3), np.uint8))).pixels.shape == (1, 1600, 3)


def test_the_page_asks_nothing_of_others(visitor):
    page = visitor.http.get("")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert visitor.config["analytics_enabled"] is False
    assert "fonts.g" not in page.text + visitor.http.get("theme.css").text
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


# What it refuses


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
        assert visitor.http.get(f"gradio_api/file={path}".replace("\0", "%00")).status_code in (403, 404), (
            path
        )
        for named in (as_file(path), as_file(path) | {"url": visitor.address}):
            answer = visitor.join("translate", [named], 0, "", 1, "none", 1, "png")
            assert answer.status_code == 403, path
        answer = visitor.join("translate", [], as_file(path), "", 1, "none", 1, {"deep": [as_file(path)]})
        assert answer.status_code == 403, path
    assert visitor.results(upload)


def test_jobs_open_nothing_but_uploads_by_themselves(generators, images, tmp_path):
    jobs = Jobs(make_offer(generators), Store(tmp_path / "store", 10**9), 10**6, 10**6, 3)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link.png").symlink_to(images / "plain.png")
    for path in (
        "/etc/passwd",
        images / "plain.png",
        tmp_path / "store" / "link.png",
        tmp_path / "store",
        None,
        "\0",
    ):
        with pytest.raises(DataError, match="no such upload"):
            next(jobs.run([path], 0, "", Finish(), Naming()))


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=http://127.0.0.1:1/x.png",
        "gradio_api/proxy=http://127.0.0.1:1/x.png",
        "gradio_api/file/etc/passwd",
        "gradio_api/runs",
        "gradio_api/run-history/buckets",
        "gradio_api/deep_link?session_hash=x",
        "gradio_api/openapi.json",
        "gradio_api/vibe-code",
        "monitoring",
        "monitoring/summary",
        "docs",
        "login_check",
    ],
)
def test_what_the_page_does_not_need_is_shut(visitor, path):
    assert visitor.http.get(path).status_code in (403, 404)


@pytest.mark.parametrize(
    "path", ["component_server", "process_recording", "stream/x", "vibe-edit", "call/translate"]
)
def test_what_the_page_does_not_send_is_not_taken(visitor, path):
    assert visitor.http.post(f"gradio_api/{path}", json={}).status_code == 404


def test_the_queue_cannot_be_passed(visitor):
    question = {"data": [[], 0, "", 1, "none", 1, "png"], "fn_index": visitor.numbers["translate"]}
    assert visitor.http.post("gradio_api/run/translate", json=question).status_code == 404


@pytest.mark.parametrize("number", HOSTILE_NUMBERS)
def test_a_run_is_one_of_those_offered(visitor, generators, images, number):
    (upload,) = visitor.upload(images / "plain.png")
    answer = visitor.join("translate", [as_file(upload)], number, "", 1, "none", 1, "png")
    if answer.status_code == 200:
        well, output = visitor.translate(upload, run=number)
        assert not well
        assert "\n" not in output["error"]
        assert "/" not in output["error"].replace("../../etc", "")
    offer = make_offer(generators)
    for ask in (offer.directions, lambda number: offer.translator(number, "")):
        with pytest.raises(SettingsError, match="no such run"):
            ask(number)


@pytest.mark.parametrize(
    "options",
    [
        {"direction": "ba"},
        {"direction": "../x"},
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
    well, output = visitor.translate(upload, **options)
    assert not well
    assert "Traceback" not in str(output)
    assert visitor.results(upload)


def test_a_file_or_a_request_too_large_is_refused_and_the_page_goes_on(visitor, images):
    large = ("large.png", bytes(LIMITS.upload + 1))
    answer = visitor.http.post("gradio_api/upload", files=[("files", large)])
    assert answer.status_code == 413
    answer = visitor.http.post("gradio_api/upload", files=[("files", ("x.png", bytes(290_000)))] * 40)
    assert answer.status_code == 413
    pieces = (bytes(1000) for _ in range(3))
    assert visitor.http.post("gradio_api/upload", content=pieces).status_code == 411
    assert visitor.join("translate", "x" * 300_000).status_code == 413
    assert visitor.results(*visitor.upload(images / "plain.png"))


@pytest.mark.parametrize(("path", "kind"), [("queue/join", "json"), ("upload", "form-data; boundary=x")])
def test_a_length_is_not_overruled_by_chunks(visitor, path, kind):
    content = b'{"data": "%s"}' % bytes(300_000).replace(b"\0", b"x")
    head = (
        f"POST /gradio_api/{path} HTTP/1.1\r\nHost: {visitor.http.base_url.netloc.decode()}\r\n"
        f"Content-Type: application/{kind}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection((visitor.http.base_url.host, visitor.http.base_url.port)) as line:
        line.sendall(head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))
        assert line.recv(100).startswith(b"HTTP/1.1 411 ")
    assert visitor.http.get("config", headers={"transfer-encoding": "chunked"}).status_code == 411


@pytest.mark.parametrize("path", ["queue/join", "upload"])
def test_what_comes_is_counted_whatever_length_was_said(tmp_path, path):
    taken, said = [], []
    pieces = iter([True] * 30 + [False])

    async def page(scope, receive, send):
        """Reads all, and when that fails says so, as frameworks do."""
        try:
            while (message := await receive())["more_body"]:
                taken.append(len(message["body"]))
        except Exception:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            raise

    async def receive():
        return {"type": "http.request", "body": bytes(50_000), "more_body": next(pieces)}

    async def send(message):
        said.append(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"5")]
    scope = {"type": "http", "method": "POST", "path": f"/gradio_api/{path}", "headers": headers}
    asyncio.run(Gate(page, tmp_path, 500_000, {"localhost"}, lambda: None)(scope, receive, send))
    assert [message.get("status") for message in said] == [413, None]
    assert sum(taken) <= 500_000


def test_a_question_is_seen_through_whatever_it_calls_itself(visitor):
    question = {"data": [as_file("/etc/passwd")], "fn_index": visitor.numbers["directions"]}
    answer = visitor.http.post("gradio_api/run/upload", json=question)
    assert (answer.status_code, answer.text) == (403, "no such file here\n")


def test_too_many_images_or_pixels_or_none_is_one_line(visitor, images):
    well, output = visitor.translate()
    assert (well, output["error"]) == (False, "no image yet; drop one first")
    (upload,) = visitor.upload(images / "plain.png")
    well, output = visitor.translate(*[upload] * 21)
    assert (well, output["error"]) == (False, "21 images; this page takes 20 at a time")
    (upload,) = visitor.upload(("wide.png", png(np.zeros((100, 201, 3), np.uint8))))
    well, output = visitor.translate(upload)
    assert not well
    assert output["error"].startswith("wide.png: ")
    assert "\n" not in output["error"]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_broken_image_is_one_line_and_the_others_are_done(visitor, images, content):
    broken, good = visitor.upload(("broken.png", content), images / "plain.png")
    well, output = visitor.translate(broken)
    assert not well
    assert output["error"].startswith("broken.png: ")
    assert "\n" not in output["error"]
    assert "Traceback" not in output["error"]
    well, output = visitor.translate(broken, good)
    assert well
    assert "1 image translated" in output["data"][0]
    assert "not translated: broken.png" in output["data"][0]
    assert len(output["data"][3]["value"]) == 1


def test_a_name_is_never_markup_nor_a_path(visitor, images):
    (upload,) = visitor.upload(("../../<img src=x onerror=alert(1)>.png", b"no image"))
    well, output = visitor.translate(upload)
    assert not well
    assert "<" not in output["error"]
    assert str(_refusal("<b>")) == "'&lt;b&gt;'"  # Gradio takes the signs out of names, not of lines
    assert ".." not in output["error"]


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example:7860"}, {"origin": "http://evil.example"}, {"origin": "null"}]
)
def test_other_sites_cannot_make_a_browser_ask(visitor, headers):
    assert visitor.http.get("config", headers=headers).status_code == 403
    question = {"data": [0], "fn_index": visitor.numbers["directions"], "session_hash": "x"}
    assert visitor.http.post("gradio_api/queue/join", json=question, headers=headers).status_code == 403
    own = {"origin": visitor.address.rstrip("/")}
    assert visitor.http.get("config", headers=own).status_code == 200


# How it works inside


def test_translators_are_loaded_once_and_few_are_kept(tmp_path):
    loaded = []
    offer = Offer(
        [Source(write_generator(tmp_path / f"{n}.safetensors"), str(n)) for n in range(5)],
        lambda path, direction: loaded.append(path.stem) or path,
    )
    for number in (0, 1, 0, 2, 0, 3, 0, 1):
        assert offer.translator(number, "").stem == str(number)
    assert loaded == ["0", "1", "2", "3", "1"]


def test_a_generator_that_is_gone_tells_no_folder(tmp_path, caplog):
    (tmp_path / "secret").mkdir()
    path = write_generator(tmp_path / "secret" / "x.safetensors")
    offer = make_offer([path])
    path.unlink()
    with pytest.raises(CheckpointError, match=r"^secret/x\.safetensors: cannot be loaded now"):
        offer.translator(0, "")
    assert f"{path}: no such" in caplog.text


def test_a_folder_offers_all_that_translates_in_it_newest_first(tmp_path):
    runs = tmp_path / "runs" / "horse2zebra" / "cyclegan"
    for stamp in ("20240101-000000", "20250101-000000"):
        (runs / stamp / "checkpoints").mkdir(parents=True)
        write_generator(runs / stamp / "generator.safetensors")
        write_generator(runs / stamp / "generator_ba.safetensors", translation="ba")
    (runs / "20260101-000000" / "checkpoints").mkdir(parents=True)  # nothing was saved
    (runs / "latest").symlink_to("20250101-000000")
    single = write_generator(tmp_path / "runs" / "other.safetensors")
    offer = make_offer([tmp_path / "runs", single, runs / "20240101-000000"])
    assert [source.path for source in offer.sources] == [
        single,
        runs / "20250101-000000",
        runs / "20240101-000000",
    ]
    assert offer.directions(1) == [("horse to zebra", "ab"), ("zebra to horse", "ba")]
    assert offer.directions(0) == [("as its file says", "")]
    assert offer.translator(1, "ba").description.translation == "ba"
    assert str(tmp_path) not in "".join(source.title for source in offer.sources)
    for wrong in (tmp_path / "nothing", runs / "20260101-000000"):
        with pytest.raises(CheckpointError, match=wrong.name):
            make_offer([wrong])


def test_a_file_that_holds_no_generator_is_not_offered(tmp_path, caplog):
    good = write_generator(tmp_path / "good.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:100])
    save_file({"x": torch.zeros(1)}, tmp_path / "features.safetensors")
    assert [source.path for source in make_offer([tmp_path]).sources] == [good]
    for name in ("cut", "features"):
        assert f"{name}.safetensors: left out, as it holds no generator" in caplog.text


def test_one_image_at_a_time_whoever_asks(images, tmp_path):
    busy, most = [], []

    class Translator:
        def translate(self, given):
            busy.append(1)
            most.append(len(busy))
            time.sleep(0.02)
            busy.pop()
            return list(given)

    offer = Offer([Source(write_generator(tmp_path / "one.safetensors"), "one")], lambda *_: Translator())
    store = Store(tmp_path / "store", 10**9)
    store.folder.mkdir()
    write_image(noise(20, 20), store.folder / "one.png")
    jobs = Jobs(offer, store, 10**6, 10**6, 3)

    def ask():
        made = list(jobs.run([store.folder / "one.png"] * 3, 0, "", Finish(), Naming()))
        assert all(isinstance(one, Result) for one in made), made

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 9


def test_a_job_that_was_left_halfway_keeps_nobody_waiting(generators, images, tmp_path):
    store = Store(tmp_path / "store", 10**9)
    store.folder.mkdir()
    write_image(noise(20, 20), store.folder / "one.png")
    jobs = Jobs(make_offer(generators, Computing("cpu")), store, 10**6, 10**6, 3)
    left = jobs.run([store.folder / "one.png"] * 2, 0, "", Finish(), Naming())
    assert isinstance(next(left), Result)
    assert isinstance(next(jobs.run([store.folder / "one.png"], 0, "", Finish(), Naming())), Result)


def test_what_goes_wrong_inside_is_one_line_without_this_machines_folders(tmp_path, caplog):
    def fail(path, direction):
        raise errors.pop()

    offer = Offer([Source(write_generator(tmp_path / "one.safetensors"), "one")], fail)
    store = Store(tmp_path / "store", 10**9)
    store.folder.mkdir()
    write_image(noise(20, 20), store.folder / "one.png")
    jobs = Jobs(offer, store, 10**6, 10**6, 3)
    errors = [
        RuntimeError(f"CUDA out of memory\n{tmp_path}"),
        DataError(f"{store.folder}/results/a1/0/my one.png: could not be written"),
    ]
    assert list(jobs.run([store.folder / "one.png"] * 2, 0, "", Finish(), Naming())) == [
        "my one.png: could not be written",
        "one.png: could not be translated (RuntimeError)",
    ]
    assert "CUDA out of memory" in caplog.text


def test_the_store_lets_the_oldest_files_go(tmp_path):
    store = Store(tmp_path, 250)
    for age, name in enumerate(("new", "old", "older", "oldest")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(bytes(100))
        os.utime(tmp_path / name / "x.png", (1000 - age, 1000 - age))
    store.make_room()
    assert sorted(path.parent.name for path in tmp_path.rglob("*.png")) == ["new", "old"]


def test_folders_left_empty_go_and_new_ones_stay(tmp_path):
    store = Store(tmp_path, 0)
    fresh = store.new_folder()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.png").write_bytes(bytes(100))
    assert store.make_room({tmp_path / "a"}) is False
    assert (tmp_path / "a" / "b" / "x.png").exists()
    assert store.make_room() is True
    assert sorted(tmp_path.rglob("*")) == [fresh.parent, fresh]


def test_room_is_made_by_several_at_once(tmp_path):
    store = Store(tmp_path, 2000)
    errors = []

    def work(number):
        try:
            for at in range(100):
                folder = tmp_path / f"{number}-{at}"
                folder.mkdir()
                (folder / "x.png").write_bytes(bytes(100))
                store.make_room()
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.png")) <= 2000


def test_a_file_that_vanishes_is_passed_over(tmp_path, monkeypatch):
    store = Store(tmp_path, 150)
    for name in ("gone.png", "kept.png", "old.png"):
        (tmp_path / name).write_bytes(bytes(100))
    os.utime(tmp_path / "old.png", (1000, 1000))
    lstat = Path.lstat

    def vanish(path):
        if path.name == "gone.png":
            path.unlink(missing_ok=True)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", vanish)
    store.make_room()
    assert [path.name for path in tmp_path.iterdir()] == ["kept.png"]


def test_results_do_not_outgrow_the_store(generators, tmp_path):
    store = Store(tmp_path / "store", 10**9)
    store.folder.mkdir()
    uploads = [store.folder / f"{number}.png" for number in range(4)]
    for upload in uploads:
        write_image(noise(60, 60), upload)

    def run(jobs):
        return list(jobs.run(uploads, 0, "", Finish(), Naming()))

    jobs = Jobs(make_offer(generators, Computing("cpu")), store, 10**6, 10**6, 4)
    first = run(jobs)
    size = sum(path.stat().st_size for path in first[0].file.parent.rglob("*.*"))
    store.largest = sum(upload.stat().st_size for upload in uploads) + int(2.5 * size)
    second = run(jobs)  # lets the first results go, and neither its uploads nor what it has made
    assert all(isinstance(made, Result) and made.file.exists() and made.after.exists() for made in second[:2])
    assert second[2:] == [
        f"{n}.png: no room for its result; translate fewer or smaller images at a time" for n in (2, 3)
    ]
    assert not any(made.file.parent.exists() for made in first)
    assert all(upload.exists() for upload in uploads)
    assert sum(path.stat().st_size for path in store.folder.rglob("*.*")) <= store.largest


def test_uploads_are_pruned_before_the_next_one(generators):
    with visiting(make_offer(generators, Computing("cpu")), limits=Limits(upload=1000)) as visitor:
        stored = [Path(visitor.upload((f"{n}.png", bytes([n]) * 1000))[0]) for n in range(60)]
        assert sum(path.exists() for path in stored) <= 41
        assert stored[-1].exists()


def test_nothing_is_left_at_the_end(generators, images, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/before")
    with serving(make_offer(generators, Computing("cpu"))) as (address, thread):
        visitor = Visitor(address)
        (upload,) = visitor.upload(images / "plain.png")
        assert visitor.results(upload)
        visitor.http.close()
    assert not thread.is_alive()
    assert not Path(upload).parents[1].exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "/before"


# The command


def test_what_cannot_be_served_is_one_line(gan_nst, generators, tmp_path):
    one_line(gan_nst("app", tmp_path / "nothing"), "nothing", "no such run")
    one_line(gan_nst("app", tmp_path), "nothing that translates")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one_line(gan_nst("app", generators[0], "--port", port), port, "in use", "--port")
    one_line(gan_nst("app", generators[0], "--port", 99999), "99999")
    one_line(gan_nst("app", generators[0], "--host", "203.0.113.9", "--port", 0), "203.0.113.9")
    one_line(gan_nst("app", generators[0], "--host", "a" * 64, "--port", 0), "aaaa")


def test_a_missing_gradio_is_one_line(gan_nst, generators, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    one_line(gan_nst("app", generators[0]), 'pip install "gan_nst[app]"')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_and_leaves_nothing(generators, tmp_path, number, monkeypatch):
    monkeypatch.setitem(__import__("helpers_runs").ENVIRONMENT, "TMPDIR", str(tmp_path))
    process = start("app", generators[0], "--port", 0, "--device", "cpu", "--host", "0.0.0.0")
    line = process.stdout.readline()
    assert "open http://0.0.0.0:" in line, finish(process)
    address = line.split("open ")[1].split()[0].replace("0.0.0.0", "127.0.0.1")
    visitor = Visitor(address)
    visitor.upload(("one.png", png(noise(20, 20))))
    with visitor.http.stream("GET", "gradio_api/heartbeat/x"):  # an open page does not hold it up
        process.send_signal(number)
        code, out, err = finish(process, timeout=30)
    visitor.http.close()
    assert (code, out.strip()) == (0, "stopped"), err
    assert err.count("\n") == 1
    assert "whoever reaches" in err
    assert not list(tmp_path.glob("gan_nst-app-*"))


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"translation": "ab"}', "9" * 10_000])
def test_a_file_in_a_folder_that_says_nothing_of_itself_is_left_out(tmp_path, text):
    save_file({"w": torch.zeros(1)}, tmp_path / "bad.safetensors", {"gan_nst": text})
    good = write_generator(tmp_path / "good.safetensors")
    assert [source.path for source in make_offer([tmp_path]).sources] == [good]
