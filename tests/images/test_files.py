"""Images of every kind are read as RGB uint8, upright and complete, or refused."""

import os

import cv2
import numpy as np
import pytest
import torch
from helpers_root import modes_hold
from PIL import Image

from gan_nst.core.errors import DataError
from gan_nst.images import files as module
from gan_nst.images.arrays import resize_image, to_float, to_image, to_tensor, to_uint8
from gan_nst.images.files import find_images, read_image, to_rgb, write_image

GRAY = np.array([[0, 85, 51], [170, 255, 204]], np.uint8)  # multiples of 51 and 85 survive palettes and CMYK
RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def as_rgb(gray):
    return np.repeat(np.asarray(gray)[..., None], 3, 2)


def save(pil, path, **options):
    pil.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", ".png"), ("L", ".png"), ("LA", ".png"), ("RGBA", ".png"), ("CMYK", ".tif"), ("RGBX", ".tif")],
)
def test_every_opaque_mode_becomes_rgb(tmp_path, mode, suffix):
    pil = Image.fromarray(RGB if mode not in ("L", "LA") else GRAY).convert(mode)
    image = read_image(save(pil, tmp_path / f"x{suffix}"))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, RGB if mode not in ("L", "LA") else as_rgb(GRAY))


def test_one_bit_images_become_black_and_white(tmp_path):
    image = read_image(save(Image.fromarray(GRAY > 100), tmp_path / "x.png"))
    np.testing.assert_array_equal(image, as_rgb(np.where(GRAY > 100, 255, 0)))


def test_palettes_are_looked_up(tmp_path):
    pil = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L").convert("L")
    pil.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image = read_image(save(pil, tmp_path / "x.png"))
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    np.testing.assert_array_equal(image, colours[[[0, 1], [2, 1]]])


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_the_transparent_colour_of_a_palette_is_white(tmp_path, suffix):
    pil = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L").convert("L")
    pil.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image = read_image(save(pil, tmp_path / f"x{suffix}", transparency=1))
    colours = np.array([[10, 20, 30], [255, 255, 255], [70, 80, 90]])
    np.testing.assert_array_equal(image, colours[[[0, 1], [2, 1]]])


@pytest.mark.parametrize(("mode", "colour"), [("L", 85), ("RGB", (85, 85, 85))])
def test_a_transparent_colour_is_white(tmp_path, mode, colour):
    image = read_image(save(Image.fromarray(GRAY).convert(mode), tmp_path / "x.png", transparency=colour))
    np.testing.assert_array_equal(image, as_rgb(np.where(GRAY == 85, 255, GRAY)))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_composited_over_white(tmp_path, mode):
    alpha = np.array([[0, 255, 128], [128, 0, 255]], np.uint8)
    pil = Image.fromarray(GRAY).convert(mode)
    pil.putalpha(Image.fromarray(alpha))
    image = read_image(save(pil, tmp_path / "x.png"))
    expected = GRAY * (alpha / 255) + 255 * (1 - alpha / 255)
    np.testing.assert_allclose(image, as_rgb(expected), atol=1)


GRAY16 = np.array([[0, 257 * 3, 20_000], [300, 40_000, 65_535]], np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path, suffix):
    path = save(Image.fromarray(GRAY16), tmp_path / f"x{suffix}")
    with Image.open(path) as pil:
        assert pil.mode == "I;16"
    np.testing.assert_array_equal(read_image(path), as_rgb(np.round(GRAY16 / 257)))


def test_thirty_two_bit_integers_are_scaled_like_sixteen_bit_ones(tmp_path):
    path = save(Image.fromarray(GRAY16.astype(np.int32)), tmp_path / "x.tif")
    with Image.open(path) as pil:
        assert pil.mode == "I"
    np.testing.assert_array_equal(read_image(path), as_rgb(np.round(GRAY16 / 257)))


def test_integers_of_unknown_range_are_refused(tmp_path):
    for values in (GRAY16.astype(np.int32) - 1, GRAY16.astype(np.int32) + 1):
        with pytest.raises(DataError, match="range is unknown"):
            read_image(save(Image.fromarray(values), tmp_path / "x.tif"))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour_is_scaled(tmp_path, suffix):
    colour = np.random.default_rng(1).integers(0, 65536, (6, 5, 3), np.uint16)
    assert cv2.imwrite(str(tmp_path / f"x{suffix}"), colour[..., ::-1])
    np.testing.assert_allclose(read_image(tmp_path / f"x{suffix}"), colour / 257, atol=1)


@pytest.mark.parametrize("scale", [1, 255, 65535])
def test_float_gray_is_scaled_by_its_range(tmp_path, scale):
    path = save(Image.fromarray((GRAY / 255 * scale).astype(np.float32)), tmp_path / "x.tif")
    np.testing.assert_array_equal(read_image(path), as_rgb(GRAY))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_float_gray_must_be_finite(tmp_path, value):
    values = GRAY.astype(np.float32)
    values[1, 1] = value
    with pytest.raises(DataError, match=r"x\.tif: has values that are not finite"):
        read_image(save(Image.fromarray(values), tmp_path / "x.tif"))


UPRIGHT = {  # what a viewer must do for each EXIF orientation
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_rotated_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(Image.fromarray(RGB), tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation](RGB))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_invalid_orientation_is_ignored(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(Image.fromarray(RGB), tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(path), RGB)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif", ".ppm", ".jp2", ".tga"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_refused_in_one_line(tmp_path, suffix, share):
    noise = np.random.default_rng(2).integers(0, 256, (48, 48, 3), np.uint8)
    intact = save(Image.fromarray(noise), tmp_path / f"intact{suffix}").read_bytes()
    assert read_image(tmp_path / f"intact{suffix}").shape == noise.shape
    path = tmp_path / f"x{suffix}"
    path.write_bytes(intact[: int(share * len(intact))])
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<html>\n<body>not found</body>\n</html>\n", b"\x89PNG\r\n\x1a\n"]
)
def test_a_file_that_is_not_an_image_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png: not a readable image \(.+\)") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_reported(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError):
        read_image(tmp_path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = save(Image.fromarray(RGB), tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match="decompression bomb"):
        read_image(path)


def test_to_rgb_returns_a_copy():
    pil = Image.fromarray(RGB)
    to_rgb(pil)[:] = 0
    np.testing.assert_array_equal(np.asarray(pil), RGB)


@pytest.mark.parametrize("device_type", [torch.float32, torch.float64])
def test_to_float_and_to_uint8_are_inverse_for_every_value(device_type):
    values = torch.arange(256, dtype=torch.uint8)
    images = to_float(values)
    assert images.dtype == torch.float32
    assert (images[0], images[-1]) == (-1, 1)
    assert torch.equal(to_uint8(images.to(device_type)), values)


def test_to_uint8_rounds_and_clips():
    given = torch.tensor([-7.0, -1.0, -1 + 0.6 / 127.5, -1 + 0.4 / 127.5, 1 - 0.4 / 127.5, 1.0, 7.0])
    assert to_uint8(given).tolist() == [0, 0, 1, 0, 255, 255, 255]


def test_images_and_tensors_hold_the_same_pixels():
    tensor = to_tensor(RGB)
    assert tensor.shape == (3, 5, 7)
    assert tensor.is_contiguous()
    assert tensor[1, 2, 3] == RGB[2, 3, 1]
    np.testing.assert_array_equal(to_image(tensor), RGB)
    assert torch.equal(to_tensor(RGB[:, ::-1]), tensor.flip(2))  # a view with negative strides too


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (25, 25), (11, 40), (9, 3)])
def test_short_side_keeps_the_aspect(size):
    height, width, wanted = *size, 12
    resized = resize_image(np.zeros((height, width, 3), np.uint8), wanted, "short_side").shape
    assert min(resized[:2]) == wanted
    assert abs(max(resized[:2]) - wanted * max(size) / min(size)) <= 0.5
    assert (resized[0] > resized[1]) == (height > width)


def test_squash_makes_a_square_and_none_changes_nothing():
    assert resize_image(np.zeros((20, 31, 3), np.uint8), 12, "squash").shape == (12, 12, 3)
    assert resize_image(RGB, 12, "none") is RGB
    np.testing.assert_array_equal(resize_image(RGB, 5, "short_side"), RGB)


def test_shrinking_averages():
    """Antialiased: a checkerboard of pixels becomes gray, not black or white."""
    board = as_rgb((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    inner = resize_image(board, 16, "short_side")[2:-2, 2:-2]
    assert 120 <= inner.min() <= inner.max() <= 135


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG", ".unknown"])
def test_written_images_are_read_back(tmp_path, suffix):
    path = tmp_path / "new" / "folder" / f"x{suffix}"
    write_image(RGB, path)
    np.testing.assert_array_equal(read_image(path), RGB)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("fault", ["save", "replace"])
def test_an_image_is_written_atomically(tmp_path, monkeypatch, fault):
    path = tmp_path / "x.png"
    write_image(RGB, path)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    def save_half(pil, file, format=None):
        file.write_bytes(b"half")
        full()

    if fault == "save":
        monkeypatch.setattr(Image.Image, "save", save_half)
    else:
        monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(DataError, match=r"x\.png: could not be written \(.*No space left") as caught:
        write_image(255 - RGB, path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["x.png"]
    np.testing.assert_array_equal(read_image(path), RGB)


def test_a_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not be written"):
        write_image(RGB, tmp_path / "file" / "x.png")


def test_nested_images_are_found_sorted_without_hidden_ones(tmp_path):
    for name in (
        "b.png",
        "a.JPG",
        "c/d/e.webp",
        "c/a.jpeg",
        "Z.tiff",
        ".hidden.png",
        ".folder/x.png",
        "c/.more/x.png",
        "notes.txt",
        "png",
        "x.png.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_images(tmp_path)
    assert found == sorted(found)
    assert {path.relative_to(tmp_path).as_posix() for path in found} == {
        "Z.tiff",
        "a.JPG",
        "b.png",
        "c/a.jpeg",
        "c/d/e.webp",
    }


def test_linked_folders_are_searched(tmp_path):
    (tmp_path / "real").mkdir()
    write_image(RGB, tmp_path / "real" / "x.png")
    (tmp_path / "searched").mkdir()
    (tmp_path / "searched" / "link").symlink_to(tmp_path / "real")
    assert find_images(tmp_path / "searched") == [tmp_path / "searched" / "link" / "x.png"]
    assert find_images(tmp_path / "none") == []


def test_circular_links_are_followed_once(tmp_path):
    """Eight folders with links to each other: followed to the end they have 8! paths."""
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_bytes(b"")
        for other in "abcdefgh":
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    found = find_images(tmp_path)
    assert len(found) == 9
    assert {path.name for path in found} == {"self.png", *(f"{name}.png" for name in "abcdefgh")}
    with pytest.raises(DataError, match=r"self\.png"):
        read_image(tmp_path / "self.png")


def test_images_are_ordered_by_path(tmp_path):
    for name in ("a/b.png", "a.png", "a-b/c.png", "a!.png", "a/b/c.png", "a b/0.png", "é.png", "a\n.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_images(tmp_path)
    assert found == sorted(found)
    assert len(found) == 8


def test_a_folder_that_cannot_be_searched_is_reported(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "x.png").write_bytes(b"")
    (tmp_path / "shut").mkdir(mode=0)
    try:
        message = r"shut: cannot be searched for images \(Permission denied\)$"
        with modes_hold(), pytest.raises(DataError, match=message):
            find_images(tmp_path)
    finally:
        (tmp_path / "shut").chmod(0o700)
