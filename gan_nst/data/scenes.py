"""The scenes of the demo world: hills, houses, trees and clouds as polygons, drawn from a seed.

A scene is a list of shapes in unit coordinates, back to front.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]  # (n, 2), x and y in units of the picture's side, y down
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
    """The scene number `index` of a split: always the same for the same arguments."""
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
