"""The timed steps: alike for the reference and the trainer, taken in turns, and no flag stays changed."""

import json

import pytest
import torch

from gan_nst.bench import gpu_check
from gan_nst.bench.reference import Reference
from gan_nst.bench.steps import cyclegan_job, fastest_float32, interleaved, reference_step, trainer_step

CPU = torch.device("cpu")


def test_the_compared_networks_are_alike():
    method, reference = cyclegan_job(32, 4, 2, 1, CPU).build(), Reference(4, 2, discriminator_width=4)
    for ours, theirs in (
        (method.generators["ab"], reference.ab),
        (method.generators["ba"], reference.ba),
        (method.discriminators["a"], reference.judge_a),
        (method.discriminators["b"], reference.judge_b),
    ):
        assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_take_a_step_and_then_another(precision):
    for step in (reference_step(32, 4, 1, CPU), trainer_step(cyclegan_job(32, 4, 1, 2, CPU), precision)):
        step()
        step()


def test_candidates_take_turns_after_a_round_that_does_not_count():
    calls = []
    seconds = interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU, rounds=2, calls=2
    )
    assert "".join(calls) == "aabb" * 3
    assert seconds.keys() == {"a", "b"}


def test_a_budget_ends_the_rounds_but_not_before_the_first():
    calls = []
    interleaved({"": lambda: calls.append(1)}, CPU, rounds=100, budget=0.0)
    assert len(calls) == 2


def test_cuda_flags_are_restored():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    with fastest_float32(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.benchmark
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="tries the sizes that stand in where there is no GPU")
def test_the_gpu_check_runs_at_tiny_size(tmp_path, capsys, monkeypatch):
    def fail(out, result):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu_check.PARTS, "broken", fail)
    assert gpu_check.main(tmp_path, ["broken", "eager", "translate"]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert "no such kernel" in found["broken"]["failed"]
    assert found["eager"]["bfloat16 batch 1"]["milliseconds"] > 0
    assert found["translate"]["32 pixels, 40 GiB, images/s"] > 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "broken",
        "eager",
        "translate",
    ]
    assert "== float32 batch 1, 3 calls" in (tmp_path / "kernels.txt").read_text()
