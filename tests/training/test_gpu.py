"""Tests that need a GPU: run with `pytest -m gpu`."""

import json

import pytest
import torch
from helpers_runs import CONFIG, metrics

from gan_nst.cli import main
from gan_nst.core.options import TranslatorOptions
from gan_nst.methods import base
from gan_nst.methods.cyclegan import CycleGan, CycleGanSettings
from gan_nst.networks.norm import normalise
from gan_nst.training.settings import TrainingSettings
from gan_nst.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]


@pytest.fixture
def cuda(tiny):
    return [*(o for o in tiny if not o.startswith(("device=", "precision="))), "device=cuda"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_and_resume_on_a_gpu(cuda, tmp_path, precision):
    folder = tmp_path / "run"
    steps = [f"precision={precision}", "training.steps=12", "training.stop_at=6", "data.workers=2"]
    assert main(["train", CONFIG, *cuda, *steps, "--output", str(folder)]) == 0
    assert main(["train", "--resume", str(folder)]) == 0
    lines = metrics(folder)
    assert max(lines) == 12
    assert lines[12]["memory/peak_mib"] > 0
    assert json.loads((folder / "evaluation.json").read_text())["ab"]["translated"]["error"] < 1


def test_a_run_moves_between_gpu_and_cpu(cuda, tmp_path):
    folder = tmp_path / "run"
    assert (
        main(["train", CONFIG, *cuda, "training.steps=8", "training.stop_at=4", "--output", str(folder)]) == 0
    )
    assert main(["train", "--resume", str(folder), "training.stop_at=6", "device=cpu", "data.workers=0"]) == 0
    assert main(["train", "--resume", str(folder), "device=cuda"]) == 0
    assert max(metrics(folder)) == 8


def test_translating_on_a_gpu_agrees_with_the_cpu(cuda, tmp_path):
    import numpy as np

    from gan_nst import load_translator

    folder = tmp_path / "run"
    assert main(["train", CONFIG, *cuda, "training.steps=2", "--output", str(folder)]) == 0
    image = np.random.default_rng(0).integers(0, 255, (45, 61, 3), np.uint8)
    on_gpu, on_cpu = (
        load_translator(folder, TranslatorOptions(device=d, precision="float32"))(image)
        for d in ("cuda", "cpu")
    )
    assert np.abs(on_gpu.astype(int) - on_cpu).max() <= 1


def trainer(precision="float32", width=8, **training):
    torch.manual_seed(0)
    plan = base.Plan(steps=20, steps_per_epoch=4)
    small = {"generator": {"width": width, "blocks": 2}, "discriminator": {"width": 8, "layers": 2}}
    return Trainer(
        CycleGan(CycleGanSettings.model_validate(small), plan),
        TrainingSettings(steps=20, epochs=None, **training),
        lambda step: iter([]),
        device=torch.device("cuda"),
        precision=precision,
        checkpoints=None,
        header={},
    )


def images(size=64):
    generator = torch.Generator().manual_seed(1)
    return {
        key: (torch.rand(1, 3, size, size, generator=generator) * 2 - 1).cuda()
        for key in ("real_a", "real_b")
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_never_waits_for_the_gpu(precision):
    training = trainer(precision, gradient_clip=1.0)
    batch = images()
    training.train_step([batch])  # the first one sets things up
    training.step += 1
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.train_step([batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_activation_checkpointing_needs_less_memory():
    peaks = []
    for choice in (False, True):
        training = trainer(width=32, activation_checkpointing=choice)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        training.train_step([images(256)])
        peaks.append(torch.cuda.max_memory_allocated() - before)
        del training
    assert peaks[1] < 0.7 * peaks[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_norm_is_the_same_on_a_gpu(layout):
    x = (1 + 0.01 * torch.randn(2, 8, 32, 32)).to(memory_format=layout)
    assert (normalise(x.cuda(), 1e-5).cpu() - normalise(x, 1e-5)).abs().max() < 1e-3


def test_compiled_training_on_a_gpu(cuda, tmp_path):
    folder = tmp_path / "run"
    steps = ["compile=always", "training.steps=6", "training.stop_at=3"]
    assert main(["train", CONFIG, *cuda, *steps, "--output", str(folder)]) == 0
    assert main(["train", "--resume", str(folder)]) == 0
    assert max(metrics(folder)) == 6
