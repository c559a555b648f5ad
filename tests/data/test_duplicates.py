"""Pictures that were re-encoded, resized, brightened or cropped a little are found; others are not taken for them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from gan_nst.data import duplicates
from gan_nst.data.demo import draw_photograph
from gan_nst.data.duplicates import REACH, find_alike, group, hash_picture, thumbnail
from gan_nst.data.scenes import make_scene

SCENES = [draw_photograph(make_scene(0, "duplicates", n), 96, seed=n) for n in range(24)]


def encoded(picture, quality):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


CHANGES = {
    "re-encoded": lambda p: encoded(p, 30),
    "smaller": lambda p: cv2.resize(p, (48, 48), interpolation=cv2.INTER_AREA),
    "squashed": lambda p: cv2.resize(p, (130, 90)),
    "brighter": lambda p: np.clip(p.astype(int) + 25, 0, 255).astype(np.uint8),
    "paler": lambda p: (p * 0.7).astype(np.uint8),
    "cropped": lambda p: np.ascontiguousarray(p[1:-1, 1:-1]),
}


def alike(pictures):
    hashes = np.array([hash_picture(picture) for picture in pictures], np.uint64)
    return find_alike(hashes, np.array([thumbnail(p).reshape(-1, 3) for p in pictures]))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_pictures_are_found_and_no_others(change):
    changed = [CHANGES[change](picture) for picture in SCENES]
    found = set(map(tuple, alike(SCENES + changed).tolist()))
    own = {(n, n + len(SCENES)) for n in range(len(SCENES))}
    assert len(own - found) <= (change == "cropped")
    twice = set(
        map(tuple, alike(SCENES).tolist())
    )  # two scenes that look the same are no mistake of the search
    assert {(a % len(SCENES), b % len(SCENES)) for a, b in found - own} <= twice | {(b, a) for a, b in twice}


def test_all_pairs_within_reach_are_looked_at():
    """Against a comparison of each hash with each."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 600, dtype=np.uint64)
    for index in range(300):
        turned = rng.choice(64, int(rng.integers(0, REACH + 4)), replace=False)
        hashes[300 + index] = hashes[index] ^ np.bitwise_or.reduce(
            np.uint64(1) << turned.astype(np.uint64), initial=np.uint64(0)
        )
    one, other = np.triu_indices(len(hashes), 1)
    near = np.bitwise_count(hashes[one] ^ hashes[other]) <= REACH
    expected = set(zip(one[near].tolist(), other[near].tolist(), strict=True))
    assert len(expected) > 150
    assert set(map(tuple, np.concatenate(list(duplicates._candidates(hashes))).tolist())) == expected


def test_many_candidates_are_taken_in_portions(monkeypatch):
    expected = alike(SCENES * 3).tolist()
    monkeypatch.setattr(duplicates, "_AT_ONCE", 16)
    assert alike(SCENES * 3).tolist() == expected


def test_no_pictures_and_flat_ones_have_no_likes():
    assert find_alike(np.empty(0, np.uint64), np.empty((0, 64, 3), np.uint8)).shape == (0, 2)
    assert alike([np.full((20, 20, 3), level, np.uint8) for level in (0, 90, 255)]).tolist() == []


def test_pairs_become_groups():
    assert group(9, np.array([[1, 5], [5, 7], [0, 3]])) == [[0, 3], [1, 5, 7]]
    assert group(9, np.array([[3, 7], [1, 5], [5, 7]])) == [[1, 3, 5, 7]]
    assert group(4, np.empty((0, 2), np.int64)) == []
