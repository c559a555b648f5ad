"""The demo world: drawn scenes, each rendered once as a photograph and once as a cartoon.

It needs no download and no licence, and the truth is known: the test and validation splits keep both renderings
of the same scene, while the two training domains come from different scenes, so training stays unpaired.

The cartoon fills each shape with its flat colour and draws dark outlines. The photograph mutes the colour and adds
what light, matter and a lens do: texture by material, shading, soft shadows, haze, a colour cast, blur and noise.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, unwritten
from gan_nst.core.progress import track
from gan_nst.data.scenes import Points, Shape, make_scene

Field = NDArray[np.float32]


@dataclass(frozen=True)
class _Texture:
    """How a material breaks up light: cells across the picture, contrast, the stretch of their number in x
    and y, and how much brighter the side towards the light is."""

    cells: int
    contrast: float
    stretch: tuple[float, float] = (1, 1)
    shading: float = 0.32


_TEXTURES = {
    "sky": _Texture(24, 0.05, (0.5, 1), 0.12),
    "sun": _Texture(20, 0.06),
    "cloud": _Texture(28, 0.14),
    "ground": _Texture(38, 0.28, (0.8, 1), 0.2),
    "wall": _Texture(36, 0.20, (0.7, 1.3)),
    "roof": _Texture(36, 0.28, (0.6, 1.3)),
    "opening": _Texture(20, 0.15),
    "trunk": _Texture(34, 0.28, (1.3, 0.6)),
    "leaves": _Texture(38, 0.32),
}


def draw_cartoon(scene: list[Shape], size: int) -> NDArray[np.uint8]:
    """The scene in flat saturated colours with dark outlines: RGB uint8 of shape (size, size, 3)."""
    zoom = _zoom(size)
    canvas = np.zeros((size * zoom, size * zoom, 3), np.float32)
    pen = zoom * max(1.0, size / 110)
    for shape in scene:
        polygon = _to_pixels(shape.points, size * zoom)
        cv2.fillPoly(canvas, [polygon], shape.colour.tolist(), cv2.LINE_AA, shift=4)
        if shape.material != "sky":
            width = max(1, round(pen * (0.5 if shape.material == "opening" else 1)))
            cv2.polylines(canvas, [polygon], True, (0.08, 0.06, 0.09), width, cv2.LINE_AA, shift=4)
    return _to_uint8(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA))


def draw_photograph(scene: list[Shape], size: int, seed: int) -> NDArray[np.uint8]:
    """The scene as a camera might see it: RGB uint8 of shape (size, size, 3). `seed` sets light, texture and
    noise.
    """
    rng = np.random.default_rng([seed, 1])
    side = size * _zoom(size)
    light = np.array([rng.uniform(-1, 1), -rng.uniform(0.4, 1)], np.float32)  # where the light comes from
    haze = 0.45 + 0.25 * scene[0].colour
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
    canvas = np.zeros((side, side, 3), np.float32)
    for shape in scene:
        window = _window(shape.points, side)
        if window is None:
            continue
        part, x, y = canvas[window], columns[window], rows[window]
        mask = np.zeros(x.shape, np.float32)
        corner = np.array([x[0, 0], y[0, 0]])
        cv2.fillPoly(mask, [_to_pixels(shape.points - corner, side)], 1.0, cv2.LINE_AA, shift=4)
        if shape.material not in ("sky", "sun"):
            part *= 1 - 0.45 * _soft_shadow(mask, light, side)[..., None]
        texture = _TEXTURES[shape.material]
        centre = shape.points.mean(0)
        reach = np.ptp(shape.points, axis=0).max()
        slope = ((x - centre[0]) * light[0] + (y - centre[1]) * light[1]) / reach
        relief = (
            1
            + texture.contrast * _noise(rng, mask.shape, side, texture)
            + texture.shading * np.clip(slope, -0.6, 0.6)
        )
        albedo = _muted(shape.colour)
        albedo = albedo + (haze - albedo) * 0.4 * shape.distance
        part += mask[..., None] * (albedo * relief[..., None] - part)
    blurred = cv2.GaussianBlur(canvas, (0, 0), 0.5 * side / size)
    picture = cv2.resize(blurred, (size, size), interpolation=cv2.INTER_AREA)
    cast = 1 + rng.uniform(-0.03, 0.03, 3)
    vignette = 1 - 0.2 * ((rows - 0.5) ** 2 + (columns - 0.5) ** 2)
    picture = picture * cast * cv2.resize(vignette, (size, size), interpolation=cv2.INTER_AREA)[..., None]
    return _to_uint8(picture + rng.normal(0, 0.03, picture.shape))


def make_demo(folder: Path, size: int = 256, count: int = 400, seed: int = 0, held_out: int = 60) -> None:
    """Writes the demo data set: trainA, trainB (unpaired), and testA/testB, valA/valB (the same scene, the
    same name).

    `count` pictures a training domain and `held_out` a held-out split, `size` x `size` pixels, PNG. The folder appears
    whole or not at all, but for one with hidden files in it and the current one: the drawn folders are moved into these
    one by one. What a process that was killed left unfinished beside it is removed; of two that draw at once the second
    waits. Raises DataError when `folder` holds something, or cannot be written.
    """
    place = Path(os.path.realpath(folder))  # it may be a link to another disk
    building = place.with_name(f".{place.name}.part")
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with lock:
            try:
                if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
                    raise DataError(f"{folder}: not empty; give a new folder, or remove it first")
                shutil.rmtree(building, ignore_errors=True)
                _draw_all(building, size, count, seed, held_out)
                _put(building, place)
            finally:
                shutil.rmtree(building, ignore_errors=True)
                with suppress(OSError):
                    Path(lock.lock_file).unlink()
    except OSError as error:
        raise DataError(unwritten(folder, error)) from None


def _draw_all(folder: Path, size: int, count: int, seed: int, held_out: int) -> None:
    pictures = list(_plan(count, held_out))
    for split, domain, index, name in track(pictures, f"drawing the demo pictures ({size} pixels)"):
        target = folder / f"{split}{domain.upper()}" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_drawn(split, domain, index, size, seed))


def _drawn(split: str, domain: str, index: int, size: int, seed: int) -> bytes:
    """A demo picture as PNG; training's domains show different scenes, held-out splits render one scene twice."""
    scene = make_scene(seed, f"{split}-{domain}" if split == "train" else split, index)
    picture = (
        draw_photograph(scene, size, seed * 1_000_003 + index) if domain == "a" else draw_cartoon(scene, size)
    )
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def _put(building: Path, folder: Path) -> None:
    """Moves a whole data set to its place, where there may be hidden files."""
    if folder.exists() and (any(folder.iterdir()) or folder.samefile(".")):
        for entry in building.iterdir():
            entry.rename(folder / entry.name)
    else:
        os.replace(building, folder)


def _plan(count: int, held_out: int) -> Iterator[tuple[str, str, int, str]]:
    for split, pictures in (("train", count), ("val", held_out), ("test", held_out)):
        for domain, kind in (("a", "photo"), ("b", "cartoon")):
            for index in range(pictures):
                name = f"{kind}-{index:05d}.png" if split == "train" else f"scene-{index:05d}.png"
                yield split, domain, index, name


def _muted(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Matter is duller and darker than paint."""
    gray = colour @ np.array([0.299, 0.587, 0.114], np.float32)
    return (0.05 + 0.66 * (gray + 0.8 * (colour - gray))).astype(np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], side: int, texture: _Texture) -> Field:
    """Smooth noise of that shape in pixels, mean 0, deviation near 1."""
    cells = [
        max(2, round(texture.cells * s * n / side)) for s, n in zip(texture.stretch[::-1], shape, strict=True)
    ]
    coarse = rng.standard_normal(cells, np.float32)
    fine = rng.standard_normal([2 * n for n in cells], np.float32)
    spread = [cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC) for field in (coarse, fine)]
    return np.clip(0.8 * spread[0] + 0.5 * spread[1], -2.5, 2.5)


def _window(points: Points, side: int) -> tuple[slice, slice] | None:
    """The rows and columns that a shape and its shadow can touch; None when it lies outside the picture."""
    low = np.maximum(np.floor((points.min(0) - 0.07) * side), 0).astype(int)
    high = np.minimum(np.ceil((points.max(0) + 0.07) * side), side).astype(int)
    if (high - low < 2).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def _soft_shadow(mask: Field, light: NDArray[np.float32], side: int) -> Field:
    shift = np.array([[1, 0, -light[0] * 0.025 * side], [0, 1, -light[1] * 0.018 * side]], np.float32)
    spread = max(1, round(0.035 * side))
    shadow: Field = cv2.blur(cv2.warpAffine(mask, shift, mask.shape[::-1]), (spread, spread))  # type: ignore[assignment]
    return shadow


def _zoom(size: int) -> int:
    """Pictures are drawn larger and reduced, so that edges are smooth."""
    return 3 if size <= 96 else 2


def _to_pixels(points: Points, side: int) -> NDArray[np.int32]:
    return np.round(points * side * 16).astype(np.int32)  # OpenCV's fixed point with 4 fractional bits


def _to_uint8(picture: NDArray[Any]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return rounded
