"""`gan-nst evaluate` and `gan-nst curves`: what they evaluate, write, refuse and leave alone."""

import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from filelock import FileLock
from helpers_data import fill
from helpers_pages import Page, browse, inked, needs_browser, outside
from helpers_runs import CONFIG, TINY, one_line
from PIL import Image
from safetensors.torch import load_file

from gan_nst.commands import evaluate as command
from gan_nst.commands.train import train
from gan_nst.core.files import write_file
from gan_nst.core.options import EvaluateOptions, TrainOptions
from gan_nst.diagnosis import figure
from gan_nst.evaluation.comparison import ReferenceSet
from gan_nst.images.files import find_images, read_image
from gan_nst.runs import assessment
from gan_nst.training import checkpoint


@pytest.fixture(scope="module")
def trained(datasets, tmp_path_factory):
    """A finished run on the demo images."""
    overrides = [
        f"data.root={datasets}",
        *TINY,
        "training.steps=4",
        "evaluation.every=2",
        "evaluation.export=last",
    ]
    return train(CONFIG, overrides, TrainOptions(output=tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the same run, to write into."""
    return shutil.copytree(trained, tmp_path / "run")


def contents(run):
    """Every file of a run except the lock that concurrent evaluations use."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".evaluation.lock"]
    return {path.relative_to(run): path.read_bytes() for path in files}


def test_a_run_evaluated_again_gets_the_same_numbers(gan_nst, run, tmp_path):
    before = json.loads((run / "evaluation.json").read_text())
    for name in ("evaluation.json", "report.html"):
        (run / name).unlink()
    code, out, _ = gan_nst("evaluate", run, "--json", tmp_path / "result.json")
    assert code == 0
    after = json.loads((run / "evaluation.json").read_text())
    for name in ("ab", "ba"):
        assert after[name] == before[name]
        assert f"{name}: 4 images against 4 real ones (4 pairs)" in out
    assert json.loads((tmp_path / "result.json").read_text())["ab"] == after["ab"]
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_report_is_complete_and_loads_nothing(trained):
    html = (trained / "report.html").read_text()
    page = Page(html)
    assert outside(page) == []
    assert "Translations ab, ba, evaluated" in " ".join(page.text.split())
    assert {"Scores", "Protocol", "Curves", "Findings", "Samples"} <= set(page.headings)
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert f"{evaluation['ab']['last']['error']:.4f}" in page.text
    assert len(page.all("img")) >= 9  # the curves, and four sheets for each direction


@needs_browser
def test_a_browser_shows_the_report_without_any_request(trained, tmp_path):
    hosts, console, pixels = browse((trained / "report.html").read_text(), tmp_path)
    assert (hosts, console) == ([], [])
    assert inked(pixels) > 0.05


def test_an_evaluation_describes_itself(trained):
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert evaluation["split"] == "test"
    protocol = evaluation["protocol"]
    assert (protocol["name"], protocol["features"], protocol["dimension"]) == ("clean", "random", 160)
    assert len(protocol["sha256"]) == 64
    assert {"torch", "torch-fidelity", "pillow"} <= protocol["libraries"].keys()
    ab = evaluation["ab"]
    assert (ab["generated"], ab["real"], ab["pairs"], ab["exported"]) == (4, 4, 4, "last")
    assert {"best", "last", "untouched", "colour_map", "noise_floor", "warnings"} <= ab.keys()
    assert ab["last"]["step"] == 4
    assert ab["best"]["step"] in (2, 4)
    for key, (low, high) in ab["last"]["intervals"].items():
        assert low <= ab["last"][key] <= high
    assert ab["untouched"]["change"] == 0
    assert evaluation["generator"]["parameters"] > 0
    assert evaluation["training"]["steps"] == 4
    assert 0 < evaluation["training"]["validation_share"] < 1


def test_the_scores_are_those_of_the_images_in_translated(trained, datasets):
    evaluation = json.loads((trained / "evaluation.json").read_text())
    images = find_images(trained / "translated" / "ab")
    truths = find_images(datasets / "photo2cartoon" / "testB")
    assert [p.stem for p in images] == [p.stem for p in truths]
    # Both at the training's scale, 36 pixels, to which the run resized the truths.
    errors = [
        np.abs(
            read_image(x) / 255
            - np.asarray(Image.open(y).convert("RGB").resize((36, 36), Image.Resampling.BICUBIC)) / 255
        ).mean()
        for x, y in zip(images, truths, strict=True)
    ]
    assert evaluation["ab"]["last"]["error"] == pytest.approx(np.mean(errors), abs=1e-9)


def test_an_exported_generator_is_evaluated_like_its_run(gan_nst, run, datasets, tmp_path):
    file = run / "generator_ba.safetensors"
    before = contents(run)
    where = ["--data", datasets / "photo2cartoon", "--json", tmp_path / "r.json"]
    code, _, err = gan_nst("evaluate", file, *where, "--precision", "float32")  # as the run was evaluated
    assert code == 0, err
    result = json.loads((tmp_path / "r.json").read_text())
    of_run = json.loads((run / "evaluation.json").read_text())
    assert result["ba"]["given"]["error"] == of_run["ba"]["last"]["error"]
    assert "ab" not in result
    assert contents(run) == before


def test_other_data_leaves_the_runs_own_evaluation_alone(gan_nst, run, datasets):
    before = contents(run)
    code, out, _ = gan_nst("evaluate", run, "--data", datasets / "photo2cartoon", "--direction", "ab")
    assert code == 0
    assert "ab: 4 images" in out
    assert "ba: 4 images" not in out
    assert contents(run) == before


def test_a_checkpoint_is_evaluated_alone(gan_nst, run, tmp_path):
    before = contents(run)
    code, _, err = gan_nst("evaluate", run / "checkpoints" / "best.pt", "--json", tmp_path / "r.json")
    assert code == 0, err
    of_run = json.loads((run / "evaluation.json").read_text())
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["ab"]["given"] == of_run["ab"]["best"]
    assert contents(run) == before


def test_folders_are_compared_without_a_model(gan_nst, tmp_path):
    """With mixed sizes, gray and alpha: the distance of a set to itself is 0."""
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for number, (mode, shape) in enumerate(
        [
            ("RGB", (40, 50, 3)),
            ("L", (33, 20)),
            ("RGBA", (64, 64, 4)),
            ("RGB", (7, 90, 3)),
            ("LA", (30, 30, 2)),
        ]
    ):
        values = rng.integers(0, 256, shape, np.uint8)
        Image.fromarray(values, mode if mode != "RGB" else None).save(tmp_path / "a" / f"{number}.png")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    code, _, err = gan_nst(
        "evaluate", "--images", tmp_path / "a", "--reference", tmp_path / "b", "--json", tmp_path / "r.json"
    )
    assert code == 0, err
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["frechet_random"] == pytest.approx(0, abs=1e-6)
    assert (result["precision_random"], result["recall_random"]) == (1, 1)
    assert (result["generated"], result["real"]) == (5, 5)
    assert result["noise_floor"]["images"] == 2
    assert "5 images are few" in err
    assert not any(key in result for key in ("fid", "kid"))
    printed = gan_nst("evaluate", "--images", tmp_path / "a", "--reference", tmp_path / "b", "--json", "-")[1]
    assert json.loads(printed) == result


def test_a_part_of_inception_never_carries_fids_name(gan_nst, pretrained_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(pretrained_weights))
    fill(tmp_path / "a", 5, (60, 60))
    fill(tmp_path / "b", 5, (60, 60), first=10)
    folders = ["--images", tmp_path / "a", "--reference", tmp_path / "b", "--json", tmp_path / "r.json"]
    code, out, err = gan_nst("evaluate", *folders, "--features", "inception-64")
    assert code == 0, err
    result = json.loads((tmp_path / "r.json").read_text())
    assert {"fid_64", "kid_64", "kid_64_std", "precision_64", "recall_64"} <= result.keys()
    row = next(line for line in out.splitlines() if line.startswith("FID-64"))
    assert float(row.split()[1]) == pytest.approx(result["fid_64"], rel=1e-3)
    assert row.split()[2].startswith("[")
    assert result["protocol"]["dimension"] == 64
    assert result["protocol"]["file"] == "inception_fid_to_mixed7a.pth"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ("give either a run", "--images")),
        (["--images", "a"], ("--reference",)),
        (["no_such_run"], ("no_such_run", "no such run")),
        (["--images", "none", "--reference", "a"], ("none", "no such folder")),
        (["--images", "empty", "--reference", "a"], ("empty", "no images", "looked for")),
        (["--images", "one", "--reference", "a"], ("one", "1 image", "at least 2")),
        (["--images", "nan", "--reference", "a"], ("bad.tiff", "not finite")),
        (["--images", "a", "--reference", "broken"], ("broken.png", "not a readable image")),
        (["--images", "a", "--reference", "a", "--data", "a"], ("--data", "--images")),
        (["--images", "a", "--reference", "a", "--features", "vgg"], ("vgg", "inception", "random")),
        (
            ["--images", "a", "--reference", "a", "--features", "inception"],
            ("weights-inception", "looked", ""),
        ),
        (
            ["--images", "a", "--reference", "a", "--weights", "x.pth", "--features", "inception"],
            ("x.pth", "no such"),
        ),
        (["--images", "a", "--reference", "a", "--device", "tpu"], ("tpu",)),
        (["--images", "broken", "--reference", "a", "--json", "a"], ("a: not a regular file",)),
    ],
)
def test_mistakes_are_one_line(gan_nst, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "nan", "broken"):
        fill(tmp_path / name, 3)
    fill(tmp_path / "one", 1)
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(tmp_path / "nan" / "bad.tiff")
    (tmp_path / "broken" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    parts = [part if part != "looked" else " in " for part in parts]
    one_line(gan_nst("evaluate", "--json", tmp_path / "r.json", *arguments), *parts)
    assert not (tmp_path / "r.json").exists()


def test_a_generator_of_another_direction_is_refused(gan_nst, run, datasets):
    result = gan_nst(
        "evaluate", run / "generator.safetensors", "--data", datasets / "photo2cartoon", "--direction", "ba"
    )
    one_line(result, "generator.safetensors", "translates ab, not ba")
    alone = shutil.copy(run / "generator.safetensors", run.parent / "alone.safetensors")
    one_line(gan_nst("evaluate", alone), "alone.safetensors", "--data")
    one_line(gan_nst("evaluate", run, "--direction", "abc"), "translates ab, ba, not abc")


def test_data_without_a_test_split_is_refused(gan_nst, run, tmp_path):
    fill(tmp_path / "data" / "testA", 3)
    one_line(gan_nst("evaluate", run, "--data", tmp_path / "data"), "no test images of domain b", "testB")
    fill(tmp_path / "data" / "testB", 1)
    one_line(gan_nst("evaluate", run, "--data", tmp_path / "data"), "1 test images", "at least 2")


def interrupt(monkeypatch, owner, name, call):
    """Makes the n-th call raise KeyboardInterrupt."""
    real = getattr(owner, name)
    calls = []

    def interrupted(*arguments, **options):
        calls.append(None)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (ReferenceSet, "compare", 3),
        (assessment, "render", 1),
        (figure, "draw", 1),
        (assessment, "write_file", 1),
    ],
)
def test_an_interrupted_evaluation_keeps_the_old_results(gan_nst, run, monkeypatch, owner, name, call):
    before = contents(run)
    interrupt(monkeypatch, owner, name, call)
    code, _, err = gan_nst("evaluate", run)
    assert code == 130
    assert "Traceback" not in err
    assert contents(run) == before


def test_an_interrupted_write_leaves_no_file(tmp_path, monkeypatch):
    interrupt(monkeypatch, os, "replace", 1)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "report.html", "a page")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_its_best_checkpoint_is_evaluated_by_the_last(gan_nst, run):
    (run / "checkpoints" / "best.pt").write_bytes(b"damaged")
    code, _, err = gan_nst("evaluate", run)
    assert code == 0
    assert "best.pt" in err
    assert "best" not in json.loads((run / "evaluation.json").read_text())["ab"]


def test_evaluating_does_not_touch_the_exported_generators(gan_nst, run):
    before = load_file(run / "generator.safetensors")
    assert gan_nst("evaluate", run)[0] == 0
    after = load_file(run / "generator.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_features_of_the_reference_are_cached(run, datasets, monkeypatch):
    folder = datasets / "photo2cartoon"
    compared = EvaluateOptions(images=folder / "testA", reference=folder / "testB")
    command.evaluate(options=compared)
    counted = []
    real = command.ReferenceSet.compare
    monkeypatch.setattr(
        command.ReferenceSet, "compare", lambda self, *a: (counted.append(len(self.real)), real(self, *a))[1]
    )
    monkeypatch.setattr("gan_nst.evaluation.features.prepare", lambda *a: pytest.fail("computed again"))
    with pytest.raises(
        pytest.fail.Exception
    ):  # features of the images are cached; those of the reference were not
        command.evaluate(options=compared)
    assert counted == [4]


def test_a_run_is_evaluated_by_one_process_at_a_time(gan_nst, run):
    with FileLock(run / ".evaluation.lock"):
        one_line(gan_nst("evaluate", run), "another process")


def test_images_with_equal_names_but_other_proportions_are_not_pairs(gan_nst, run, datasets, tmp_path):
    shutil.copytree(datasets / "photo2cartoon", tmp_path / "data")
    wide = sorted((tmp_path / "data" / "testB").iterdir())[1]
    Image.fromarray(np.zeros((32, 50, 3), np.uint8)).save(wide)
    code, out, err = gan_nst("evaluate", run, "--data", tmp_path / "data", "--json", tmp_path / "r.json")
    assert code == 0
    assert "as unpaired" in err
    result = json.loads((tmp_path / "r.json").read_text())["ab"]
    assert result["pairs"] == 0
    assert "error" not in result["last"]
    assert "frechet_random" in result["last"]


def test_damaged_similarity_weights_stop_only_what_needs_them(gan_nst, run, datasets, tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(tmp_path))
    (tmp_path / "squeezenet1_1.pth").write_bytes(b"nothing")
    one_line(gan_nst("evaluate", run), "squeezenet1_1.pth")
    folder = datasets / "photo2cartoon"
    assert gan_nst("evaluate", "--images", folder / "testA", "--reference", folder / "testB")[0] == 0


def test_damaged_similarity_weights_do_not_prevent_the_export_of_a_training(
    datasets, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(tmp_path))
    (tmp_path / "squeezenet1_1.pth").write_bytes(b"nothing")
    run = train(
        CONFIG, [f"data.root={datasets}", *TINY, "training.steps=2"], TrainOptions(output=tmp_path / "run")
    )
    assert (run / "generator.safetensors").exists()
    assert not (run / "evaluation.json").exists()
    assert "squeezenet1_1.pth" in caplog.text


def test_curves_are_drawn_and_diagnosed(gan_nst, run, tmp_path):
    code, out, _ = gan_nst("curves", run)
    assert code == 0
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "curves.png" in out
    code, _, _ = gan_nst("curves", run, run, "--output", tmp_path / "two.svg")
    assert code == 0
    assert b"<svg" in (tmp_path / "two.svg").read_bytes()


def test_curves_refuse_a_folder_that_is_not_a_run(gan_nst, run, tmp_path):
    one_line(gan_nst("curves", tmp_path / "none"), "none")
    one_line(gan_nst("curves", tmp_path), str(tmp_path))
    one_line(gan_nst("curves", run, "--output", tmp_path / "x.doc"), "x.doc", ".png")
    (run / "metrics.jsonl").unlink()
    one_line(gan_nst("curves", run), "metrics")


def test_a_link_in_place_of_unfinished_results_is_not_followed(gan_nst, run, tmp_path):
    (tmp_path / "outside").mkdir()
    (run / ".evaluation.part").symlink_to(tmp_path / "outside", target_is_directory=True)
    assert gan_nst("evaluate", run)[0] == 0
    assert not list((tmp_path / "outside").iterdir())
    assert not (run / ".evaluation.part").is_symlink()


def alter(run, change):
    """Changes the newest checkpoint of a run and removes everything else to translate with."""
    for path in run.glob("*.safetensors"):
        path.unlink()
    path, *older = checkpoint.newest_first(run / "checkpoints")
    for other in older:
        other.unlink()
    payload = torch.load(path, weights_only=True)
    change(payload)
    torch.save(payload, path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda payload: payload["settings"].pop("data"),
        lambda payload: payload["settings"].update(method="x"),
        lambda payload: payload["settings"]["data"].update(load_size="x"),
        lambda payload: payload.update(translations={}),
        lambda payload: payload["translations"]["ab"]["network"].update(width=10**9),
        lambda payload: payload["translations"]["ab"]["network"].update(width=512, blocks=50),
        lambda payload: payload["translations"]["ab"].update(generator="xy"),
        lambda payload: payload["ema"].update(
            {"ab.segments.tail.convolution.bias": torch.full((3,), math.nan)}
        ),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_refused_by_name(gan_nst, run, tmp_path, change):
    alter(run, change)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "x.png")
    one_line(gan_nst("translate", run, tmp_path / "in", "--output", tmp_path / "out"), run)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", ["x", None, {"name": ["cyclegan"]}])
def test_a_run_with_invalid_settings_does_not_resume(gan_nst, run, setting):
    path = alter(run, lambda payload: payload["settings"].update(method=setting))
    one_line(gan_nst("train", "--resume", run), path, "method")
    one_line(gan_nst("evaluate", run), run, "method")
