"""Every awkward image is read correctly, written in every format, and read back unchanged."""

import errno
import io
import logging
import os
import resource
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import awkward
import cv2
import numpy as np
import pytest
from awkward_files import ADOBE, SRGB, chunk, exif, icc_chunk, png, saved, tiff
from helpers_root import modes_hold
from PIL import Image, ImageCms

from gan_nst.core.errors import DataError, SettingsError
from gan_nst.core.options import Encoding
from gan_nst.images.colour import srgb_profile
from gan_nst.images.photo import FORMATS, Photo, read_photo, write_photo

CASES = {case.name: case for case in awkward.cases()}
READABLE = {name: case for name, case in CASES.items() if case.expected is not None}
RGB, RGB16 = awkward.RGB, awkward.RGB16
DEEP = Photo(RGB16, awkward.ALPHA16, exif())
WITH_ALPHA = Photo(RGB, awkward.ALPHA, exif())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return awkward.write(tmp_path_factory.mktemp("awkward"))


@pytest.fixture(scope="module")
def photos(files):
    logging.disable()
    found = {name: read_photo(files[name]) for name in READABLE}
    logging.disable(logging.NOTSET)
    return found


def seen(photo):
    return np.full(photo.pixels.shape[:2], True) if photo.alpha is None else photo.alpha > 0


def difference(photo, pixels):
    """The largest difference over visible pixels."""
    return np.abs(photo.pixels.astype(float) - pixels)[seen(photo)].max(initial=0)


def written(photo, path, **encoding):
    write_photo(photo, path, Encoding(**encoding))
    assert os.listdir(path.parent) == [path.name]
    return path


@pytest.mark.parametrize("name", READABLE)
def test_awkward_images_are_read(files, name, caplog, capfd):
    case, photo = CASES[name], read_photo(files[name])
    assert capfd.readouterr().err == ""  # libpng and libtiff print messages themselves
    assert (photo.pixels.shape, photo.pixels.dtype) == (case.expected.shape, case.expected.dtype)
    if case.alpha is None:
        assert photo.alpha is None
    else:
        np.testing.assert_array_equal(photo.alpha, case.alpha)
        assert photo.alpha.dtype == photo.pixels.dtype
    assert difference(photo, case.expected) <= case.tolerance
    assert photo.pixels.flags.c_contiguous
    assert photo.pixels.flags.writeable
    assert bool(caplog.messages) == bool(case.warns)
    assert not case.warns or case.warns in caplog.text


@pytest.mark.parametrize("name", [name for name in CASES if name not in READABLE])
def test_an_unreadable_image_is_refused_in_one_line(files, name, capfd):
    with pytest.raises(DataError) as caught:
        read_photo(files[name])
    message = str(caught.value)
    assert message.startswith(f"{files[name]}: ")
    assert CASES[name].says in message
    assert "\n" not in message
    assert "png" not in capfd.readouterr().err  # libpng prints messages itself


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_image_survives_a_lossless_round_trip(photos, tmp_path, suffix):
    for name, photo in photos.items():
        again = read_photo(written(photo, tmp_path / f"x{suffix}"))
        assert again.pixels.dtype == photo.pixels.dtype, name
        np.testing.assert_array_equal(again.pixels, photo.pixels, name)
        assert (again.alpha is None) == (photo.alpha is None), name
        if photo.alpha is not None:
            np.testing.assert_array_equal(again.alpha, photo.alpha, name)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_every_image_survives_a_lossy_round_trip_approximately(photos, tmp_path, suffix):
    for name, photo in photos.items():
        again = read_photo(written(photo, tmp_path / f"x{suffix}", quality=100))
        assert again.pixels.dtype == np.uint8, name
        white = np.iinfo(photo.pixels.dtype).max
        share = None if photo.alpha is None else photo.alpha[..., None] / white
        if suffix != ".jpg" and share is not None and share.min() == 1:
            share = None  # encoders omit alpha that hides nothing
        pixels = photo.pixels / white
        if suffix == ".jpg" and share is not None:
            pixels = pixels * share + 1 - share
        assert (again.alpha is None) == (share is None or suffix == ".jpg"), name
        error = np.abs(again.pixels / 255 - pixels)
        if suffix != ".jpg" and share is not None:
            assert np.abs(again.alpha[..., None] / 255 - share).max() <= 3 / 255, name
            error = error * share  # compared as displayed
        assert error.mean() <= (0.07 if suffix == ".webp" else 0.03), name  # WebP halves its chroma
        assert np.median(error) <= 9 / 255, name


def test_sixteen_bits_are_rounded_once_for_eight_bit_formats(tmp_path):
    colours = np.arange(0, 65536, 16).astype(np.uint16).reshape(64, 64)
    photo = Photo(np.stack([colours, colours, colours], -1))
    again = read_photo(written(photo, tmp_path / "x.jpg", quality=100))
    error = again.pixels - np.rint(photo.pixels / 257)
    assert np.abs(error).max() <= 2
    assert abs(error.mean()) < 0.1  # truncating would be off by half a level


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("photo", [WITH_ALPHA, DEEP], ids=["8 bits", "16 bits"])
def test_files_have_an_srgb_profile_and_exif_and_are_reproducible(tmp_path, suffix, photo):
    (tmp_path / "a").mkdir()
    path = written(photo, tmp_path / "a" / f"x{suffix}")
    content = path.read_bytes()
    with Image.open(path) as image:
        assert image.format == FORMATS[suffix]
        stored = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(stored)
        kept = image.getexif()
        assert kept[0x010F] == "Camera"
        assert kept.get(0x0112, 1) == 1
        assert kept.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
        assert kept.get_ifd(0x8825)[1] == "N"
    write_photo(photo, path)
    assert path.read_bytes() == content
    assert read_photo(path).exif is not None


def test_the_profile_has_the_same_bytes_in_every_process():
    profile = srgb_profile()
    assert profile[24:36] == bytes([0x07, 0xD0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_other_programs_read_our_16_bit_files(tmp_path, suffix):
    values = cv2.imread(str(written(DEEP, tmp_path / f"x{suffix}")), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(values, np.dstack([RGB16[..., ::-1], awkward.ALPHA16]))


def test_exif_is_kept_except_orientation_and_thumbnail(tmp_path):
    thumbnail = saved(Image.new("RGB", (8, 8), "red"), "JPEG")
    path = tmp_path / "x.png"
    path.write_bytes(png(RGB, chunk(b"eXIf", exif(6, thumbnail))))
    kept, plain = read_photo(path).exif, exif(1)
    assert kept[: len(plain)] == plain
    assert thumbnail[:50] not in kept


def test_a_thumbnail_before_other_data_is_blanked(tmp_path):
    thumbnail = saved(Image.new("RGB", (8, 8), "red"), "JPEG")
    given = exif(6, thumbnail)
    path = tmp_path / "x.png"
    path.write_bytes(png(RGB, chunk(b"eXIf", given + b"a maker's own notes")))
    kept = read_photo(path).exif
    assert len(kept) == len(given) + 19
    assert kept.endswith(b"a maker's own notes")
    assert thumbnail[:50] not in kept


def test_exif_too_large_for_jpeg_is_omitted_with_a_warning(tmp_path, caplog):
    photo = Photo(RGB, exif=exif() + bytes(70_000))
    assert read_photo(written(photo, tmp_path / "x.jpg")).exif is None
    assert "without its EXIF" in caplog.text


def test_a_tiff_keeps_its_descriptive_tags(tmp_path):
    given = Image.Exif()
    given.load(exif(6))
    Image.fromarray(RGB).save(tmp_path / "x.tif", exif=given)
    kept = Image.Exif()
    kept.load(read_photo(tmp_path / "x.tif").exif)
    assert dict(kept.get_ifd(0x8769)) == {0x9003: "2020:01:02 03:04:05"}
    assert kept[0x010F] == "Camera"
    assert not {256, 257, 273, 279} & set(kept)
    assert kept.get(0x0112, 1) == 1


@pytest.mark.parametrize("first", ["x.jpg", "x.tif"])
def test_a_tiff_keeps_its_resolution_and_page_names(tmp_path, first):
    tags = {
        269: "A document",
        285: "Its page",
        282: 300.0,
        283: 150.0,
        296: 2,
        0xC4A5: b"PrintIM\x000300\0\0",
    }
    given = Image.Exif()
    given.update(tags)
    Image.fromarray(RGB).save(tmp_path / first, exif=given)
    for again in ("again.tif", "third.png"):
        write_photo(read_photo(tmp_path / first), tmp_path / again)
        with Image.open(tmp_path / again) as image:
            kept = image.getexif()
            assert {tag: kept.get(tag) for tag in tags} == tags


def test_an_srgb_profile_changes_no_pixel(tmp_path):
    for values in np.random.default_rng(0).integers(0, 65536, (60, 60, 3)).astype(np.uint16), RGB:
        (tmp_path / "x.png").write_bytes(png(values, icc_chunk(SRGB)))
        np.testing.assert_array_equal(read_photo(tmp_path / "x.png").pixels, values)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_sixteen_bit_conversion_agrees_with_littlecms(tmp_path, kind):
    """Over the full range of colours, including those outside sRGB."""
    colours = np.random.default_rng(3).integers(0, 256, (60, 60, 3), np.uint8)
    image = ImageCms.profileToProfile(
        Image.fromarray(colours),
        ImageCms.ImageCmsProfile(io.BytesIO(ADOBE)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    values = colours if kind == np.uint8 else colours.astype(np.uint16) * 257
    (tmp_path / "x.png").write_bytes(png(values, icc_chunk(ADOBE)))
    pixels = read_photo(tmp_path / "x.png").pixels
    assert np.abs(pixels / np.iinfo(kind).max * 255 - np.asarray(image)).max() <= 1


@pytest.mark.parametrize(("chroma", "sampling"), [("4:4:4", (1, 1)), ("4:2:2", (2, 1)), ("4:2:0", (2, 2))])
def test_jpegs_have_the_given_chroma_and_quality(tmp_path, chroma, sampling):
    sizes = []
    for quality in (50, 95):
        with Image.open(written(WITH_ALPHA, tmp_path / "x.jpg", quality=quality, chroma=chroma)) as image:
            assert image.layer[0][1:3] == sampling
            sizes.append(sum(image.quantization[0]))
    assert sizes[0] > 5 * sizes[1]


@pytest.mark.parametrize("suffix", FORMATS)
def test_incompressible_noise_is_written(tmp_path, suffix):
    """Pillow's JPEG encoder fails on it when optimising."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    write_photo(Photo(noise), tmp_path / f"noise{suffix}", Encoding(quality=100))
    found = read_photo(tmp_path / f"noise{suffix}").pixels
    assert np.abs(found.astype(int) - noise).mean() < 50  # WebP keeps half of the colours' resolution


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_quality_makes_files_larger(tmp_path, suffix):
    noise = Photo(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    low, high = (written(noise, tmp_path / f"x{suffix}", quality=q).stat().st_size for q in (20, 95))
    assert high > 2 * low


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quality": 0}, "--quality: expected a whole number from 1 to 100, got 0"),
        ({"quality": 101}, "--quality: expected a whole number from 1 to 100, got 101"),
        ({"chroma": "4:1:1"}, "--chroma: expected one of 4:4:4, 4:2:2, 4:2:0, got '4:1:1'"),
    ],
)
def test_an_invalid_encoding_is_refused(settings, says):
    with pytest.raises(SettingsError, match=says):
        Encoding(**settings)


def test_the_largest_size_can_be_set(tmp_path, monkeypatch):
    large = np.tile(RGB, (40, 40, 1))
    (tmp_path / "x.png").write_bytes(png(large))
    pixels = large.shape[0] * large.shape[1]
    with pytest.raises(DataError, match=r"has 1040 x 720 pixels.*--max-pixels"):
        read_photo(tmp_path / "x.png", largest=pixels - 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels // 2 - 1)  # Pillow refuses twice as many
    np.testing.assert_array_equal(read_photo(tmp_path / "x.png", largest=pixels).pixels, large)
    assert pixels // 2 - 1 == Image.MAX_IMAGE_PIXELS


def test_a_bomb_is_refused_before_it_is_decoded(files, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("was decoded"))
    for name in ("bomb.png", "bomb.tif"):
        with pytest.raises(DataError, match="10,000,000,000,"):
            read_photo(files[name])


def test_special_files_are_reported(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read_photo(tmp_path / "none.png")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_photo(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: not a file but a pipe"):
        read_photo(tmp_path / "pipe.png")
    (tmp_path / "x.png").write_bytes(png(RGB))
    (tmp_path / "x.png").chmod(0)
    with modes_hold(), pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        read_photo(tmp_path / "x.png")


def test_threads_read_at_once_without_changing_warning_filters(files):
    noisy = [files[name] for name in ("exif_is_garbage.jpg", "exif_is_garbage.png", "palette_half_clear.png")]
    filters = list(warnings.filters)
    start = threading.Barrier(4)

    def read(_):
        start.wait()
        return [read_photo(path).pixels for path in noisy * 5]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read, range(4)))
    for pixels in zip(*results, strict=True):
        for other in pixels[1:]:
            np.testing.assert_array_equal(pixels[0], other)
    assert warnings.filters == filters


@pytest.mark.parametrize("name", ["x.bmp", "x", "x.xyz", "x.png.txt"])
def test_an_unknown_suffix_is_reported_with_the_known_ones(tmp_path, name):
    with pytest.raises(DataError, match=r"\.png \.jpg .*\.avif") as caught:
        write_photo(WITH_ALPHA, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("suffix", "side"), [(".jpg", 65_501), (".webp", 16_384), (".avif", 32_769)])
@pytest.mark.parametrize("turn", [0, 1])
def test_sides_too_long_for_a_format_are_reported(tmp_path, suffix, side, turn):
    pixels = np.rot90(np.zeros((1, side, 3), np.uint8), turn)
    with pytest.raises(DataError, match=f"at most {side - 1} pixels a side, not"):
        write_photo(Photo(pixels), tmp_path / f"x{suffix}")
    assert os.listdir(tmp_path) == []
    write_photo(Photo(pixels[: side - 1, : side - 1]), tmp_path / f"x{suffix}")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("photo", [WITH_ALPHA, DEEP], ids=["8 bits", "16 bits"])
def test_a_full_disk_is_reported_and_keeps_the_old_file(tmp_path, suffix, photo):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(DataError) as caught:
            write_photo(photo, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == (
        f"{path}: could not be written ({os.strerror(errno.EFBIG)}); "
        "files of that size are not allowed there; raise the limit or choose another disk"
    )
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"before"


def test_ctrl_c_leaves_no_partial_file(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_photo(WITH_ALPHA, tmp_path / "x.png")
    assert os.listdir(tmp_path) == []


def test_unwritable_paths_are_reported(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "x.png").mkdir()
    for path in (tmp_path / "file" / "x.png", tmp_path / "x.png", tmp_path / f"{'long' * 70}.png"):
        with pytest.raises(DataError, match=r": could not be written \(.+\)") as caught:
            write_photo(WITH_ALPHA, path)
        assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "x.png"]


def test_folders_are_created(tmp_path):
    write_photo(WITH_ALPHA, tmp_path / "a" / "b" / "x.PNG")
    np.testing.assert_array_equal(read_photo(tmp_path / "a" / "b" / "x.PNG").pixels, RGB)


def test_a_tiff_of_several_strips_is_complete(tmp_path):
    """More than the quarter megapixel of a strip."""
    noise = np.random.default_rng(0).integers(0, 65536, (700, 900, 3)).astype(np.uint16)
    path = written(Photo(noise), tmp_path / "x.tif")
    with Image.open(path) as image:
        assert len(image.tag_v2[273]) == 3
    np.testing.assert_array_equal(read_photo(path).pixels, noise)
    assert tiff(noise)[:4] == path.read_bytes()[:4]
