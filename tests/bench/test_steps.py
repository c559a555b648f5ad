"""The timed steps: equal for the reference and the trainer, and taken alternately."""

import json

import pytest
import torch

from gan_nst.bench import gpu_check
from gan_nst.bench.reference import Reference
from gan_nst.bench.steps import cyclegan_job, interleaved, reference_step, trainer_step

CPU = torch.device("cpu")


def test_the_compared_networks_are_equal():
    method, reference = cyclegan_job(32, 4, 2, 1, CPU).build(), Reference(4, 2, discriminator_width=4)
    for ours, theirs in (
        (method.generators["ab"], reference.ab),
        (method.generators["ba"], reference.ba),
        (method.discriminators["a"], reference.discriminators["a"]),
        (method.discriminators["b"], reference.discriminators["b"]),
    ):
        assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_take_several_steps(precision):
    job = cyclegan_job(32, 4, 1, 2, CPU, precision)
    for step in (reference_step(job), trainer_step(job)):
        step()
        step()


def test_candidates_take_turns_after_a_warm_up_round():
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the sizes used without a GPU")
def test_the_gpu_check_runs_at_tiny_size(tmp_path, capsys, monkeypatch):
    def fail(out, result):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu_check.PARTS, "broken", fail)
    assert gpu_check.main(tmp_path, ["broken", "convolutions", "eager", "translate"]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert "no such kernel" in found["broken"]["failed"]
    assert found["convolutions"]["matrix product"] >= 0
    assert found["eager"]["bfloat16 batch 1"]["milliseconds"] > 0
    assert found["translate"]["32 pixels, 40 GiB, images/s"] > 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "broken",
        "convolutions",
        "eager",
        "translate",
    ]
    assert "== float32, 3 calls" in (tmp_path / "kernels.txt").read_text()


def test_larger_batches_end_where_memory_does(tmp_path, monkeypatch):
    def measured(out, name, call, operations, images):
        if images > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {}

    monkeypatch.setattr(gpu_check, "TINY", False)
    monkeypatch.setattr(gpu_check, "_measured", measured)
    for name, value in {"DEVICE": CPU, "SIZE": 32, "WIDTH": 4, "BLOCKS": 1}.items():
        monkeypatch.setattr(gpu_check, name, value)
    result = {}
    gpu_check.eager(tmp_path, result)
    assert list(result) == ["reference", "float32", "bfloat16 batch 1", "bfloat16 batch 2"]
