"""The demo world: drawn scenes, each rendered once as a photograph and once as a cartoon.

It needs no download and no licence, and its truth is known: the test and validation splits hold both renderings of the
same scene, while the two training domains show different scenes, so training is unpaired.

The cartoon fills each shape with its flat colour and draws dark outlines. The photograph mutes the colour and adds
the effects of light, material and lens: texture, shading, soft shadows, haze, a colour cast, blur and noise.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from gan_nst.core.errors import DataError, cannot_write
from gan_nst.core.terminal import track

Points = NDArray[np.float32]  # (n, 2), x and y in units of the image's side, y down
_SKIES = ["#7ec8ff", "#5aa0ff", "#c9ecf2", "#ffd9a0", "#d8c2ff", "#a8e6dc", "#f7b9a8", "#6f86ff"]
_GROUNDS = ["#58b947", "#8ccf3f", "#2e9e63", "#d9b64a", "#e39a45", "#8d6fd1", "#3f8fa8", "#c76f55", "#b7d94f"]
_WALLS = ["#fff2c4", "#ff7a55", "#f2f2f2", "#ffc46b", "#9fb4ff", "#f59ac0"]
_ROOFS = ["#d92f2f", "#8c3b2a", "#3d55b8", "#5c5c66", "#b5452c"]
_LEAVES = ["#2fa83a", "#63c132", "#ff8a1f", "#e8b81f", "#1f8a5a", "#e0522b"]
_TRUNKS = ["#7a4a24", "#5a3418", "#94602f"]
_CLOUDS = ["#ffffff", "#fff5fb", "#f2f7ff"]
_SUNS = ["#ffe640", "#ffb52e", "#fff27a"]


@dataclass(frozen=True)
class Shape:
    """One polygon of a scene.

    points: the outline in unit coordinates.
    colour: the cartoon's flat RGB, each in [0, 1].
    material: chooses the photograph's texture.
    distance: 0 (near) to 1 (far); the photograph fades far shapes into haze.
    """

    points: Points
    colour: NDArray[np.float32]
    material: str
    distance: float


def make_scene(seed: int, split: str, index: int) -> list[Shape]:
    """The scene number `index` of a split, a function of the arguments."""
    rng = np.random.default_rng([seed, *split.encode(), index])
    shapes = [Shape(_rectangle(-0.1, -0.1, 1.1, 1.1), _pick(rng, _SKIES), "sky", 0.6)]
    if rng.random() < 0.6:
        centre, radius = (rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.32)), rng.uniform(0.05, 0.1)
        shapes.append(Shape(_ellipse(*centre, radius, radius), _pick(rng, _SUNS), "sun", 0.9))
    for _ in range(rng.integers(0, 4)):
        shapes += _cloud(rng)
    hills = int(rng.integers(2, 4))
    horizon = rng.uniform(0.38, 0.6)
    for number in range(hills):
        near = (number + 1) / hills
        shapes += _hill(rng, horizon + (0.94 - horizon) * number / hills, near)
    return shapes


def _cloud(rng: np.random.Generator) -> list[Shape]:
    x, y, reach = rng.uniform(0.05, 0.95), rng.uniform(0.06, 0.3), rng.uniform(0.04, 0.08)
    puffs = []
    for _ in range(rng.integers(2, 5)):
        centre = x + rng.uniform(-1.4, 1.4) * reach, y + rng.uniform(-0.4, 0.4) * reach
        puffs.append(
            Shape(
                _ellipse(*centre, reach * rng.uniform(0.9, 1.4), reach * 0.6),
                _pick(rng, _CLOUDS),
                "cloud",
                0.5,
            )
        )
    return puffs


def _hill(rng: np.random.Generator, height: float, near: float) -> list[Shape]:
    x = np.linspace(-0.1, 1.1, 60)
    y = np.full_like(x, height)
    for frequency in (rng.uniform(0.6, 1.6), rng.uniform(1.8, 4)):
        y += rng.uniform(0.02, 0.07) / frequency**0.5 * np.sin(2 * np.pi * (frequency * x + rng.random()))
    outline = np.concatenate([np.stack([x, y], 1), [[1.1, 1.2], [-0.1, 1.2]]]).astype(np.float32)
    shapes = [Shape(outline, _pick(rng, _GROUNDS), "ground", 1 - near)]
    places = list(rng.permutation(np.linspace(0.06, 0.94, 6)))
    for _ in range(rng.integers(0, 2)):
        foot = places.pop()
        shapes += _house(rng, foot, float(np.interp(foot, x, y)), near)
    for _ in range(rng.integers(0, 3)):
        foot = places.pop() + rng.uniform(-0.05, 0.05)
        shapes += _tree(rng, foot, float(np.interp(foot, x, y)), near)
    return shapes


def _house(rng: np.random.Generator, x: float, y: float, near: float) -> list[Shape]:
    half = (0.055 + 0.055 * near) * rng.uniform(0.8, 1.2)
    top, foot = y - half * rng.uniform(1.1, 1.7), y + 0.35 * half
    roof = np.array([[x - 1.25 * half, top], [x, top - half], [x + 1.25 * half, top]], np.float32)
    door_x = x + rng.uniform(-0.5, 0.1) * half
    window = np.array([x + 0.35 * half, top + 0.35 * half])
    far = 1 - near
    return [
        Shape(_rectangle(x - half, top, x + half, foot), _pick(rng, _WALLS), "wall", far),
        Shape(roof, _pick(rng, _ROOFS), "roof", far),
        Shape(
            _rectangle(door_x, foot - 0.9 * half, door_x + 0.45 * half, foot),
            _pick(rng, _TRUNKS),
            "opening",
            far,
        ),
        Shape(_rectangle(*window, *(window + 0.42 * half)), _colour("#8fd0ff"), "opening", far),
    ]


def _tree(rng: np.random.Generator, x: float, y: float, near: float) -> list[Shape]:
    reach = (0.05 + 0.045 * near) * rng.uniform(0.75, 1.25)
    far = 1 - near
    trunk = Shape(
        _rectangle(x - 0.18 * reach, y - 1.4 * reach, x + 0.18 * reach, y + 0.4 * reach),
        _pick(rng, _TRUNKS),
        "trunk",
        far,
    )
    leaves = _pick(rng, _LEAVES)
    if rng.random() < 0.35:
        steps = [(1.0, 0.9), (0.8, 1.7)]
        crown = [
            np.array(
                [[x - w * reach, y - h * reach], [x, y - (h + 1.5) * reach], [x + w * reach, y - h * reach]],
                np.float32,
            )
            for w, h in steps
        ]
    else:
        crown = [
            _ellipse(
                x + rng.uniform(-0.6, 0.6) * reach,
                y - rng.uniform(1.5, 2.4) * reach,
                0.9 * reach,
                0.9 * reach,
            )
            for _ in range(rng.integers(1, 4))
        ]
    return [trunk, *(Shape(points, leaves, "leaves", far) for points in crown)]


def _rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def _ellipse(x: float, y: float, radius_x: float, radius_y: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], 1).astype(np.float32)


def _pick(rng: np.random.Generator, colours: list[str]) -> NDArray[np.float32]:
    return np.clip(_colour(colours[rng.integers(len(colours))]) + rng.uniform(-0.03, 0.03, 3), 0, 1).astype(
        np.float32
    )


def _colour(text: str) -> NDArray[np.float32]:
    return np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)


Field = NDArray[np.float32]


@dataclass(frozen=True)
class _Texture:
    """How a material breaks up light: cells across the image, contrast, the stretch of their number in x
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
    image = cv2.resize(blurred, (size, size), interpolation=cv2.INTER_AREA)
    cast = 1 + rng.uniform(-0.03, 0.03, 3)
    vignette = 1 - 0.2 * ((rows - 0.5) ** 2 + (columns - 0.5) ** 2)
    image = image * cast * cv2.resize(vignette, (size, size), interpolation=cv2.INTER_AREA)[..., None]
    return _to_uint8(image + rng.normal(0, 0.03, image.shape))


def make_demo(folder: Path, size: int = 256, count: int = 400, seed: int = 0, held_out: int = 60) -> None:
    """Writes the demo data set: trainA and trainB (unpaired), and testA/testB, valA/valB (pairs of the same name).

    count: images in each training domain. held_out: pairs in each held-out split. The images are PNG, `size` x `size`
    pixels. The folder appears complete or not at all, unless it has hidden files or is the current one: then the drawn
    folders are moved in one by one. Leftovers of a process that was killed are removed; of two processes drawing at
    once the second waits. Raises DataError when `folder` is not empty or cannot be written.
    """
    place = Path(os.path.realpath(folder))  # it may be a link to another disk
    building = place.with_name(f".{place.name}.part")
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with lock:
            try:
                if place.exists() and any(not entry.name.startswith(".") for entry in place.iterdir()):
                    raise DataError(f"{folder}: not empty; give a new folder, or remove this one first")
                shutil.rmtree(building, ignore_errors=True)
                _draw_all(building, size, count, seed, held_out)
                if place.exists() and (any(place.iterdir()) or place.samefile(".")):
                    for entry in building.iterdir():
                        entry.rename(place / entry.name)
                else:
                    os.replace(building, place)
            finally:
                shutil.rmtree(building, ignore_errors=True)
                with suppress(OSError):
                    Path(lock.lock_file).unlink()
    except OSError as error:
        raise DataError(cannot_write(folder, error)) from None


def _draw_all(folder: Path, size: int, count: int, seed: int, held_out: int) -> None:
    """The training domains show different scenes; held-out splits have both renderings of each scene."""
    counts = {"train": count, "val": held_out, "test": held_out}
    images = [(split, domain, n) for split in counts for domain in "ab" for n in range(counts[split])]
    for split, domain, index in track(images, f"drawing the demo images ({size} pixels)"):
        scene = make_scene(seed, f"train-{domain}" if split == "train" else split, index)
        if domain == "a":
            image, name = draw_photograph(scene, size, seed * 1_000_003 + index), "photo"
        else:
            image, name = draw_cartoon(scene, size), "cartoon"
        name = name if split == "train" else "scene"
        target = folder / f"{split}{domain.upper()}" / f"{name}-{index:05d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def _muted(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Real materials are duller and darker than paint."""
    gray = colour @ np.array([0.299, 0.587, 0.114], np.float32)
    return (0.05 + 0.66 * (gray + 0.8 * (colour - gray))).astype(np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], side: int, texture: _Texture) -> Field:
    """Smooth noise of this shape in pixels, with mean 0 and a standard deviation near 1."""
    cells = [
        max(2, round(texture.cells * s * n / side)) for s, n in zip(texture.stretch[::-1], shape, strict=True)
    ]
    coarse = rng.standard_normal(cells, np.float32)
    fine = rng.standard_normal([2 * n for n in cells], np.float32)
    spread = [cv2.resize(field, shape[::-1], interpolation=cv2.INTER_CUBIC) for field in (coarse, fine)]
    return np.clip(0.8 * spread[0] + 0.5 * spread[1], -2.5, 2.5)


def _window(points: Points, side: int) -> tuple[slice, slice] | None:
    """The rows and columns that a shape and its shadow can touch; None when they are outside the image."""
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
    """How many times larger images are drawn before they are reduced, so that edges are smooth."""
    return 3 if size <= 96 else 2


def _to_pixels(points: Points, side: int) -> NDArray[np.int32]:
    return np.round(points * side * 16).astype(np.int32)  # OpenCV's fixed point with 4 fractional bits


def _to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return rounded
