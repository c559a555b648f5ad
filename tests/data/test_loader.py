"""Batches are a function of the step, independent of workers, processes and the first step."""

import itertools
import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_data import coordinates, noise, tiny_settings

from gan_nst.core.errors import DataError, SettingsError
from gan_nst.data.batches import Batches, Samples, image_index
from gan_nst.data.domains import Stream

# Newer Pythons warn about forking a process with threads; torch's loader forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Held(list):
    """Images held in memory, and the names of the files that they would be read from."""

    def file(self, index):
        range(len(self))[index]
        return Path(f"{index}.png")


STREAMS = {"real_a": Stream("a"), "real_b": Stream("b")}
IMAGES = {
    ("a", "image"): Held(noise(12, 14, number) for number in range(7)),
    ("b", "image"): Held(noise(13, 12, 100 + number) for number in range(5)),
}


def samples(seed=0, streams=STREAMS, images=IMAGES, **options):
    return Samples(images, streams, tiny_settings(**options), seed)


def steps(batches, first, count):
    """The micro-batches of `count` steps from step `first` on."""
    iterator = batches(first)
    taken = list(itertools.islice(iterator, count))
    iterator.close()
    return taken


def equal(one, other):
    """Whether two steps, lists of micro-batches, are the same to the bit."""
    return len(one) == len(other) and all(
        x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)
        for x, y in zip(one, other, strict=True)
    )


def joined(micro_batches):
    """Micro-batches as one batch."""
    return [{key: torch.cat([batch[key] for batch in micro_batches]) for key in micro_batches[0]}]


def test_a_sample_is_a_uint8_crop_of_each_stream_and_a_batch_is_float():
    sample = samples()[0]
    assert sample.keys() == STREAMS.keys()
    assert {(x.dtype, tuple(x.shape)) for x in sample.values()} == {(torch.uint8, (3, 8, 8))}
    ((batch,),) = steps(Batches(samples(), 4), 0, 1)
    for x in batch.values():
        assert x.dtype == torch.float32
        assert x.shape == (4, 3, 8, 8)
        assert -1 <= x.min() < -0.9 < 0.9 < x.max() <= 1
    assert torch.equal(((batch["real_a"][2] + 1) * 127.5).round().to(torch.uint8), samples()[2]["real_a"])


def test_a_sample_is_a_function_of_seed_stream_and_draw():
    one, other = samples(), samples()
    for draw in (0, 3, 10**9):
        first = one[draw]
        _ = one[draw + 1]
        assert equal([one[draw]], [first])
        assert equal([other[draw]], [first])
        assert not equal([samples(seed=1)[draw]], [first])
        assert not equal([one[draw + 1]], [first])
    alone = samples(streams={"real_b": STREAMS["real_b"]})
    assert torch.equal(alone[4]["real_b"], one[4]["real_b"])  # a stream does not depend on its siblings


def test_a_stream_shows_the_images_of_its_domain_in_the_order_of_its_draws():
    numbered = {
        (domain, "image"): [np.full((12, 12, 3), first + number, np.uint8) for number in range(count)]
        for domain, first, count in (("a", 0, 7), ("b", 100, 5))
    }
    drawn = samples(seed=4, images=numbered)
    for draw in range(40):
        numbers = {key: int(x[0, 0, 0]) for key, x in drawn[draw].items()}
        assert numbers == {
            "real_a": image_index(4, "real_a", draw, 7),
            "real_b": 100 + image_index(4, "real_b", draw, 5),
        }


def test_an_image_drawn_again_is_cropped_differently():
    drawn = samples(images={key: [noise(12, 14)] for key in IMAGES})
    assert len({drawn[draw]["real_a"].numpy().tobytes() for draw in range(20)}) > 10
    assert any(not torch.equal(drawn[draw]["real_a"], drawn[draw]["real_b"]) for draw in range(5))


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (3, 2)])
def test_from_step_k_on_batches_are_those_of_the_stream_from_the_start(batch_size, accumulation):
    batches = Batches(samples(), batch_size, accumulation)
    complete = steps(batches, 0, 9)
    assert all(equal(x, y) for x, y in zip(steps(batches, 4, 5), complete[4:], strict=True))
    assert not any(equal(x, y) for x, y in itertools.combinations(complete, 2))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_workers_change_nothing(accumulation):
    alone = steps(Batches(samples(), 2, accumulation), 3, 6)
    helped = steps(Batches(samples(), 2, accumulation, workers=2), 3, 6)
    assert all(equal(x, y) for x, y in zip(alone, helped, strict=True))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_processes_see_what_one_with_twice_the_batch_sees(accumulation):
    complete = steps(Batches(samples(), 2, accumulation), 0, 5)
    ranks = [steps(Batches(samples(), 1, accumulation, rank=r, processes=2), 0, 5) for r in range(2)]
    for step in range(5):
        for micro_batch in range(accumulation):
            shares = [rank[step][micro_batch] for rank in ranks]
            assert equal(joined(shares), [complete[step][micro_batch]])


def test_accumulated_micro_batches_are_one_batch():
    parts, complete = steps(Batches(samples(), 2, 2), 0, 5), steps(Batches(samples(), 4), 0, 5)
    assert {len(step) for step in parts} == {2}
    assert all(equal(joined(x), y) for x, y in zip(parts, complete, strict=True))


@pytest.mark.parametrize(("batch_size", "accumulation", "processes"), [(1, 1, 1), (2, 3, 1), (3, 2, 4)])
def test_every_draw_is_taken_once(batch_size, accumulation, processes):
    ranks = [
        Batches(samples(), batch_size, accumulation, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    drawn = [
        draw
        for step in range(10)
        for micro_batch in range(accumulation)
        for rank in ranks
        for draw in rank.draws(step, micro_batch)
    ]
    assert drawn == list(range(10 * batch_size * accumulation * processes))


def test_tied_streams_get_the_same_image_crop_and_flip():
    images = {
        ("b", "image"): [coordinates(12, 14) + number for number in range(4)],
        ("b", "smoothed"): [255 - (coordinates(12, 14) + number) for number in range(4)],
    }
    streams = {"real_b": Stream("b"), "b_smoothed": Stream("b", "smoothed", tied_to="real_b")}
    drawn = samples(streams=streams, images=images)
    for draw in range(30):
        assert torch.equal(drawn[draw]["b_smoothed"], 255 - drawn[draw]["real_b"])
    untied = samples(streams={**streams, "b_smoothed": Stream("b", "smoothed")}, images=images)
    assert any(not torch.equal(untied[n]["b_smoothed"], 255 - untied[n]["real_b"]) for n in range(30))


@pytest.mark.parametrize(("batch_size", "accumulation", "rank"), [(1, 1, 0), (2, 3, 0), (2, 2, 1)])
def test_the_files_of_a_step_are_those_whose_images_it_shows(batch_size, accumulation, rank):
    flat = {
        key: Held(np.full((12, 12, 3), number, np.uint8) for number in range(count))
        for key, count in ((("a", "image"), 7), (("b", "image"), 5))
    }
    streams = {**STREAMS, "again": Stream("b", tied_to="real_b")}
    batches = Batches(samples(images=flat, streams=streams), batch_size, accumulation, rank=rank, processes=2)
    for step, micro_batches in enumerate(steps(batches, 3, 4), 3):
        expected = {
            key: [f"{int((x[0, 0, 0] + 1) * 127.5 + 0.5)}.png" for batch in micro_batches for x in batch[key]]
            for key in streams
        }
        assert {key: [file.name for file in files] for key, files in batches.files(step).items()} == expected
        assert expected["again"] == expected["real_b"]


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_torchs_random_state_alone(workers):
    batches = Batches(samples(augmentations=[{"name": "GaussNoise", "p": 1.0}]), 2, workers=workers)
    state = torch.get_rng_state()
    first = steps(batches, 0, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(torch.initial_seed() + 1)
    assert all(equal(x, y) for x, y in zip(steps(batches, 0, 3), first, strict=True))


class Broken:
    """Images, one of which fails when it is read."""

    def __init__(self, fault):
        self.fault = fault

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            self.fault()
        return noise(12, 12)

    def file(self, index):
        return Path(f"{index}.png")


def gone():
    raise DataError("x/y.png: no such file")


def bug():
    raise RuntimeError("a bug of ours")


def batches_of(fault, workers):
    broken = samples(streams={"real_a": Stream("a")}, images={("a", "image"): Broken(fault)})
    return Batches(broken, 1, workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_image_is_reported_in_one_line(workers):
    with pytest.raises(DataError) as caught:
        steps(batches_of(gone, workers), 0, 4)
    assert str(caught.value) == "x/y.png: no such file"
    assert multiprocessing.active_children() == []  # the error does not keep the loader's processes waiting


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrong_augmentation_is_reported_in_one_line(workers):
    wrong = samples(augmentations=[{"name": "RandomCrop", "height": 4, "width": 4}])
    with pytest.raises(SettingsError, match=r"^data\.augmentations: they turn a crop of 8 pixels") as caught:
        steps(Batches(wrong, 1, workers=workers), 0, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", [partial(os._exit, 9), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_processes_that_die_again_and_again_are_reported_with_their_images(caplog, fault):
    message = (
        r"a loader process died 3 times in a row \(.*\), loading 2\.png; resume, with fewer data\.workers"
    )
    # Any batch before it would restart the count.
    first = next(draw for draw in range(4) if image_index(0, "real_a", draw, 4) == 2)
    with pytest.raises(DataError, match=message) as caught:
        steps(batches_of(fault, 1), first, 1)
    assert "\n" not in str(caught.value)
    assert len([m for m in caplog.messages if "restarting the loader processes" in m]) == 2
    assert multiprocessing.active_children() == []


class Trapped(Held):
    """Images one of which is a trap, as often as it may snap: `snaps` counts down over all processes."""

    def __init__(self, images, trap, snaps):
        super().__init__(images)
        self.trap, self.left = trap, multiprocessing.Value("i", snaps)

    def __getitem__(self, index):
        with self.left.get_lock():
            snaps = index == 2 and self.left.value > 0
            self.left.value -= snaps
        if snaps:
            self.trap()
        return super().__getitem__(index)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_process_that_dies_is_restarted_and_changes_no_batch(caplog, accumulation):
    images = {
        key: Trapped(held, lambda: os.kill(os.getpid(), signal.SIGKILL), 2 if key[0] == "a" else 0)
        for key, held in IMAGES.items()
    }
    undisturbed = steps(Batches(samples(), 2, accumulation), 3, 12)
    trapped = steps(Batches(samples(images=images), 2, accumulation, workers=2), 3, 12)
    assert all(equal(x, y) for x, y in zip(undisturbed, trapped, strict=True))
    assert images["a", "image"].left.value == 0
    assert any("restarting the loader processes" in message for message in caplog.messages)


def test_a_dying_process_interrupts_no_step():
    expected, stream = steps(Batches(samples(), 2), 0, 8), Batches(samples(), 2, workers=2)(0)
    taken = []
    for number in range(8):
        taken.append(next(stream))
        if number in (1, 4):
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
            for _ in range(50):  # a step, in which torch's signal handler would raise
                time.sleep(0.002)
    stream.close()
    assert all(equal(x, y) for x, y in zip(expected, taken, strict=True))


@pytest.fixture
def impatient(monkeypatch):
    """Makes torch wait only briefly for a process that hangs."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)


def hang():
    while True:
        time.sleep(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stalled_process_is_reported_with_its_images(impatient, workers):
    broken = samples(streams={"real_a": Stream("a")}, images={("a", "image"): Broken(hang)})
    began = time.monotonic()
    message = r"no batch within 1 s \(data\.timeout\), loading 2\.png"
    with pytest.raises(DataError, match=message) as caught:
        steps(Batches(broken, 1, workers=workers, timeout=1.0), 0, 4)
    assert time.monotonic() - began < 20
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_a_stalled_process_does_not_outlive_its_loader(impatient):
    stalls = {("a", "image"): Broken(hang)}
    stream = Batches(samples(streams={"real_a": Stream("a")}, images=stalls), 1, workers=2)(3)
    order = [image_index(0, "real_a", draw, 4) for draw in range(3, 11)]
    for _ in range(order.index(2)):
        next(stream)
    stream.close()
    assert multiprocessing.active_children() == []


def message_of(batches):
    """The name and text of the error that ends the batches."""
    try:
        steps(batches, 0, 4)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_is_not_reported_as_an_error_in_the_data(workers):
    message = message_of(batches_of(bug, workers))
    assert message.startswith("RuntimeError: ")
    assert "a bug of ours" in message
