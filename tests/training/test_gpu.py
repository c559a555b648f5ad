"""What only a GPU shows; `pytest -m gpu` on a machine that has one."""

import json

import pytest
import torch
from helpers_runs import CONFIG, metrics

from gan_nst.cli import main

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
    assert main(["train", CONFIG, *cuda, *steps, "--out", str(folder)]) == 0
    assert main(["train", "--resume", str(folder)]) == 0
    lines = metrics(folder)
    assert max(lines) == 12
    assert lines[12]["memory/peak_mib"] > 0
    assert json.loads((folder / "evaluation.json").read_text())["ab"]["translated"]["error"] < 1


def test_a_run_moves_between_gpu_and_cpu(cuda, tmp_path):
    folder = tmp_path / "run"
    assert main(["train", CONFIG, *cuda, "training.steps=8", "training.stop_at=4", "--out", str(folder)]) == 0
    assert main(["train", "--resume", str(folder), "training.stop_at=6", "device=cpu", "data.workers=0"]) == 0
    assert main(["train", "--resume", str(folder), "device=cuda"]) == 0
    assert max(metrics(folder)) == 8


def test_translating_on_a_gpu_agrees_with_the_cpu(cuda, tmp_path):
    import numpy as np

    from gan_nst import load_translator

    folder = tmp_path / "run"
    assert main(["train", CONFIG, *cuda, "training.steps=2", "--out", str(folder)]) == 0
    picture = np.random.default_rng(0).integers(0, 255, (45, 61, 3), np.uint8)
    on_gpu, on_cpu = (
        load_translator(folder, device=d, precision="float32")(picture) for d in ("cuda", "cpu")
    )
    assert np.abs(on_gpu.astype(int) - on_cpu).max() <= 1
