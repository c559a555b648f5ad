"""What a training can do without: told once where it fails, and tried again."""

import errno
import json
import logging
import os
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_nst.core import files
from gan_nst.core.errors import DataError
from gan_nst.core.files import BestEffort
from gan_nst.training import monitor as events
from gan_nst.training.monitor import Monitor


def full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lines(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def told(folder):
    """The steps of a scalar among the events of a folder."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return sorted({event.step for event in found.Scalars("a/x")}) if "a/x" in found.Tags()["scalars"] else []


def test_a_failure_is_told_once_and_so_is_its_end(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    effort = BestEffort(tmp_path / "samples")
    for failure in (full(), DataError("x.png: could not be written"), None, None, full()):
        with effort.attempt():
            if failure is not None:
                raise failure
    texts = [record.getMessage() for record in caplog.records]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO, logging.WARNING]
    assert f"{tmp_path / 'samples'}: could not be written (No space left on device)" in texts[0]
    assert "the training goes on without it" in texts[0]
    assert "can be written again" in texts[1]


def test_other_errors_pass(tmp_path):
    with pytest.raises(ValueError, match="ours"), BestEffort(tmp_path).attempt():
        raise ValueError("ours")


@pytest.mark.parametrize("written", [0, 5])
def test_a_line_that_cannot_be_written_leaves_no_half_behind(tmp_path, monkeypatch, caplog, written):
    class Short:
        """A file on a disk that is full after some bytes."""

        def __init__(self, path):
            self.file = open(path, "ab", buffering=0)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            if not written:
                raise full()
            return self.file.write(content[:written])

        tell = property(lambda self: self.file.tell)
        truncate = property(lambda self: self.file.truncate)

    told = Monitor(tmp_path, 0, 10)
    told.log(1, {"a/x": 1.0})
    monkeypatch.setattr(files, "open", lambda path, *_, **__: Short(path), raising=False)
    told.log(2, {"a/x": 2.0})
    told.log(3, {"a/x": 3.0})
    monkeypatch.undo()
    told.log(4, {"a/x": 4.0})
    told.close()
    assert lines(tmp_path) == [1, 4]
    assert caplog.text.count("metrics.jsonl: could not be written (No space left on device)") == 1


def test_events_go_on_after_a_failure_and_begin_where_a_run_goes_on(tmp_path, monkeypatch, caplog):
    before = events.Events(tmp_path, 0)
    for step in (1, 2, 9):
        before.scalars(step, {"a/x": float(step)})

    def refuse(*_):
        raise full()

    time.sleep(1)  # a file's name tells the second
    after = events.Events(tmp_path, 2)
    with monkeypatch.context() as patched:
        patched.setattr(events, "append_whole", refuse)
        for step in (3, 4):
            after.scalars(step, {"a/x": float(step)})
    for step in (5, 6):
        after.scalars(step, {"a/x": float(step)})
    assert told(tmp_path) == [1, 2, 5, 6]
    assert caplog.text.count("could not be written") == 1


def test_the_events_of_a_long_run_hold_ever_fewer_grids(tmp_path):
    added = []
    told = Monitor(tmp_path, 0, 10)
    told._events.image = lambda step, name, image: added.append(step)
    for number in range(12_000):
        told.image(500 * number, "samples", np.zeros((2, 2, 3), np.uint8), number)
    told.close()
    assert added[:64] == [500 * number for number in range(64)]
    assert len(added) < 350
    assert added[-1] == 500 * 11_776
