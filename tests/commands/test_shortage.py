"""Running out of memory, on the host or a GPU, at any point of a training: one helpful line, and an intact run."""

import errno
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers_runs import CONFIG, ENVIRONMENT, TINY, metrics, one_line, same_state

from gan_nst.commands import train
from gan_nst.core.device import is_out_of_memory
from gan_nst.core.errors import TrainingError
from gan_nst.core.options import TrainOptions
from gan_nst.data.batches import Samples
from gan_nst.methods.cyclegan import CycleGan
from gan_nst.runs.validation import Validation, skip_on_failure
from gan_nst.training import checkpoint
from gan_nst.training.trainer import Trainer

SHORT = ["training.steps=6", "training.sample_every=3", "evaluation.every=3", "training.batch_size=2"]

RAN_OUT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmany lines"),
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(float)),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    RuntimeError("std::bad_alloc"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("Caught _ArrayMemoryError in DataLoader worker process 0.\nOriginal Traceback"),
    RuntimeError("unable to mmap 4096 bytes from file </torch_1_2>: Cannot allocate memory (12)"),
    RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
]


@pytest.mark.parametrize("error", RAN_OUT, ids=lambda error: type(error).__name__)
def test_errors_that_mean_out_of_memory_are_recognised(error, caplog):
    assert is_out_of_memory(error)
    with skip_on_failure("step 3: no sample grid"):
        raise error
    (record,) = caplog.records
    assert record.message.startswith("step 3: no sample grid: out of memory (")
    assert "\n" not in record.message
    assert len(record.message) < 200


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_left_alone(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), skip_on_failure("no sample grid"):
        raise error


@pytest.fixture(scope="module")
def reference(datasets, tmp_path_factory):
    """A run without any failure."""
    settings = [f"data.root={datasets}", *TINY, *SHORT]
    return train.train(CONFIG, settings, TrainOptions(output=tmp_path_factory.mktemp("reference") / "run"))


def failing(monkeypatch, owner, name, error, calls):
    """Makes a function raise an error at the given calls, counted from 1."""
    plain, made = getattr(owner, name), []

    def fail(*arguments, **named):
        made.append(None)
        if len(made) in calls:
            raise error
        return plain(*arguments, **named)

    monkeypatch.setattr(owner, name, fail)


@pytest.mark.parametrize("error", RAN_OUT[:4], ids=lambda error: type(error).__name__)
def test_a_run_that_ran_out_of_memory_in_a_step_can_be_resumed(error, reference, tiny, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as during:
        failing(during, CycleGan, "discriminator_losses", error, {6})
        with pytest.raises(TrainingError) as raised:
            train.train(CONFIG, [*tiny, *SHORT], TrainOptions(output=run))
    message = str(raised.value)
    newest = checkpoint.newest_first(run / "checkpoints")[0]
    assert message.startswith("out of memory on cpu after step ")
    assert f"{newest} is intact; resume with: gan-nst train --resume {run} training.activation" in message
    assert "training.batch_size=1 training.accumulation=2" in message
    assert "a data.crop_size below 32" in message
    assert "\n" not in message
    if error is RAN_OUT[0]:
        train.train(overrides=["training.activation_checkpointing=true"], options=TrainOptions(resume=run))
        assert same_state(run, reference)


def test_running_out_of_memory_in_a_loader_process(tiny, tmp_path, monkeypatch):
    plain = Samples.__getitem__

    def fail(samples, draw):
        if draw >= 8:
            raise np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(float))
        return plain(samples, draw)

    monkeypatch.setattr(Samples, "__getitem__", fail)
    with pytest.raises(TrainingError, match=r"^out of memory on cpu after step [34]: .* data.workers=0; or"):
        train.train(CONFIG, [*tiny, *SHORT, "data.workers=1"], TrainOptions(output=tmp_path / "run"))


def test_a_grid_and_a_validation_that_run_out_of_memory_are_skipped(
    reference, tiny, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    failing(monkeypatch, train, "sample_grid", MemoryError(), {1, 3})
    failing(monkeypatch, Validation, "_validate", torch.OutOfMemoryError("CUDA out of memory"), {1})
    failing(monkeypatch, train, "evaluate_run", MemoryError(), {1})
    run = train.train(CONFIG, [*tiny, *SHORT], TrainOptions(output=tmp_path / "run"))
    for what in ("step 3: no sample grid", "step 3: no validation", "no evaluation", "no final sample grid"):
        assert f"{what}" in caplog.text
    assert "final.png" not in caplog.text
    assert [path.name for path in (run / "samples").iterdir()] == ["step-000006.png"]
    assert not any(key.startswith("validation/") for key in metrics(run)[3])
    assert any(key.startswith("validation/") for key in metrics(run)[6])
    a, b = (checkpoint.load_newest(folder / "checkpoints")[1]["state"] for folder in (run, reference))
    assert all(torch.equal(a[key], b[key]) for key in a if torch.is_tensor(a[key]))
    assert (run / "generator.safetensors").is_file()


def test_running_out_of_memory_in_gradient_shares_loses_no_score(
    reference, tiny, tmp_path, monkeypatch, caplog
):
    failing(monkeypatch, Trainer, "gradient_shares", torch.OutOfMemoryError("CUDA out of memory"), {1, 2})
    run = train.train(CONFIG, [*tiny, *SHORT], TrainOptions(output=tmp_path / "run"))
    assert "step 3: no gradient shares: out of memory" in caplog.text
    for step in (3, 6):
        scores = {key: x for key, x in metrics(reference)[step].items() if key.startswith("validation/")}
        assert scores
        assert metrics(run)[step].items() >= scores.items()
        assert not any(key.startswith("gradient_share/") for key in metrics(run)[step])
    assert (run / "checkpoints" / "best.pt").is_file()


LIMITED = """
import resource, sys, torch
from gan_nst.cli import main
from gan_nst.commands import train
from gan_nst.core.device import read_proc
from gan_nst.training.trainer import Trainer

torch.set_num_threads(1)
plain = Trainer.train_step
def step(trainer, batches):
    if trainer.step == 2:
        most = read_proc("status", "VmSize") + (8 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        batches = [{key: x.repeat(64, 1, 4, 4) for key, x in batch.items()} for batch in batches]
    plain(trainer, batches)
Trainer.train_step = step
sys.exit(main(sys.argv[1:]))
"""


def test_a_host_without_free_memory(tiny, tmp_path):
    """A step that needs far more than the system's limit."""
    arguments = ["train", CONFIG, *tiny, *SHORT, "--output", str(tmp_path / "run")]
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, "--quiet", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    one_line(
        (result.returncode, result.stdout, result.stderr), "out of memory on cpu after step 2", "is intact"
    )
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints")[1]["step"] == 2
