"""The first step is waited for, and a training that never takes one, or is not waited for, leaves no process."""

import os
import subprocess

import pytest
from helpers_runs import PROJECT

from gan_nst.bench import start
from gan_nst.bench.start import first_step_seconds


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    processes = []

    class Noted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            processes.append(self)

    monkeypatch.setattr(start.subprocess, "Popen", Noted)
    return processes


def test_a_training_that_fails_is_told_and_not_measured(tmp_path, caplog):
    config = tmp_path / "broken.yaml"
    config.write_text("method: {name: cyclegam}\n")
    assert first_step_seconds(config, tmp_path, size=32, count=2) is None
    assert "did you mean cyclegan?" in caplog.text


def test_ctrl_c_ends_the_training(tmp_path, monkeypatch, started):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "_has_line", interrupt)
    config = os.path.join(PROJECT, "experiments", "photo2cartoon", "cyclegan.yaml")
    with pytest.raises(KeyboardInterrupt):
        first_step_seconds(config, tmp_path, size=64, count=2)
    (process,) = started
    assert process.returncode is not None
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
