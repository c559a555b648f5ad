"""Images that were re-encoded, resized, brightened or cropped a little are found; others are not taken for them."""

import io
import tracemalloc
from itertools import combinations

import cv2
import numpy as np
import pytest
from PIL import Image

from gan_nst.data import check as duplicates
from gan_nst.data.check import ALIKE, REACH, find_alike, group, hash_image, thumbnail
from gan_nst.data.demo import draw_photograph, make_scene

SCENES = [draw_photograph(make_scene(0, "duplicates", n), 96, seed=n) for n in range(24)]


def encoded(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


CHANGES = {
    "re-encoded": lambda p: encoded(p, 30),
    "smaller": lambda p: cv2.resize(p, (48, 48), interpolation=cv2.INTER_AREA),
    "squashed": lambda p: cv2.resize(p, (130, 90)),
    "brighter": lambda p: np.clip(p.astype(int) + 25, 0, 255).astype(np.uint8),
    "paler": lambda p: (p * 0.7).astype(np.uint8),
    "cropped": lambda p: np.ascontiguousarray(p[1:-1, 1:-1]),
}


def alike(images):
    hashes = np.array([hash_image(image) for image in images], np.uint64)
    found = find_alike(hashes, np.array([thumbnail(p).reshape(-1, 3) for p in images]))
    pairs = [pair for members in group(len(images), found) for pair in combinations(members, 2)]
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_found_and_no_others(change):
    changed = [CHANGES[change](image) for image in SCENES]
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
    assert (
        set(map(tuple, np.concatenate(list(duplicates._candidates(hashes, np.arange(600)))).tolist()))
        == expected
    )


def test_many_candidates_are_taken_in_portions(monkeypatch):
    expected = alike(SCENES * 3).tolist()
    monkeypatch.setattr(duplicates, "_AT_ONCE", 16)
    assert alike(SCENES * 3).tolist() == expected


def near_equal(count, seed=0):
    """Hashes within two bits of one, as of a video's stills, and thumbnails of a few motifs."""
    rng = np.random.default_rng(seed)
    turned = rng.integers(0, 64, (2, count)).astype(np.uint64)
    hashes = np.uint64(rng.integers(2**63)) ^ (np.uint64(1) << turned[0]) ^ (np.uint64(1) << turned[1])
    motifs = rng.integers(0, 256, (4, 64, 3))
    thumbnails = motifs[rng.integers(0, 4, count)] * 0.9 + rng.uniform(0, 25, (count, 64, 3))
    return hashes, thumbnails.astype(np.uint8)


@pytest.mark.parametrize("at_once", [16, 1 << 10, 1 << 21])
@pytest.mark.parametrize("spread", [0, 50, 60, 90])
def test_groups_are_those_of_a_comparison_of_each_with_each(monkeypatch, at_once, spread):
    monkeypatch.setattr(duplicates, "_AT_ONCE", at_once)
    hashes, thumbnails = near_equal(70, spread)
    hashes[40:] ^= np.random.default_rng(1).integers(0, 2**64, 30, dtype=np.uint64)
    noise = np.random.default_rng(2).uniform(0, spread, thumbnails.shape)
    thumbnails = (thumbnails * (1 - spread / 255) + noise).astype(np.uint8)
    flat = thumbnails.astype(np.float64)
    flat = (flat - flat.mean(1, keepdims=True)).reshape(70, -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    pairs = [
        (one, other)
        for one, other in combinations(range(70), 2)
        if int(hashes[one] ^ hashes[other]).bit_count() <= REACH and flat[one] @ flat[other] >= ALIKE
    ]
    expected = group(70, np.array(pairs, np.int64).reshape(-1, 2))
    assert (len(expected) > 3) == (spread < 90)
    assert group(70, find_alike(hashes, thumbnails)) == expected


def test_memory_does_not_grow_with_the_pairs_of_many_alike(monkeypatch):
    monkeypatch.setattr(duplicates, "_AT_ONCE", 1 << 14)
    hashes, thumbnails = near_equal(1500)
    tracemalloc.start()
    found = find_alike(hashes, thumbnails)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert len(found) < 1500
    assert len(group(1500, found)) == 4


def test_no_images_and_flat_ones_have_no_likes():
    assert find_alike(np.empty(0, np.uint64), np.empty((0, 64, 3), np.uint8)).shape == (0, 2)
    assert alike([np.full((20, 20, 3), level, np.uint8) for level in (0, 90, 255)]).tolist() == []


def test_pairs_become_groups():
    assert group(9, np.array([[1, 5], [5, 7], [0, 3]])) == [[0, 3], [1, 5, 7]]
    assert group(9, np.array([[3, 7], [1, 5], [5, 7]])) == [[1, 3, 5, 7]]
    assert group(4, np.empty((0, 2), np.int64)) == []
