"""The README's path with real processes: make's own commands on a 32-pixel demo."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers_runs import PROJECT
from PIL import Image

SMALL = (
    "data.load_size=32 data.crop_size=32 training.steps=6 training.sample_every=3 training.checkpoint_every=3 "
    "training.log_every=2 method.generator.width=4 method.generator.blocks=1"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with this environment standing in for the installed one."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("Makefile", "setup.cfg", "setup.py"):
        shutil.copy(os.path.join(PROJECT, name), folder)
    os.symlink(os.path.join(PROJECT, "experiments"), folder / "experiments")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, module in (("python", None), ("gan-nst", "gan_nst"), ("tensorboard", "tensorboard.main")):
        command = f'exec "{sys.executable}" ' + (f'-m {module} "$@"' if module else '"$@"')
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)
    (folder / ".venv" / ".installed").touch()
    return folder


def make(project, *arguments, timeout=120):
    environment = {**os.environ, "PYTHONPATH": PROJECT, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["make", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def trained(project):
    """The output of `make train`, and its run."""
    images = project / "datasets" / "photo2cartoon"
    images.mkdir(parents=True)
    (images / ".DS_Store").touch()  # Finder leaves one in any folder
    code, out, err = make(project, "train", "DOMAIN=photo2cartoon", f"ARGS={SMALL}")
    assert code == 0, err
    latest = project / "runs" / "photo2cartoon" / "cyclegan" / "latest"
    assert latest.is_symlink()
    return out, latest.resolve()


def test_make_train_draws_the_demo_and_completes_a_run(project, trained):
    out, run = trained
    assert "drawing the demo world" in out
    assert "on_cpu" in out
    data = project / "datasets" / "photo2cartoon"
    assert len(list((data / "trainA").iterdir())) == 400
    assert sorted(p.name for p in (data / "testA").iterdir()) == sorted(
        p.name for p in (data / "testB").iterdir()
    )
    files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    expected = {
        "settings.yaml",
        "metrics.jsonl",
        "generator.safetensors",
        "generator_ba.safetensors",
        "evaluation.json",
        "checkpoints/step-0000003.pt",
        "checkpoints/step-0000006.pt",
        "samples/step-000003.png",
        "samples/final.png",
        "report.html",
        "checkpoints/best.pt",
    }
    assert expected <= files
    assert any(name.startswith("events.out.tfevents") for name in files)
    for target in ("translate", "curves"):
        assert f"make {target} DOMAIN=photo2cartoon METHOD=cyclegan" in out
    assert "final.png" in out


def test_the_evaluation_includes_its_baselines(trained):
    _, run = trained
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["ab"]["pairs"] == 60
    for kind in ("best", "last", "untouched", "colour_map"):
        assert 0 < evaluation["ab"][kind]["error"] < 1
        assert -1 <= evaluation["ab"][kind]["ssim"] < 1
    assert {"parameters", "multiply_adds", "milliseconds"} <= evaluation["generator"].keys()


def test_the_second_make_train_uses_what_is_there(project, trained):
    code, out, _ = make(project, "train", f"ARGS={SMALL} training.stop_at=2")
    assert code == 0
    assert "drawing" not in out
    assert (project / "runs/photo2cartoon/cyclegan/latest").resolve() != trained[1]


def test_make_evaluate_and_make_curves_look_at_the_latest_run(project, trained):
    code, out, err = make(project, "evaluate", "DOMAIN=photo2cartoon", "ARGS=--json scores.json")
    assert code == 0, err
    assert "ab: 60 images against 60 real ones (60 pairs)" in out
    assert "ab" in json.loads((project / "scores.json").read_text())
    assert (project / "runs/photo2cartoon/cyclegan/latest/report.html").exists()
    code, out, err = make(project, "curves", "DOMAIN=photo2cartoon")
    assert code == 0, err
    assert "curves.png" in out


def test_make_translate_keeps_names_and_sizes(project, trained):
    source = project / "photos"
    (source / "deep").mkdir(parents=True)
    sizes = {"one.jpg": (50, 37), "deep/two.png": (33, 64)}
    for name, size in sizes.items():
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).save(
            source / name
        )
    code, out, err = make(project, "translate", "DOMAIN=photo2cartoon", "INPUT=photos", "OUTPUT=cartoons")
    assert code == 0, err
    for name, size in {"one.png": sizes["one.jpg"], "deep/two.png": sizes["deep/two.png"]}.items():
        with Image.open(project / "cartoons" / name) as image:
            assert image.size == size
    assert make(project, "translate", "INPUT=photos", "OUTPUT=back", "DIRECTION=ba")[0] == 0


def test_make_translate_says_what_is_missing(project, trained):
    code, _, err = make(project, "translate", "DOMAIN=photo2cartoon")
    assert code == 2
    assert "INPUT=" in err


def test_make_data_leaves_images_alone_and_refuses_other_domains(project, trained):
    code, out, _ = make(project, "data", "DOMAIN=photo2cartoon")
    assert code == 0
    assert "already has images" in out
    code, _, err = make(project, "data", "DOMAIN=zebras")
    assert code == 2
    assert "zebras" in err


def test_a_domain_without_a_settings_file_trains_with_the_default(project, trained):
    shutil.copytree(project / "datasets" / "photo2cartoon", project / "datasets" / "mine")
    code, _, err = make(project, "train", "DOMAIN=mine", f"ARGS={SMALL} training.stop_at=1")
    assert code == 0, err
    assert (project / "runs" / "mine" / "cyclegan" / "latest" / "generator.safetensors").exists()


def test_tensorboard_reads_the_run(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained[1])).Reload()
    tags = events.Tags()
    assert {"generator/cycle_a", "discriminator/discriminator_b", "learning_rate/generator"} <= set(
        tags["scalars"]
    )
    assert tags["images"] == ["samples"]
    assert tags["tensors"] == ["settings/text_summary"]
