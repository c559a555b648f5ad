"""Images that were re-encoded, resized, brightened or slightly cropped are found, and no others."""

import io
import tracemalloc
from itertools import combinations

import cv2
import numpy as np
import pytest
from PIL import Image

from gan_nst.data import check
from gan_nst.data.check import MAX_DISTANCE, MIN_CORRELATION, group_duplicates, perceptual_hash, thumbnail
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


def pairs_within(groups):
    """All pairs of indices in the same group."""
    return {(one, two) for one, two in combinations(range(len(groups)), 2) if groups[one] == groups[two]}


def duplicate_pairs(images):
    hashes = np.array([perceptual_hash(image) for image in images], np.uint64)
    return pairs_within(group_duplicates(hashes, np.array([thumbnail(p).reshape(-1, 3) for p in images])))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_images_are_found_and_no_others(change):
    changed = [CHANGES[change](image) for image in SCENES]
    found = duplicate_pairs(SCENES + changed)
    own = {(n, n + len(SCENES)) for n in range(len(SCENES))}
    assert len(own - found) <= (change == "cropped")
    similar = duplicate_pairs(SCENES)  # two scenes that look the same are not the search's mistake
    folded = {(a % len(SCENES), b % len(SCENES)) for a, b in found - own}
    assert folded <= similar | {(b, a) for a, b in similar}


def near_equal(count, seed=0):
    """Hashes within two bits of one, as of a video's frames, and thumbnails of a few motifs."""
    rng = np.random.default_rng(seed)
    flipped = rng.integers(0, 64, (2, count)).astype(np.uint64)
    hashes = np.uint64(rng.integers(2**63)) ^ (np.uint64(1) << flipped[0]) ^ (np.uint64(1) << flipped[1])
    motifs = rng.integers(0, 256, (4, 64, 3))
    thumbnails = motifs[rng.integers(0, 4, count)] * 0.9 + rng.uniform(0, 25, (count, 64, 3))
    return hashes, thumbnails.astype(np.uint8)


def naive_groups(hashes, thumbnails):
    """Compares one pair at a time, and relabels the group of the later one."""
    count = len(hashes)
    shapes = thumbnails.astype(np.float64)
    shapes = (shapes - shapes.mean(1, keepdims=True)).reshape(count, -1)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True)
    groups = list(range(count))
    for one, two in combinations(range(count), 2):
        near = int(hashes[one] ^ hashes[two]).bit_count() <= MAX_DISTANCE
        if near and shapes[one] @ shapes[two] >= MIN_CORRELATION:
            first, second = sorted((groups[one], groups[two]))
            groups = [first if group == second else group for group in groups]
    return groups


@pytest.mark.parametrize("at_once", [16, 1 << 10, 1 << 22])
@pytest.mark.parametrize("spread", [0, 50, 60, 90])
def test_groups_equal_those_of_a_naive_comparison(monkeypatch, at_once, spread):
    monkeypatch.setattr(check, "_PAIRS_AT_ONCE", at_once)
    hashes, thumbnails = near_equal(70, spread)
    hashes[40:] ^= np.random.default_rng(1).integers(0, 2**64, 30, dtype=np.uint64)
    noise = np.random.default_rng(2).uniform(0, spread, thumbnails.shape)
    thumbnails = (thumbnails * (1 - spread / 255) + noise).astype(np.uint8)
    expected = naive_groups(hashes, thumbnails)
    sizes = [expected.count(group) for group in set(expected)]
    assert (sum(size > 1 for size in sizes) > 3) == (spread < 90)
    assert group_duplicates(hashes, thumbnails).tolist() == expected


def test_hashes_at_every_distance_are_compared():
    """Around the limit, with thumbnails that always correlate."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 400, dtype=np.uint64)
    for index in range(200):
        flipped = rng.choice(64, int(rng.integers(0, MAX_DISTANCE + 4)), replace=False).astype(np.uint64)
        bits = np.bitwise_or.reduce(np.uint64(1) << flipped, initial=np.uint64(0))
        hashes[200 + index] = hashes[index] ^ bits
    thumbnails = np.repeat(rng.integers(0, 256, (1, 64, 3), dtype=np.uint8), 400, 0)
    groups = group_duplicates(hashes, thumbnails)
    assert groups.tolist() == naive_groups(hashes, thumbnails)
    assert 100 < len(pairs_within(groups)) < 200


def test_memory_does_not_grow_with_the_number_of_pairs(monkeypatch):
    monkeypatch.setattr(check, "_PAIRS_AT_ONCE", 1 << 14)
    hashes, thumbnails = near_equal(1500)
    tracemalloc.start()
    groups = group_duplicates(hashes, thumbnails)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert len(set(groups.tolist())) == 4


def test_flat_images_have_no_duplicates():
    assert group_duplicates(np.empty(0, np.uint64), np.empty((0, 64, 3), np.uint8)).shape == (0,)
    assert duplicate_pairs([np.full((20, 20, 3), level, np.uint8) for level in (0, 90, 255)]) == set()
