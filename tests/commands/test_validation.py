"""Validation in the loop: what it scores, which checkpoint it selects as the best, and that it has no side effects."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_runs import CONFIG, ENVIRONMENT, TINY, metrics, same_state, same_values
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gan_nst
from gan_nst.core.errors import SettingsError, WeightsError
from gan_nst.core.options import TrainOptions
from gan_nst.data.domains import locate
from gan_nst.inference.exported import load_exported
from gan_nst.runs.settings import load_settings, resolve_evaluation
from gan_nst.training import checkpoint

STEPS = ["training.steps=7", "evaluation.every=2"]


def train(tiny, out, *more):
    return gan_nst.train(CONFIG, [*tiny, *STEPS, *more], TrainOptions(output=out))


def validated(run, key="ab/error"):
    """The chosen score by step."""
    return {
        step: line[f"validation/{key}"] for step, line in metrics(run).items() if f"validation/{key}" in line
    }


@pytest.fixture(scope="module")
def run(datasets, tmp_path_factory):
    return train([f"data.root={datasets}", *TINY], tmp_path_factory.mktemp("runs") / "run")


def test_scores_are_logged_every_so_many_steps_and_at_the_planned_end(run):
    assert list(validated(run)) == [2, 4, 6, 7]
    line = metrics(run)[4]
    for name in ("ab", "ba"):
        assert line[f"validation/{name}/error/low"] < line[f"validation/{name}/error"]
        assert line[f"validation/{name}/error"] < line[f"validation/{name}/error/high"]
        assert 0 < line[f"measure/{name}/change"] < 1
        assert -1 <= line[f"measure/{name}/correlation"] <= 1
        assert line[f"measure/{name}/diversity"] > 0
        assert line[f"measure/{name}/checkerboard"] > 0
    assert line["speed/validation_seconds"] > 0
    assert not any(key.startswith("validation") for key in metrics(run)[3])


def test_the_same_scalars_are_in_tensorboard(run):
    events = EventAccumulator(str(run)).Reload()
    for key in ("validation/ab/error", "measure/ba/diversity", "gradient_share/generator/cycle_a"):
        logged = {step: line[key] for step, line in metrics(run).items() if key in line}
        assert {e.step: e.value for e in events.Scalars(key)} == pytest.approx(logged, rel=1e-6)


def test_the_terms_share_the_gradient(run):
    shares = {key: value for key, value in metrics(run)[7].items() if key.startswith("gradient_share/")}
    assert {key.split("/")[1] for key in shares} == {"generator"}
    assert len(shares) == 6
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)


def test_best_is_the_checkpoint_of_the_best_score(run):
    scores = validated(run)
    best = checkpoint.load(run / "checkpoints" / "best.pt")
    assert scores[best["step"]] == min(scores.values())
    expected = {"step": best["step"], "score": "ab/error", "value": min(scores.values()), "by": "4, 4 images"}
    assert best["notes"]["best"] == expected
    saved = checkpoint.load_newest(run / "checkpoints")[1]
    assert saved["step"] == 7
    assert saved["notes"] == best["notes"]


def test_the_settings_are_saved_without_auto(run):
    evaluation = checkpoint.load_newest(run / "checkpoints")[1]["settings"]["evaluation"]
    assert (evaluation["features"], evaluation["score"], evaluation["export"]) == ("none", "ab/error", "best")


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_requested_step_is_exported(run, tiny, tmp_path, which):
    other = train(tiny, tmp_path / "run", f"evaluation.export={which}")
    checkpoints = other / "checkpoints"
    path = checkpoints / "best.pt" if which == "best" else checkpoint.newest_first(checkpoints)[0]
    expected = {
        k.removeprefix("ab."): v for k, v in checkpoint.load(path)["ema"].items() if k.startswith("ab.")
    }
    generator, description = load_exported(other / "generator.safetensors")
    assert all(torch.equal(weight, expected[name]) for name, weight in generator.state_dict().items())
    evaluation = json.loads((other / "evaluation.json").read_text())
    assert evaluation["ab"]["exported"] == which
    assert description.scores["test_error"] == evaluation["ab"][which]["error"]


def test_validation_does_not_affect_training(run, tiny, tmp_path):
    """Neither weights nor replay buffers nor random states: a run is bit-equal with and without it."""
    other = gan_nst.train(
        CONFIG,
        [*tiny, "training.steps=7", "evaluation.every=1000", "evaluation.export=last"],
        options=TrainOptions(output=tmp_path / "run"),
    )
    a, b = (checkpoint.load_newest(folder / "checkpoints")[1] for folder in (run, other))
    assert all(same_values(a[part], b[part]) for part in ("state", "ema", "optimizers", "random"))


@pytest.mark.parametrize("features", ["none", "random"])
def test_a_run_resumed_validates_and_chooses_as_if_never_stopped(tiny, tmp_path, features):
    straight = train(tiny, tmp_path / "straight", f"evaluation.features={features}")
    stopped = train(tiny, tmp_path / "stopped", f"evaluation.features={features}", "training.stop_at=3")
    assert list(validated(stopped)) == [2]
    gan_nst.train(options=TrainOptions(resume=stopped))
    assert same_state(straight, stopped)
    for key in metrics(straight)[7]:
        if key.startswith(("validation/", "measure/", "gradient_share/")):
            assert validated_key(straight, key) == validated_key(stopped, key)
    best = [checkpoint.load(folder / "checkpoints" / "best.pt") for folder in (straight, stopped)]
    assert same_values(best[0]["ema"], best[1]["ema"])
    assert best[0]["notes"] == best[1]["notes"]
    first, second = (json.loads((folder / "evaluation.json").read_text()) for folder in (straight, stopped))
    assert first["ab"] == second["ab"]


def validated_key(run, key):
    return {step: line[key] for step, line in metrics(run).items() if key in line}


def test_test_images_do_not_affect_validation(tiny, datasets, tmp_path, run):
    """Black test images do not change the validation scores."""
    shutil.copytree(datasets / "photo2cartoon", tmp_path / "photo2cartoon")
    for folder in ("testA", "testB"):
        for path in (tmp_path / "photo2cartoon" / folder).iterdir():
            Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    other = train(tiny, tmp_path / "run", f"data.root={tmp_path}")
    assert validated(other) == validated(run)
    assert (
        json.loads((other / "evaluation.json").read_text())["ab"]
        != json.loads((run / "evaluation.json").read_text())["ab"]
    )


def test_without_a_validation_split_training_images_are_held_out(tiny, datasets, tmp_path):
    shutil.copytree(datasets / "photo2cartoon", tmp_path / "photo2cartoon")
    for folder in ("valA", "valB"):
        shutil.rmtree(tmp_path / "photo2cartoon" / folder)
    other = train(tiny, tmp_path / "run", f"data.root={tmp_path}", "data.held_out=0.4")
    settings, _, _ = load_settings(Path(CONFIG), [*tiny, f"data.root={tmp_path}", "data.held_out=0.4"])
    data_set = locate(settings.data)
    for domain in "ab":
        files = set(data_set.validation[domain].files)
        assert len(files) >= 2
        assert {file.parent.name for file in files} == {f"train{domain.upper()}"}
        assert files.isdisjoint(data_set.training[domain].files)
    # Held-out images are not pairs, even if their numbers agree: only random features remain, and are labelled so.
    assert not validated_key(other, "validation/ab/error")
    assert validated_key(other, "validation/ab/frechet_random")
    saved = checkpoint.load_newest(other / "checkpoints")[1]["settings"]["evaluation"]
    assert (saved["features"], saved["score"], saved["export"]) == ("random", "ab/frechet_random", "last")


def test_without_validation_images_there_is_no_best_and_training_continues(tiny, datasets, tmp_path):
    folder = datasets / "photo2cartoon"
    run = train(
        tiny,
        tmp_path / "run",
        f"data.a={folder / 'trainA'}",
        f"data.b={folder / 'trainB'}",
        "data.held_out=0",
    )
    assert not any(key.startswith("validation/") for line in metrics(run).values() for key in line)
    assert not (run / "checkpoints" / "best.pt").exists()
    assert (run / "generator.safetensors").exists()


def test_what_auto_means(monkeypatch, tmp_path):
    def resolved(*overrides, paired, device="cpu"):
        settings = load_settings(Path(CONFIG), ["device=cpu", *overrides])[0]
        evaluation = resolve_evaluation(settings, torch.device(device), paired, ["ab", "ba"]).evaluation
        return evaluation.features, evaluation.score, evaluation.export

    assert resolved(paired=True) == ("none", "ab/error", "best")
    assert resolved(paired=False) == ("random", "ab/frechet_random", "last")
    assert resolved("evaluation.features=none", paired=False) == ("none", "none", "last")
    assert resolved("evaluation.score=ba/kernel_random", "evaluation.features=random", paired=True) == (
        "random",
        "ba/kernel_random",
        "last",
    )
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(tmp_path))
    (tmp_path / "inception_fid_to_mixed7a.pth").touch()
    assert resolved(paired=True) == ("none", "ab/error", "best")  # a part of the network does not give FID
    assert resolved("evaluation.features=inception-768", paired=True) == (
        "inception-768",
        "ab/fid_768",
        "best",
    )
    (tmp_path / "weights-inception-2015-12-05-6726825d.pth").touch()
    assert resolved(paired=True, device="cuda") == ("inception", "ab/fid", "best")
    assert resolved(paired=True) == ("none", "ab/error", "best")  # it would take longer than the training
    assert resolved("evaluation.features=inception", paired=True) == ("inception", "ab/fid", "best")
    with pytest.raises(
        SettingsError, match=r"^evaluation.score: expected auto or one of ab/fid, ab/kid, ba/fid"
    ):
        resolved("evaluation.score=ab/error", paired=False, device="cuda")


def test_missing_weights_stop_a_run_before_it_begins(tiny, tmp_path):
    with pytest.raises(WeightsError, match=r"inception-2015-12-05.*GAN_NST_WEIGHTS"):
        train(tiny, tmp_path / "run", "evaluation.features=inception")
    assert not (tmp_path / "run").exists()


def test_two_processes_validate_on_one_and_agree_on_the_best(tiny, tmp_path):
    """Only the first process validates; all of them write the checkpoint that it selects as the best."""
    program = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "gan_nst",
        "train",
        CONFIG,
    ]
    done = subprocess.run(
        [sys.executable, *program, *tiny, *STEPS, "--output", str(tmp_path / "run")],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scores = validated(tmp_path / "run")
    assert list(scores) == [2, 4, 6, 7]
    best = checkpoint.load(tmp_path / "run" / "checkpoints" / "best.pt")
    assert scores[best["step"]] == min(scores.values())
    assert len(best["random"]) == 2


def test_a_finished_run_can_export_the_other_step(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    for which in ("last", "best"):
        gan_nst.train(overrides=[f"evaluation.export={which}"], options=TrainOptions(resume=other))
        assert json.loads((other / "evaluation.json").read_text())["ab"]["exported"] == which


def test_scores_of_different_protocols_are_not_compared(tiny, tmp_path):
    """The best value under one protocol says nothing about another protocol."""
    other = train(tiny, tmp_path / "run", "evaluation.features=random", "training.stop_at=2")
    first = checkpoint.load(other / "checkpoints" / "best.pt")["notes"]["best"]
    gan_nst.train(
        overrides=["evaluation.protocol=legacy", "training.stop_at=4"], options=TrainOptions(resume=other)
    )
    second = checkpoint.load(other / "checkpoints" / "best.pt")["notes"]["best"]
    assert (first["step"], second["step"]) == (2, 4)
    assert first["by"] != second["by"]


def test_a_run_resumes_where_its_weights_are_missing(tiny, tmp_path, monkeypatch, caplog):
    other = train(tiny, tmp_path / "run", "evaluation.features=random", "training.stop_at=2")
    path = checkpoint.newest_first(other / "checkpoints")[0]
    payload = checkpoint.load(path)
    payload["settings"]["evaluation"] |= {"features": "inception", "score": "ab/fid"}
    torch.save(payload, path)
    gan_nst.train(options=TrainOptions(resume=other))
    assert "inception-2015" in caplog.text
    assert "resuming with what is available" in caplog.text
    assert list(validated(other)) == [2, 4, 6, 7]
    with pytest.raises(SettingsError, match=r"evaluation.score"):  # a new run is refused
        train(tiny, tmp_path / "new", "evaluation.score=ab/fid")


def test_a_run_resumes_where_its_validation_images_are_missing(tiny, datasets, tmp_path, caplog):
    other = train(tiny, tmp_path / "run", "training.stop_at=2")
    moved = [f"data.{d}={datasets / 'photo2cartoon' / f'train{d.upper()}'}" for d in "ab"]
    gan_nst.train(overrides=moved, options=TrainOptions(resume=other))
    assert "resuming with what is available" in caplog.text
    assert checkpoint.load_newest(other / "checkpoints")[1]["step"] == 7
