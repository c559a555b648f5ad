"""The loader is measured in every way it loads, and as a loader process runs."""

import cv2
import torch

from gan_nst.bench import loading
from gan_nst.bench.loading import LoaderSizes, measure_loader
from gan_nst.data import cache
from gan_nst.methods.base import Stream

STREAMS = {"real_a": Stream("a"), "real_b": Stream("b")}
TOY = LoaderSizes(stored=40, load=36, crop=32, count=3, seconds=0.05)


def test_every_way_to_load_is_measured(tmp_path):
    result = measure_loader(tmp_path, STREAMS, TOY)
    assert all(result[way] > 0 for way in ("decoding", "cached", "augmented"))
    assert set(result["memory_mib"]) == {"3", "12"}
    assert all(mib is None or -5 < mib < 100 for mib in result["memory_mib"].values())


def test_decoding_decodes_every_time_and_cached_never_again(tmp_path, monkeypatch):
    decoded = []
    decode = cache._decode
    monkeypatch.setattr(cache, "_decode", lambda file, *rest: decoded.append(file) or decode(file, *rest))
    counts = []

    def rate(batches, seconds):
        before = len(decoded)
        stream = batches(0)
        for _ in range(6):
            next(stream)
        counts.append(len(decoded) - before)
        return 1.0

    monkeypatch.setattr(loading, "_rate", rate)
    monkeypatch.setattr(loading, "_memory", lambda *_: {})
    measure_loader(tmp_path, STREAMS, TOY)
    assert counts == [12, 0, 0]


def test_one_core_is_used_and_the_others_are_given_back():
    torch.set_num_threads(2)
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        with loading._one_core():
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == before
    finally:
        torch.set_num_threads(1)
