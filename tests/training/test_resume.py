"""A run that was stopped, interrupted or killed, then resumed, equals the uninterrupted run: bit by bit, with real
processes.
"""

import os
import signal

import pytest
from helpers_runs import CONFIG, TINY, finish, metrics, run, same_state, start, wait_for_step

STEPS = 120


@pytest.fixture(scope="module")
def arguments(datasets):
    changes = ["training.checkpoint_every=25", "training.sample_every=1000", f"training.steps={STEPS}"]
    # The training images alone: a test split would be evaluated every time.
    images = datasets / "photo2cartoon"
    where = [f"data.root={datasets}", f"data.a={images / 'trainA'}", f"data.b={images / 'trainB'}"]
    return [CONFIG, *where, "data.held_out=0", *TINY, *changes]


@pytest.fixture(scope="module")
def reference(arguments, tmp_path_factory):
    """The uninterrupted run, loaded without workers."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    code, _, err = run("train", *arguments, "--output", folder)
    assert code == 0, err
    return folder


def resume(folder, *overrides):
    code, _, err = run("train", "--resume", folder, *overrides)
    assert code == 0, err


def losses(folder):
    """Returns what was logged, except speed and memory."""
    return {
        step: {key: value for key, value in line.items() if not key.startswith(("speed", "memory"))}
        for step, line in metrics(folder).items()
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_after_stop_at(arguments, reference, tmp_path, workers):
    folder = tmp_path / "run"
    assert (
        run("train", *arguments, "--output", folder, "training.stop_at=37", f"data.workers={workers}")[0] == 0
    )
    resume(folder)  # stop_at applied to that session only
    assert same_state(reference, folder)
    assert losses(reference) == losses(folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_after_sigterm(arguments, reference, tmp_path, workers):
    folder = tmp_path / "run"
    process = start("train", *arguments, "--output", folder, f"data.workers={workers}")
    wait_for_step(process, folder, 40)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)  # like a supervisor, to the loader's processes as well
    code, _, err = finish(process)
    assert code == 143
    assert "--resume" in err
    assert "Traceback" not in err
    stopped = max(metrics(folder))
    assert stopped < STEPS
    assert (folder / "checkpoints" / f"step-{stopped:07d}.pt").exists()
    resume(folder)
    assert same_state(reference, folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_after_sigkill_in_the_middle_of_an_interval(arguments, reference, tmp_path, workers):
    folder = tmp_path / "run"
    process = start("train", *arguments, "--output", folder, f"data.workers={workers}")
    wait_for_step(process, folder, 30)
    assert process.poll() is None
    process.kill()
    code, _, _ = finish(process)
    assert code == -signal.SIGKILL
    assert 30 <= max(metrics(folder)) < STEPS
    resume(folder)
    assert same_state(reference, folder)
    assert losses(reference) == losses(folder)


def test_another_seed_is_another_run(arguments, reference, tmp_path):
    """Negative control: the comparison detects a difference."""
    folder = tmp_path / "run"
    assert run("train", *arguments, "--output", folder, "seed=1")[0] == 0
    assert not same_state(reference, folder)


def test_sigint_saves_and_exits_with_130(arguments, tmp_path):
    folder = tmp_path / "run"
    process = start("train", *arguments, "training.steps=100000", "data.workers=2", "--output", folder)
    wait_for_step(process, folder, 3)
    os.killpg(process.pid, signal.SIGINT)  # like a terminal, to the loader's processes as well
    code, _, err = finish(process)
    assert code == 130
    assert err.count("\n") == 1
    assert f"gan-nst train --resume {folder}" in err
