"""A truncated or damaged image file, as far as its format shows it, is refused by both readers; and no file
makes them run another program.
"""

import io
import re
import struct
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from awkward_files import chunk, png, saved
from PIL import Image

from gan_nst.core.errors import DataError
from gan_nst.images.files import check_complete, read_image
from gan_nst.images.photo import read_photo

NOISE = np.random.default_rng(3).integers(0, 256, (24, 30, 3), np.uint8)
IMAGE = Image.fromarray(NOISE)
PALETTE = IMAGE.quantize(40)
OTHER = Image.fromarray(255 - NOISE)
PNG = png(NOISE)
JPEG = saved(IMAGE, "JPEG", exif=b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0")
GIF = saved(PALETTE, "GIF", save_all=True, append_images=[OTHER.quantize(40)], comment=b"so; and, so!")


def refused(content: bytes, folder: Path, says: str) -> None:
    """Asserts that both readers refuse a file, each in one line that names it."""
    path = folder / "x.img"
    path.write_bytes(content)
    for read in (read_image, read_photo):
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*{says}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("intact", [PNG, JPEG, GIF, png(NOISE.astype(np.uint16) * 257)])
def test_a_file_truncated_anywhere_is_refused(tmp_path, intact):
    check_complete(io.BytesIO(intact))
    for length in range(8, len(intact)):
        with pytest.raises(DataError, match="truncated"):
            check_complete(io.BytesIO(intact[:length]))
    for length in (0, 7, len(intact) // 2, len(intact) - 12, len(intact) - 1):
        refused(intact[:length], tmp_path, "not a readable image")


@pytest.mark.parametrize("intact", [PNG, JPEG, GIF])
def test_data_after_the_end_is_ignored(tmp_path, intact):
    (tmp_path / "x").write_bytes(intact)
    (tmp_path / "y").write_bytes(intact + b"a video, say \xff\xda\xff\xfe")
    np.testing.assert_array_equal(read_image(tmp_path / "x"), read_image(tmp_path / "y"))


@pytest.mark.parametrize("intact", [JPEG, GIF])
def test_a_large_file_is_not_held_in_memory(tmp_path, intact):
    """Zeros from the middle on; sparse, so they take no disk space."""
    with open(tmp_path / "x", "wb") as file:
        file.write(intact[: len(intact) // 2])
        file.truncate(50 << 20)
    with open(tmp_path / "x", "rb") as file:
        tracemalloc.start()
        begun = time.process_time()
        with pytest.raises(DataError, match="truncated"):
            check_complete(file)
        spent = time.process_time() - begun
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 5 << 20
    assert spent < 2


@pytest.mark.parametrize("held", [2, 3, 7, 64])
@pytest.mark.parametrize("intact", [JPEG, GIF])
def test_a_complete_file_passes_however_it_is_read(monkeypatch, intact, held):
    """Markers are found even across the boundary of two reads."""
    monkeypatch.setattr("gan_nst.images.files._PIECE", held)
    for content in (intact, intact + b"more"):
        check_complete(io.BytesIO(content))
    for length in range(8, len(intact), 5):
        with pytest.raises(DataError, match="truncated"):
            check_complete(io.BytesIO(intact[:length]))


@pytest.mark.parametrize("intact", [JPEG, GIF])
def test_a_file_whose_end_was_never_written_is_refused(tmp_path, intact):
    """After a system crash a file may have its full length, but end in zeros."""
    half = len(intact) // 2
    refused(intact[:half] + bytes(len(intact) - half), tmp_path, "")


def test_every_flipped_bit_of_a_png_is_detected(tmp_path):
    for content in (PNG, png(NOISE, interlaced=True), saved(PALETTE, "PNG", transparency=3)):
        for place in range(8, len(content) - 12, 7):
            damaged = bytearray(content)
            damaged[place] ^= 1 << place % 8
            with pytest.raises(DataError):
                check_complete(io.BytesIO(damaged))
        refused(bytes(damaged), tmp_path, "damaged|truncated")


def test_checksums_of_large_chunks_are_computed_in_pieces():
    large = PNG[:-12] + chunk(b"teXt", bytes(3 << 20)) + PNG[-12:]
    check_complete(io.BytesIO(large))
    with pytest.raises(DataError, match="damaged"):
        check_complete(io.BytesIO(large[:-40] + b"\1" + large[-39:]))


def test_a_jpeg_with_an_invalid_marker_is_refused(tmp_path):
    """libjpeg would stop at the marker and fill the rest with gray."""
    place = JPEG.index(b"\xff\xda") + 200
    refused(JPEG[:place] + b"\xff\x05" + JPEG[place + 2 :], tmp_path, "damaged")


def test_fill_bytes_before_jpeg_markers_are_allowed(tmp_path):
    (tmp_path / "x").write_bytes(JPEG[:-2] + b"\xff\xff" + JPEG[-2:])
    read_image(tmp_path / "x")


def test_a_jpeg_segment_longer_than_the_file_is_refused(tmp_path):
    refused(JPEG[:2] + b"\xff\xe1" + struct.pack(">H", 65535) + JPEG[2:], tmp_path, "not a readable image")


def test_an_image_never_runs_another_program(tmp_path, monkeypatch):
    """Pillow would pass PostScript, under any name, to Ghostscript."""
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *given, **options: started.append(given))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    refused(content, tmp_path, "unknown format")
    assert not started


def test_many_threads_may_read_at_once_without_warnings(tmp_path):
    """Pillow would warn of this EXIF; warning filters are process-wide, and pytest sets its own."""
    path = tmp_path / "x.jpg"
    path.write_bytes(saved(IMAGE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffgarbage"))
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(read_image, [path] * 200))
    assert all(np.array_equal(image, images[0]) for image in images)
    code = f"from gan_nst.images.files import *; from pathlib import Path; read_image(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
