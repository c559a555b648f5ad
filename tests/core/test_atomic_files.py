"""Files written atomically, and optional output of a training."""

import contextlib
import errno
import json
import logging
import os
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan_nst.core import files
from gan_nst.core.errors import CheckpointError, DataError
from gan_nst.core.files import OptionalOutput, atomic_write, remove_temporaries, temporary_path, write_file
from gan_nst.training.monitor import Monitor, is_selected


def full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lines(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalar_steps(folder):
    """The steps of a scalar among the events of a folder."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return sorted({event.step for event in found.Scalars("a/x")}) if "a/x" in found.Tags()["scalars"] else []


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "x"
    with atomic_write(path) as first:
        first.write_text("first")
        with atomic_write(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x"
    write_file(path, "old")
    with contextlib.suppress(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(CheckpointError, match=r"x/y: could not be written \(File exists\)"):
        write_file(path / "y", "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_temporary_files_of_the_given_names_are_removed(tmp_path):
    left = [temporary_path(tmp_path / name) for name in ("x.png", "y.png", "line\nbreak")]
    others = [tmp_path / name for name in ("x.png", ".x.png.part", "x.png.0123abcd.part", ".0123abcd.part")]
    for path in (*left, *others):
        path.touch()
    remove_temporaries(tmp_path, {"x.png"})
    assert sorted(tmp_path.iterdir()) == sorted((*left[1:], *others))
    remove_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    remove_temporaries(tmp_path / "none")


def test_a_failure_and_its_end_are_reported_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    output = OptionalOutput(tmp_path / "samples")
    for failure in (full(), DataError("x.png: could not be written"), None, None, full()):
        with output.attempt():
            if failure is not None:
                raise failure
    texts = [record.getMessage() for record in caplog.records]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO, logging.WARNING]
    assert f"{tmp_path / 'samples'}: could not be written (No space left on device)" in texts[0]
    assert "training continues without it" in texts[0]
    assert "can be written again" in texts[1]


def test_other_errors_pass(tmp_path):
    with pytest.raises(ValueError, match="ours"), OptionalOutput(tmp_path).attempt():
        raise ValueError("ours")


@pytest.mark.parametrize("written", [0, 5])
def test_a_line_that_cannot_be_written_leaves_no_torn_line(tmp_path, monkeypatch, caplog, written):
    class Short:
        """A file on a disk that fills up after some bytes."""

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

    monitor = Monitor(tmp_path, 0, 10)
    monitor.log(1, {"a/x": 1.0})
    monkeypatch.setattr(files, "open", lambda path, *_, **__: Short(path), raising=False)
    monitor.log(2, {"a/x": 2.0})
    monitor.log(3, {"a/x": 3.0})
    monkeypatch.undo()
    monitor.log(4, {"a/x": 4.0})
    monitor.close()
    assert lines(tmp_path) == [1, 4]
    assert caplog.text.count("metrics.jsonl: could not be written (No space left on device)") == 1


def test_events_continue_after_a_failure_and_start_where_a_run_resumes(tmp_path, monkeypatch, caplog):
    before = Monitor(tmp_path, 0, 10)
    for step in (1, 2, 9):
        before.log(step, {"a/x": float(step)})

    def refuse(*_):
        raise full()

    time.sleep(1)  # the second is part of a file's name
    after = Monitor(tmp_path, 2, 10)
    with monkeypatch.context() as patched:
        patched.setattr("gan_nst.training.monitor.append_atomically", refuse)
        for step in (3, 4):
            after.log(step, {"a/x": float(step)})
    for step in (5, 6):
        after.log(step, {"a/x": float(step)})
    assert scalar_steps(tmp_path) == lines(tmp_path) == [1, 2, 5, 6]
    assert caplog.text.count("could not be written") == 2


def test_of_a_long_run_fewer_and_fewer_grids_are_selected():
    selected = [number for number in range(12_000) if is_selected(number)]
    assert selected[:64] == list(range(64))
    assert len(selected) < 350
    assert selected[-1] == 11_776
