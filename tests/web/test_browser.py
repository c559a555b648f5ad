"""The page of `gan-nst app` in a real browser: an image is dropped, translated, compared and downloaded."""

import time

import numpy as np
import pytest
from helpers_app import write_generator
from helpers_browser import Browser
from helpers_data import noise
from helpers_pages import inked, needs_browser
from PIL import Image

pytest.importorskip("gradio", reason="gradio is not installed")

from gan_nst.commands.translate import translate
from gan_nst.core.options import AppOptions, TranslateOptions
from gan_nst.images.files import find_images, write_image
from gan_nst.web.jobs import find_choices
from gan_nst.web.server import serving

pytestmark = needs_browser

FILE_INPUT = "#images input[type=file]"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of both directions."""
    run = tmp_path_factory.mktemp("runs") / "horse2zebra" / "cyclegan" / "20250101-000000"
    (run / "checkpoints").mkdir(parents=True)
    write_generator(run / "generator.safetensors")
    write_generator(run / "generator_ba.safetensors", seed=1, translation="ba")
    return run


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    other = write_generator(tmp_path_factory.mktemp("other") / "other.safetensors", seed=2)
    options = AppOptions(port=0, device="cpu", precision="float32")
    with serving(find_choices([other, run]), options) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(browser, address):
    """The page, freshly opened. It must load nothing from other servers and leave the console empty."""
    browser.requested.clear()
    browser.console.clear()
    browser.resize(1200, 900)
    browser.open(address)
    browser.wait("!!document.querySelector('#images input[type=file]')")
    yield browser
    assert browser.outside(address) == []
    assert browser.console == []


@pytest.fixture
def photo(tmp_path, request):
    """A real photograph if one is available, otherwise noise."""
    try:
        return find_images(request.getfixturevalue("test_data") / "photo2hayao" / "testA")[0]
    except pytest.skip.Exception:
        write_image(noise(120, 180), tmp_path / "my photo.png")
        return tmp_path / "my photo.png"


def press(page, button):
    page.run(f"document.querySelector('#{button}').click()")


def wait_for_status(page, text, timeout=60):
    page.wait(f"document.querySelector('#status').innerText.includes({text!r})", timeout)


def drop(page, *paths):
    page.upload(FILE_INPUT, *paths)
    page.wait(f"document.querySelectorAll('#images tr.file').length == {len(paths)}")


def widths(page):
    """Returns the widths of the page and of its window."""
    return page.run("[document.documentElement.scrollWidth, window.innerWidth]")


def test_a_dropped_image_becomes_the_file_that_translate_writes(page, run, photo, tmp_path):
    drop(page, photo)
    page.run("document.querySelector('#run input').focus()")
    page.wait("document.querySelectorAll('#run [role=option]').length == 3")
    page.run(
        "document.querySelectorAll('#run [role=option]')[2]"
        ".dispatchEvent(new MouseEvent('mousedown', {bubbles: true}))"
    )
    page.wait("document.querySelector('#run input').value.includes('zebra to horse')")
    time.sleep(0.3)
    press(page, "go")
    wait_for_status(page, "1 image translated")
    page.wait("document.querySelectorAll('#compare img').length == 2")

    folder = tmp_path / "downloads"
    page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.run("document.querySelector('#downloads a').click()")
    deadline = time.monotonic() + 30
    while not (folder.is_dir() and find_images(folder)):
        assert time.monotonic() < deadline, "nothing was downloaded"
        time.sleep(0.1)
    (downloaded,) = find_images(folder)
    outcome = translate(
        run, photo, tmp_path / "out", TranslateOptions(direction="ba", device="cpu", precision="float32")
    )
    assert downloaded.name == outcome.written[0].name
    assert downloaded.read_bytes() == outcome.written[0].read_bytes()

    for width in (1200, 390):
        page.resize(width, 900, mobile=width < 500)
        time.sleep(0.5)
        width_of_page, window = widths(page)
        assert width_of_page <= window == width
        page.screenshot(tmp_path / f"{width}.png")
        with Image.open(tmp_path / f"{width}.png") as shot:
            assert inked(np.asarray(shot.convert("RGB"))) > 0.1


def test_several_images_are_compared_one_by_one(page, tmp_path):
    paths = [tmp_path / f"{name}.png" for name in ("one", "two", "four", "five")]
    for number, path in enumerate(paths):
        write_image(noise(40, 60, seed=number), path)
    (tmp_path / "three.png").write_bytes(b"no image")
    drop(page, *paths, tmp_path / "three.png")
    press(page, "go")
    wait_for_status(page, "4 images translated")
    wait_for_status(page, "three.png")
    page.wait("document.querySelectorAll('#gallery .gallery-item').length == 4")
    first = page.run("document.querySelector('#compare img').src")
    page.run(
        "document.querySelectorAll('#gallery .gallery-item button, #gallery button.gallery-item')[1].click()"
    )
    page.wait(f"document.querySelector('#compare img').src != {first!r}")
    assert page.run("document.querySelectorAll('#downloads tr.file').length") == 5  # and all.zip
    page.resize(390, 900, mobile=True)
    time.sleep(0.5)
    right_edges = (
        "[...document.querySelectorAll('#gallery .gallery-item')].map(e => e.getBoundingClientRect().right)"
    )
    assert max(page.run(right_edges)) < 390


def test_an_error_is_one_line_and_the_page_still_works(page, tmp_path):
    press(page, "go")
    page.wait("document.querySelector('.toast-body')?.innerText.includes('no image yet')")
    wait_for_status(page, "Not translated: no image yet")
    write_image(noise(40, 60), tmp_path / "one.png")
    drop(page, tmp_path / "one.png")
    press(page, "go")
    wait_for_status(page, "1 image translated")


def test_cancel_stops_the_remaining_images(page, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        write_image(noise(500, 700, seed=number), path)
    drop(page, *paths)
    press(page, "go")
    wait_for_status(page, "image 2 of 12")
    press(page, "stop")
    wait_for_status(page, "Cancelled")
    time.sleep(1)
    wait_for_status(page, "Cancelled")
    press(page, "go")
    wait_for_status(page, "image 2 of 12")
    press(page, "stop")
    wait_for_status(page, "Cancelled")
