"""`gan-nst bench`: what it measures, what it skips, and that it refuses before it measures."""

import json
import os
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers_bench import TOY
from helpers_runs import PROJECT, one_line

from gan_nst.commands import bench
from gan_nst.commands.bench import as_text, benchmark, convolution_rate, matrix_product_rate, peak_mib
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
    """A whole benchmark at toy sizes, run where the project's experiments are, and its file."""
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
    assert list(found) == [
        "machine", "ceiling", "cyclegan_step", "configured_step", "loader", "translate", "start"
    ]  # fmt: skip
    step = found["cyclegan_step"]
    ours = [name for name in ("float32", "bfloat16") if step[name] is not None]
    assert (step["bfloat16"] is not None) == found["machine"]["bfloat16_native"]
    for name in ("reference", *ours):
        assert step[name]["ratio"] == pytest.approx(step["reference"]["seconds"] / step[name]["seconds"])
        rate = step["operations"] / step[name]["seconds"] / 1e9
        ceiling = found["ceiling"]["convolution"]["float32" if name == "reference" else name]
        assert step[name]["gflops_per_second"] == pytest.approx(rate)
        assert step[name]["share_of_ceiling"] == pytest.approx(rate / ceiling)
        assert 1 < step[name]["peak_mib"] < 500
    assert step["batches"] is None
    fastest = 1 / min(step[name]["seconds"] for name in ours)
    loader, translate, start = found["loader"], found["translate"], found["start"]
    assert loader["times_what_the_step_consumes"] == pytest.approx(loader["cached"] / (2 * fastest))
    assert translate["share"] == pytest.approx(
        translate["images_per_second"] / translate["network_images_per_second"]
    )
    assert 0 < start["help_seconds"] < start["first_step_seconds"]


def test_the_table_has_all_of_it(measured):
    text = as_text(measured[0])
    assert max(map(len, text.splitlines())) < 160
    for part in ("GFLOP/s", "reference", "bfloat16 native", "configured step", "images/s", "--help", "MiB"):
        assert part in text


def test_the_table_of_a_gpu_has_a_row_for_each_batch_size(measured):
    value = {"seconds": 0.1, "images_per_second": 40.0, "share_of_matrix_product": 0.42, "peak_mib": 9000.0}
    step = {**measured[0]["cyclegan_step"], "batches": {"4": value}}
    (row,) = [line for line in as_text({"cyclegan_step": step}).splitlines() if "batch 4" in line]
    for part in ("40 images/s", "42%", "9000 MiB"):
        assert part in row


def test_what_was_not_measured_is_said():
    assert "first step on the CPU not measured" in as_text(
        {"start": {"first_step_seconds": None, "help_seconds": 0.1}}
    )


def test_larger_batches_end_where_memory_does(monkeypatch):
    def timed(job, precision, compiled, rounds):
        if job.images > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"seconds": 1.0}

    monkeypatch.setattr(bench, "_timed", timed)
    assert list(bench._larger_batches((32, 4, 1), CPU, 1.0, 1, False)) == ["1", "2"]


@pytest.fixture
def taking(monkeypatch):
    """Every operation runs once and then takes that many seconds; returns what they computed."""
    results = []

    def set_seconds(seconds):
        monkeypatch.setattr(
            bench, "_seconds", lambda operation, device: results.append(operation()) or seconds
        )
        results.clear()
        return results

    return set_seconds


def test_a_matrix_product_is_two_operations_for_each_element_and_column(taking):
    results = taking(0.5)
    assert matrix_product_rate("bfloat16", CPU, side=8) == pytest.approx(2 * 8**3 / 0.5 / 1e9)
    assert results[0].dtype == torch.bfloat16


def test_a_convolution_grows_its_batch_until_it_takes_long_enough(taking):
    operations = 2 * 9 * 4 * 4 * 8 * 8
    results = taking(0.5)
    assert convolution_rate("float32", CPU, 4, 8) == pytest.approx(operations / 0.5 / 1e9)
    assert [len(x) for x in results] == [1, 1]
    results = taking(0.05)
    assert convolution_rate("float32", CPU, 4, 8, largest_batch=4) == pytest.approx(
        4 * operations / 0.05 / 1e9
    )
    assert [len(x) for x in results] == [1, 2, 4, 1, 2, 4]


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
    assert "steps" not in as_text({"configured_step": found})
    assert "memory not measured" in as_text({"configured_step": found})


def test_a_training_that_fails_is_reported_and_not_measured(monkeypatch, tmp_path, caplog):
    config = tmp_path / "broken.yaml"
    config.write_text("method: {name: cyclegam}\n")
    monkeypatch.setattr(bench, "find_config", lambda domain, method: config)
    monkeypatch.setattr(bench, "make_demo", lambda *_, **__: None)
    assert bench._first_step_seconds(tmp_path) is None
    assert "did you mean cyclegan?" in caplog.text


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
    with pytest.raises(SystemExit) as exit:
        gan_nst("bench", "--rounds", "0")
    assert exit.value.code == 2


def test_the_command_prints_each_part_and_writes_the_file(gan_nst, monkeypatch, measured, tmp_path):
    given = []
    monkeypatch.setattr(bench, "_measure", lambda *arguments: given.append(arguments) or measured[0].items())
    code, out, _ = gan_nst(
        "bench", "--rounds", "4", "--device", "cpu", "training.batch_size=3", "--json", "b.json"
    )
    assert code == 0
    assert out.strip().endswith(as_text(measured[0]))
    assert json.loads((tmp_path / "b.json").read_text())["cyclegan_step"]["float32"]["ratio"] > 0
    _, device, rounds, configured, compiled, _ = given[0]
    assert (device, rounds, compiled) == (CPU, 4, False)
    assert configured.job.training.batch_size == 3
    assert json.loads(gan_nst("bench", "--json", "-")[1]) == json.loads(json.dumps(measured[0]))
    assert given[1][3] is None


def test_out_of_memory_is_one_line(gan_nst, monkeypatch):
    def measure(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmany lines")

    monkeypatch.setattr(bench, "_measure", measure)
    one_line(gan_nst("bench"), "out of memory")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none")
def test_the_benchmark_on_a_gpu(in_project):
    before = torch.get_float32_matmul_precision()
    small = ["data.crop_size=32", "method.generator.width=4", "training.batch_size=2", "device=cuda"]
    result = benchmark(CONFIGS[0], small, BenchOptions(rounds=2, device="cuda"), TOY)
    step = result["cyclegan_step"]
    assert list(step["batches"]) == ["1", "2", "4", "8", "16", "32"]
    for value in (step["reference"], step["float32"], step["bfloat16"], *step["batches"].values()):
        assert value["seconds"] > 0
        assert 0 < value["peak_mib"] < 2000
    assert step["batches"]["16"]["peak_mib"] > step["batches"]["1"]["peak_mib"]
    assert result["configured_step"]["device"] == "cuda"
    assert torch.get_float32_matmul_precision() == before
