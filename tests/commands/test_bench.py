"""`gan-nst bench`: what it measures, what it skips, and that it refuses before it measures."""

import json
import os
import pickle
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers_bench import TOY
from helpers_runs import PROJECT, one_line

from gan_nst.commands import bench
from gan_nst.commands.bench import as_text, benchmark, convolution_rate, peak_mib
from gan_nst.core.options import BenchOptions

CPU = torch.device("cpu")
CONFIGS = [
    os.path.join(PROJECT, "experiments", "photo2cartoon", f"{m}.yaml") for m in ("cyclegan", "cartoongan")
]
SMALL = [
    "data.crop_size=32",
    "method.generator.width=4",
    "method.generator.blocks=1",
    "training.accumulation=2",
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A complete benchmark at toy sizes, run where the project's experiments are, and its file."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(PROJECT)
        result = benchmark(CONFIGS[0], SMALL, BenchOptions(json=file, rounds=2, device="cpu"), TOY)
    return result, file


def test_the_file_holds_what_was_measured(measured):
    result, file = measured
    found = json.loads(file.read_text())
    assert found == json.loads(json.dumps(result))
    assert list(file.parent.iterdir()) == [file]
    precisions = (
        ["float32", "bfloat16"] if found["machine"]["native_precision"] == "bfloat16" else ["float32"]
    )
    assert list(found) == [
        "machine", *(f"convolution, {p}" for p in precisions), "CycleGAN's step", "reference", *precisions,
        "configured step", "loader, on one core", "translate a folder"
    ]  # fmt: skip
    for name in ("reference", *precisions):
        step = found[name]
        assert step["ratio"] == pytest.approx(found["reference"]["seconds"] / step["seconds"])
        assert step["images_per_second"] == pytest.approx(1 / step["seconds"])
        rate = found["CycleGAN's step"]["gflop"] / step["seconds"]
        ceiling = found[f"convolution, {'float32' if name == 'reference' else name}"]["gflops_per_second"]
        assert step["gflops_per_second"] == pytest.approx(rate)
        assert step["share_of_convolution"] == pytest.approx(rate / ceiling)
        assert 1 < step["peak_mib"] < 500
    assert found["loader, on one core"].keys() == {"decoded", "cached", "cached_and_augmented"}
    assert min(found["loader, on one core"].values()) > 0
    assert found["translate a folder"]["images_per_second"] > 0


def test_the_table_has_all_of_it(measured):
    text = "\n".join(as_text(*row) for row in measured[0].items())
    assert max(map(len, text.splitlines())) <= 120
    assert "None" not in text
    for part in (
        "GFLOP/s",
        "1.00 x reference",
        "native precision",
        "configured step",
        "cached",
        "images/s",
        "MiB",
    ):
        assert part in text


@pytest.fixture
def taking(monkeypatch):
    """Every operation runs once and then takes as many seconds as given for it; returns what they computed."""
    results = []

    def set_seconds(*seconds):
        remaining = iter(seconds)
        monkeypatch.setattr(
            bench, "_seconds", lambda operation: results.append(operation()) or next(remaining)
        )
        return results

    return set_seconds


def test_the_rate_of_a_convolution_is_that_of_its_faster_layout(taking):
    results = taking(0.5, 0.25)
    assert convolution_rate("bfloat16", CPU, 4, 8) == pytest.approx(2 * 9 * 4 * 4 * 8 * 8 / 0.25 / 1e9)
    assert [(x.dtype, tuple(x.shape)) for x in results] == [(torch.bfloat16, (1, 4, 8, 8))] * 2
    assert [x.is_contiguous() for x in results] == [True, False]


def test_memory_is_what_the_step_takes_and_not_what_this_process_holds():
    held = torch.ones(300 * 2**18)
    large, small = (peak_mib(partial(partial, torch.ones, mib * 2**18), CPU) for mib in (200, 1))
    assert 200 <= large <= 260
    assert large - small == pytest.approx(199, abs=10)
    del held


@pytest.mark.parametrize("config", CONFIGS, ids=["cyclegan", "cartoongan"])
def test_a_configured_step_needs_no_images(config, monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "peak_mib", lambda builder, device: len(pickle.dumps(builder)))
    configured = bench._configured(config, [*SMALL, "precision=bfloat16"], "cpu")
    found = bench._configured_step(configured, rounds=1)
    assert found["method"] == Path(config).stem
    shape = found["precision"], found["crop_size"], found["batch_size"], found["accumulation"]
    assert shape == ("bfloat16", 32, 1, 2)
    assert found["images_per_second"] == pytest.approx(2 / found["seconds"])
    assert found["hours"] == pytest.approx(3000 * found["seconds"] / 3600)
    assert ("random features" in caplog.text) == (found["method"] == "cartoongan")
    assert list(tmp_path.iterdir()) == []


def test_without_planned_steps_no_hours_are_reported(monkeypatch):
    configured = bench._configured(CONFIGS[0], [*SMALL, "training.epochs=3"], "cpu")
    monkeypatch.setattr(bench, "peak_mib", lambda *_: None)
    found = bench._configured_step(configured, rounds=1)
    assert found["hours"] is None
    assert "steps" not in as_text("configured step", found)
    assert "MiB" not in as_text("configured step", found)


@pytest.fixture
def unmeasured(monkeypatch):
    """Fails when anything is measured."""

    def refuse(*_):
        raise AssertionError("measured before it refused")

    monkeypatch.setattr(bench, "_measure", refuse)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nowhere.yaml"], ["nowhere.yaml"]),
        (["training.batch=2"], ["training.batch", "did you mean"]),
        (["method.name=cyclegam"], ["cyclegam"]),
        ([CONFIGS[0], "data.load_size=33", "data.crop_size=33"], ["data.crop_size", "33"]),
        (
            [CONFIGS[0], "data.load_size=12", "data.crop_size=8", "method.generator.downsamplings=4"],
            ["data.crop_size"],
        ),
        (["--json", "missing/bench.json"], ["missing/bench.json", "does not exist"]),
        (["--device", "gpu"], ["device", "'gpu'"]),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(gan_nst, unmeasured, arguments, parts):
    one_line(gan_nst("bench", *arguments), *parts)


def test_no_rounds_are_refused(gan_nst):
    one_line(gan_nst("bench", "--rounds", "0"), "--rounds: expected a whole number of at least 1, got '0'")


def test_the_command_prints_each_part_and_writes_the_file(gan_nst, monkeypatch, measured, tmp_path):
    given = []
    monkeypatch.setattr(bench, "_measure", lambda *arguments: given.append(arguments) or measured[0].items())
    code, out, _ = gan_nst(
        "bench", "--rounds", "4", "--device", "cpu", "training.batch_size=3", "--json", "b.json"
    )
    assert code == 0
    assert out.rstrip().endswith("\n".join(as_text(*row) for row in measured[0].items()))
    assert json.loads((tmp_path / "b.json").read_text()) == json.loads(json.dumps(measured[0]))
    _, device, rounds, configured, compiled, _ = given[0]
    assert (device, rounds, compiled) == (CPU, 4, False)
    assert configured.training.batch_size == 3
    assert json.loads(gan_nst("bench", "--json", "-")[1]) == json.loads(json.dumps(measured[0]))
    assert given[1][3] is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmany lines"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you"),
        BrokenProcessPool("A process in the process pool was terminated abruptly"),
    ],
)
def test_out_of_memory_is_one_line(gan_nst, monkeypatch, error):
    def measure(*_):
        raise error

    monkeypatch.setattr(bench, "_measure", measure)
    one_line(gan_nst("bench"), "out of memory")


def test_another_error_is_not_mistaken_for_too_little_memory(monkeypatch):
    def measure(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(bench, "_measure", measure)
    with pytest.raises(RuntimeError, match="shapes differ"):
        benchmark(options=BenchOptions(device="cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none")
def test_the_benchmark_on_a_gpu(in_project):
    small = ["data.crop_size=32", "method.generator.width=4", "training.batch_size=2", "device=cuda"]
    result = benchmark(CONFIGS[0], small, BenchOptions(rounds=2, device="cuda"), TOY)
    for name in ("reference", "float32", "bfloat16", "bfloat16, compiled", "configured step"):
        assert result[name]["seconds"] > 0
        assert 0 < result[name]["peak_mib"] < 2000
    assert result["configured step"]["device"] == "cuda"
