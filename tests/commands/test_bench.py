"""`gan-nst bench`: what it tells, and that it refuses before it measures."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers_bench import TOY
from helpers_runs import ENVIRONMENT, PROJECT, one_line

from gan_nst.bench.reference import Reference
from gan_nst.bench.table import as_text
from gan_nst.commands import bench
from gan_nst.commands.bench import benchmark
from gan_nst.commands.bench_steps import Candidate, candidates, compare, cyclegan_job, until_out_of_memory
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
    """A whole benchmark at toy sizes, run where the project's experiments lie, and its file."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(PROJECT)
        result = benchmark(CONFIGS[0], SMALL, BenchOptions(json=file, rounds=2, device="cpu"), sizes=TOY)
    return result, file


def test_the_file_has_what_was_measured_where_it_is_looked_for(measured):
    result, file = measured
    told = json.loads(file.read_text())
    assert told == json.loads(json.dumps(result))
    assert list(told) == [
        "machine", "ceiling", "cyclegan_step", "configured_step", "loader", "translate", "start"
    ]  # fmt: skip
    for rates in told["ceiling"].values():
        assert min(rates["float32"], rates["bfloat16"]) > 0
    step = told["cyclegan_step"]
    for name in ("reference", "float32", "bfloat16"):
        assert step[name]["ratio"] == pytest.approx(step["reference"]["seconds"] / step[name]["seconds"])
        rate = step["operations"] / step[name]["seconds"] / 1e9
        ceiling = told["ceiling"]["convolution"]["bfloat16" if name == "bfloat16" else "float32"]
        assert step[name]["gflops_per_second"] == pytest.approx(rate)
        assert step[name]["share_of_ceiling"] == pytest.approx(rate / ceiling)
        assert 1 < step[name]["peak_mib"] < 500
    assert step["batches"] is None
    assert step["rounds"] == 2
    fastest = 1 / min(step["float32"]["seconds"], step["bfloat16"]["seconds"])
    loader, translate, start = told["loader"], told["translate"], told["start"]
    assert loader["times_what_the_step_consumes"] == pytest.approx(loader["cached"] / (2 * fastest))
    assert translate["share"] == pytest.approx(
        translate["images_per_second"] / translate["network_images_per_second"]
    )
    assert 0 < start["help_seconds"] < start["first_step_seconds"]
    assert {"processor", "torch", "torch_threads", "device", "bfloat16_native", "gan_nst"} <= set(
        told["machine"]
    )


def test_nothing_but_the_file_is_left(measured):
    _, file = measured
    assert list(file.parent.iterdir()) == [file]


def test_the_table_says_all_of_it(measured):
    text = as_text(measured[0])
    assert max(map(len, text.splitlines())) < 160
    for part in ("GFLOP/s", "reference", "bfloat16 native", "configured step", "images/s", "--help", "MiB"):
        assert part in text


def test_the_table_says_what_was_not_measured(measured):
    result = copy.deepcopy(measured[0])
    del result["configured_step"]
    result["start"]["first_step_seconds"] = None
    result["cyclegan_step"]["bfloat16"]["peak_mib"] = None
    text = as_text(result)
    assert "configured" not in text
    assert "first step on the CPU not measured" in text
    assert "memory not measured" in text
    assert "larger batches     not measured" in " ".join(text.splitlines())


def test_the_table_of_a_gpu_has_a_row_a_batch(measured):
    result = copy.deepcopy(measured[0])
    value = {
        "seconds": 0.1,
        "images_per_second": 40.0,
        "gflops_per_second": 300_000.0,
        "share_of_matrix_product": 0.42,
        "peak_mib": 9000.0,
    }
    result["cyclegan_step"]["batches"] = {"4": value}
    (row,) = [line for line in as_text(result).splitlines() if "batch 4" in line]
    for part in ("40 images/s", "42%", "9000 MiB"):
        assert part in row


def test_a_ratio_is_the_references_seconds_over_ours():
    of = {name: Candidate(p, None) for name, p in {"reference": "float32", "ours": "bfloat16"}.items()}
    seconds, peaks = {"reference": 6.0, "ours": 2.0}, {"reference": 100.0, "ours": None}
    told = compare(of, seconds, peaks, int(8e11), {"float32": 200.0, "bfloat16": 800.0})
    assert told["ours"] == {
        "seconds": 2.0,
        "ratio": 3.0,
        "gflops_per_second": 400.0,
        "share_of_ceiling": 0.5,
        "peak_mib": None,
    }
    assert told["reference"]["ratio"] == 1


def test_the_series_of_batches_ends_where_memory_does():
    def measure(batch):
        if batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"seconds": batch}

    assert until_out_of_memory(measure, (1, 2, 4, 8)) == {"1": {"seconds": 1}, "2": {"seconds": 2}}


def test_the_compared_networks_are_alike():
    method, reference = cyclegan_job(32, 4, 2, 1, CPU).build(), Reference(4, 2, discriminator_width=4)
    for ours, theirs in (
        (method.generators["ab"], reference.ab),
        (method.generators["ba"], reference.ba),
        (method.discriminators["a"], reference.judge_a),
        (method.discriminators["b"], reference.judge_b),
    ):
        assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    assert next(iter(candidates(32, 4, 2, CPU, False))) == "reference"


def test_compiled_networks_are_compared_on_request():
    plain, more = (list(candidates(32, 4, 1, CPU, choice)) for choice in (False, True))
    assert plain == ["reference", "float32", "bfloat16"]
    assert more == [*plain, "float32_compiled", "bfloat16_compiled"]


def test_both_ways_take_a_whole_step_and_then_another():
    for candidate in candidates(32, 4, 1, CPU, False).values():
        step = candidate.build()
        step()
        step()


@pytest.mark.parametrize("config", CONFIGS, ids=["cyclegan", "cartoongan"])
def test_a_configured_step_needs_no_images(config, monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "gan_nst.commands.bench_steps.peak_mib", lambda build, device: len(pickle.dumps(build))
    )
    configured = bench._configured(config, [*SMALL, "precision=bfloat16"], "cpu")
    told = bench.measure_configured(configured.job, configured.precision, configured.compiled, rounds=1)
    assert told["method"] == Path(config).stem
    assert (told["precision"], told["crop_size"], told["batch_size"], told["accumulation"]) == (
        "bfloat16",
        32,
        1,
        2,
    )
    assert told["images_per_second"] == pytest.approx(2 / told["seconds"])
    assert told["hours"] == pytest.approx(3000 * told["seconds"] / 3600)
    assert told["peak_mib"] > 0  # a process of its own could be handed it
    assert ("random features" in caplog.text) == (told["method"] == "cartoongan")
    assert list(tmp_path.iterdir()) == []


def test_without_planned_steps_no_hours_are_told(monkeypatch):
    configured = bench._configured(CONFIGS[0], [*SMALL, "training.epochs=3"], "cpu")
    monkeypatch.setattr("gan_nst.commands.bench_steps.peak_mib", lambda *_: None)
    told = bench.measure_configured(configured.job, "float32", False, rounds=1)
    assert told["hours"] is None
    assert told["peak_mib"] is None
    assert "steps" not in as_text({"configured_step": told})


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
        (["--json", "missing/bench.json"], ["missing/bench.json", "no such folder"]),
        (["--json", "experiments"], ["experiments: not a file"]),
        (["--device", "gpu"], ["device", "'gpu'"]),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(gan_nst, unmeasured, arguments, parts):
    one_line(gan_nst("bench", *arguments), *parts)


def test_no_rounds_are_refused(gan_nst):
    with pytest.raises(SystemExit) as exit:
        gan_nst("bench", "--rounds", "0")
    assert exit.value.code == 2


def test_the_command_prints_the_table_and_writes_the_file(gan_nst, monkeypatch, measured, tmp_path):
    given = []
    monkeypatch.setattr(bench, "_measure", lambda *arguments: given.append(arguments) or measured[0])
    code, out, _ = gan_nst(
        "bench", "--rounds", "4", "--device", "cpu", "training.batch_size=3", "--json", "b.json"
    )
    assert code == 0
    assert out.strip().endswith(as_text(measured[0]))
    assert json.loads((tmp_path / "b.json").read_text())["cyclegan_step"]["bfloat16"]["ratio"] > 0
    _, device, rounds, configured, compiled = given[0]
    assert (device, rounds, compiled) == (CPU, 4, False)
    assert configured.job.training.batch_size == 3
    gan_nst("bench")
    assert given[1][3] is None
    assert json.loads(gan_nst("bench", "--json", "-")[1]) == json.loads(json.dumps(measured[0]))


def test_out_of_memory_is_one_line(gan_nst, monkeypatch):
    def measure(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmany lines")

    monkeypatch.setattr(bench, "_measure", measure)
    one_line(gan_nst("bench"), "out of memory")


def runs(process):
    """Whether a process does anything; one that has ended may wait for whoever adopted it to notice."""
    try:
        return "State:\tZ" not in Path("/proc", process, "status").read_text()
    except OSError:
        return False


def test_ctrl_c_leaves_no_process_and_no_folder(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from helpers_bench import TOY; from gan_nst.cli import main; "
        "from gan_nst.commands import bench; bench.SIZES['cpu'] = TOY; sys.exit(main(['bench', '--device', 'cpu']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, os.path.join(PROJECT, "tests")],
        env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job, which the tests may be, passes on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.parent.exists():
        pytest.skip("reads Linux's /proc")
    began = time.monotonic()
    while not (started := children.read_text().split()) or not list(tmp_path.iterdir()):
        assert process.poll() is None
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert [line for line in err.splitlines() if not line.startswith("warning: ")] == ["gan-nst: interrupted"]
    deadline = time.monotonic() + 5
    while any(runs(child) for child in started):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []
