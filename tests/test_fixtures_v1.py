"""Files of the first version still work: its export translates, its run resumes, bit-equal on the same machine.

Everything goes through the command line. tests/fixtures/v1/README.md documents how the files were made.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

FIXTURES = Path(__file__).resolve().parent / "fixtures" / "v1"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
PROJECT = FIXTURES.parents[2]


def gan_nst(folder, *arguments):
    """Runs `gan-nst ARGUMENTS` in a folder, on one thread."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(PROJECT),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "gan_nst", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def machine():
    """Identifies what determines how floats are rounded."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return " ".join([*models[:1], platform.machine(), capability, "torch", torch.__version__.split("+")[0]])


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def pixels(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the demo data set that the run was trained on, drawn again."""
    folder = tmp_path_factory.mktemp("v1")
    gan_nst(folder, "data", "demo", *EXPECTED["demo"])
    return folder


def test_an_export_translates_as_it_did(tmp_path):
    made, expected = tmp_path / "made.png", pixels(FIXTURES / "output.png")
    where = ["--output", made, "--device", "cpu", "--precision", "float32"]
    gan_nst(tmp_path, "translate", FIXTURES / "generator.safetensors", FIXTURES / "input.png", *where)
    found = pixels(made)
    assert (found.dtype, found.shape) == (np.uint16, expected.shape)
    away = np.abs(found.astype(int) - expected)
    assert away.max() <= (0 if machine() == EXPECTED["machine"] else 16)
    assert away.max() < expected.astype(int).std()  # the image has contrast


@pytest.mark.parametrize(("direction", "name"), [("ab", "generator"), ("ba", "generator_ba")])
def test_a_run_translates_like_its_exports(tmp_path, direction, name):
    """From its checkpoint, with the exports removed."""
    run = shutil.copytree(FIXTURES / "run", tmp_path / "run")
    files = [(run / f"{name}.safetensors").rename(tmp_path / "file.safetensors"), run]
    for other in run.glob("*.safetensors"):
        other.unlink()
    for number, source in enumerate(files):
        where = ["--output", tmp_path / f"{number}.png", "--device", "cpu", "--precision", "float32"]
        gan_nst(tmp_path, "translate", source, FIXTURES / "input.png", "--direction", direction, *where)
    assert np.array_equal(pixels(tmp_path / "0.png"), pixels(tmp_path / "1.png"))


def test_the_demo_world_is_drawn_as_it_was(world):
    files = sorted((world / EXPECTED["demo"][0]).rglob("train?/*.png"))
    found = {path.parent.name + "/" + path.name: digest(pixels(path)) for path in files}
    assert found.keys() == EXPECTED["drawn"].keys()
    if machine() == EXPECTED["machine"]:
        assert found == EXPECTED["drawn"]


def test_a_run_resumes_as_it_did(world, tmp_path):
    shutil.copytree(world, tmp_path / "world")
    run = shutil.copytree(FIXTURES / "run", tmp_path / "world" / "run")
    gan_nst(tmp_path / "world", "train", "--resume", "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 9))
    found = {name: load_file(run / f"{name}.safetensors") for name in EXPECTED["resumed"]}
    if machine() == EXPECTED["machine"]:
        assert EXPECTED["resumed"] == {
            name: {key: digest(tensor) for key, tensor in tensors.items()} for name, tensors in found.items()
        }
    expected = load_file(FIXTURES / "resumed_generator.safetensors")
    assert found["generator"].keys() == expected.keys()
    for key, tensor in found["generator"].items():
        np.testing.assert_allclose(tensor, expected[key], rtol=1e-6, atol=1e-6, err_msg=key)


def test_resuming_changed_the_generator():
    """Negative control: the comparison above detects the difference that the later steps make."""
    before, after = (
        load_file(FIXTURES / "run" / "generator.safetensors"),
        FIXTURES / "resumed_generator.safetensors",
    )
    assert not all(
        np.allclose(before[key], value, rtol=1e-6, atol=1e-6) for key, value in load_file(after).items()
    )


def test_the_curves_of_a_run_are_drawn(tmp_path):
    shutil.copytree(FIXTURES / "run", tmp_path / "run")
    gan_nst(tmp_path, "curves", "run")
    assert pixels(tmp_path / "run" / "curves.png").size
