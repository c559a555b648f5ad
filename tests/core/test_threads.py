"""The number of threads depends only on the settings and the machine, and is kept when a run is resumed."""

import os
import sys

import pytest
import torch
from helpers_runs import CONFIG

from gan_nst.commands.train import train
from gan_nst.core import threads
from gan_nst.core.options import TrainOptions
from gan_nst.runs import prepare
from gan_nst.training import checkpoint
from gan_nst.training.trainer import Trainer


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of six CPUs without a quota; returns where its control group's files would be."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 6),
        ({"cpu.max": "max 100000"}, 6),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "900000 100000"}, 6),
        ({"cpu.max": "invalid"}, 6),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_a_quota_and_an_affinity_limit_the_cpus(machine, files, cpus):
    (machine / "cpu").mkdir()
    for name, text in files.items():
        (machine / name).write_text(text)
    assert threads.cpus() == cpus


def test_without_affinities_all_cpus_count(machine, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert threads.cpus() == 3


@pytest.mark.parametrize(
    ("operations", "torchs", "count"), [(4e9, 6, 1), (2e10, 6, 2), (5e11, 6, 6), (5e11, 8, 6), (5e11, 2, 2)]
)
def test_small_networks_get_one_thread_and_large_ones_all(machine, monkeypatch, operations, torchs, count):
    monkeypatch.setattr(torch, "get_num_threads", lambda: torchs)
    assert threads.training_threads(operations) == count


@pytest.mark.parametrize(
    ("given", "quota", "expected"),
    [
        ({}, "max 1", {"GOMP_SPINCOUNT": "1000"}),
        ({}, "2 1", {"GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "2"}),
        ({"OMP_NUM_THREADS": "5"}, "2 1", {"GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "5"}),
        ({"GOMP_SPINCOUNT": "7"}, "max 1", {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "max 1", {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_the_users_environment_wins(machine, monkeypatch, given, quota, expected):
    (machine / "cpu.max").write_text(quota)
    environment = dict(given)
    monkeypatch.setattr(os, "environ", environment)
    threads.configure_threads()
    assert environment == given  # torch is already imported, so it would have no effect
    monkeypatch.delitem(sys.modules, "torch")
    threads.configure_threads()
    assert environment == expected


def test_a_resumed_run_keeps_its_threads(tiny, tmp_path, monkeypatch):
    used = []
    step = Trainer.train_step

    def recording(self, micro_batches):
        used.append(torch.get_num_threads())
        step(self, micro_batches)

    monkeypatch.setattr(Trainer, "train_step", recording)
    monkeypatch.setattr(prepare, "training_threads", lambda operations: 2)
    run = train(
        CONFIG, [*tiny, "training.steps=3", "training.stop_at=1"], TrainOptions(output=tmp_path / "run")
    )
    monkeypatch.setattr(prepare, "training_threads", lambda operations: 1)
    train(overrides=["training.stop_at=2"], options=TrainOptions(resume=run))
    assert checkpoint.load_newest(run / "checkpoints")[1]["settings"]["threads"] == 2
    train(overrides=["threads=1"], options=TrainOptions(resume=run))
    assert used == [2, 2, 1]
    assert torch.get_num_threads() == 1  # the caller's number is restored
