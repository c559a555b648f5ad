"""The benchmark on a GPU; `pytest -m gpu` on a machine that has one."""

import pytest
import torch
from helpers_bench import TOY

from gan_nst.commands.bench import benchmark
from gan_nst.core.options import BenchOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"),
]


def test_the_benchmark_on_a_gpu(in_project):
    before = torch.get_float32_matmul_precision()
    config = "experiments/photo2cartoon/cyclegan.yaml"
    small = ["data.crop_size=32", "method.generator.width=4", "training.batch_size=2", "device=cuda"]
    result = benchmark(config, small, BenchOptions(rounds=2, device="cuda"), sizes=TOY)
    step = result["cyclegan_step"]
    assert list(step["batches"]) == ["1", "2", "4", "8", "16", "32"]
    for value in (step["reference"], step["float32"], step["bfloat16"], *step["batches"].values()):
        assert value["seconds"] > 0
        assert 0 < value["peak_mib"] < 2000
    assert step["batches"]["16"]["peak_mib"] > step["batches"]["1"]["peak_mib"]
    assert step["batches"]["1"]["share_of_matrix_product"] > 0
    assert result["configured_step"]["device"] == "cuda"
    assert result["configured_step"]["peak_mib"] > 0
    assert torch.get_float32_matmul_precision() == before
