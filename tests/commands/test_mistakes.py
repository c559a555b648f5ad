"""Every user mistake leads to one line and exit code 2 without a traceback, and loses nothing."""

import errno
import os
import shutil

import numpy as np
import pytest
import torch
from helpers_runs import CONFIG, finish, one_line, start, wait_for_step
from PIL import Image

from gan_nst.runs.folder import training_in
from gan_nst.training import checkpoint


@pytest.fixture
def folders(tmp_path):
    """Two folders of six 40-pixel images."""
    rng = np.random.default_rng(0)
    for domain in ("a", "b"):
        (tmp_path / domain).mkdir()
        for number in range(6):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(
                tmp_path / domain / f"{number}.png"
            )
    return tmp_path / "a", tmp_path / "b"


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def own(folders, tiny):
    return [f"data.a={folders[0]}", f"data.b={folders[1]}", *tiny]


@pytest.fixture
def finished(gan_nst, tiny, tmp_path):
    """A run of four steps."""
    folder = tmp_path / "finished"
    assert gan_nst("train", CONFIG, *tiny, "training.steps=4", "--output", folder)[0] == 0
    return folder


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("trainin.steps=5", ["trainin", "unknown setting", "did you mean training"]),
        ("training.stepz=5", ["training.stepz", "did you mean training.steps?"]),
        ("training.crop_size=5", ["training.crop_size", "did you mean data.crop_size?"]),
        ("training.steps=many", ["training.steps", "a whole number", "'many'"]),
        ("training.steps=0", ["training.steps", "greater than or equal to 1", "0"]),
        ("training.steps=true", ["training.steps", "a whole number", "true"]),
        ("training.steps=5.5", ["training.steps", "5.5"]),
        ("method.learning_rate=fast", ["method.learning_rate", "a number", "'fast'"]),
        ("method.adversarial=wgan", ["method.adversarial", "lsgan", "'wgan'"]),
        (
            "method.generator.upsampling=transpose",
            ["method.generator.upsampling", "did you mean transposed?"],
        ),
        ("method.name=cyclegam", ["method.name", "did you mean cyclegan?"]),
        ("precision=float16", ["precision", "float32", "'float16'"]),
        ("device=gpu", ["device", "'gpu'"]),
        ("device=cuda:99", ["device", "cuda:99"]),
        ("data.crop_size=64", ["data.crop_size", "64", "load_size", "36"]),
        ("data.crop_size=31", ["data.crop_size", "multiple of 2"]),
        ("data.crop_size=8", ["images of at least", "8"]),
        ("method.generator.downsamplings=5", ["data.crop_size", "32"]),
        ("seed=99999999999999999999", ["seed"]),
        ("data.augmentations=[{name: Blurr}]", ["data.augmentations[0]", "'Blurr'"]),
        ("data.domain=zebras", ["zebras", "trainA", "data.a="]),
        ("seed", ["'seed'", "section.key=value"]),
        ("training.steps=[", ["training.steps", "YAML"]),
        ("training.init_from=nowhere", ["nowhere", "no such run"]),
    ],
)
def test_settings(gan_nst, tiny, override, parts):
    one_line(gan_nst("train", CONFIG, *tiny, override, "training.stop_at=1"), *parts)


def test_settings_files(gan_nst, tmp_path):
    one_line(gan_nst("train", "nothing.yaml"), "nothing.yaml", "cannot be read (No such file or directory)")
    broken = tmp_path / "broken.yaml"
    broken.write_text("method: {name: [")
    one_line(gan_nst("train", broken), "broken.yaml", "not valid YAML")
    broken.write_text("method: {name: cyclegan}\non_cpu: {training: {stepz: 3}}\n")
    one_line(gan_nst("train", broken), "broken.yaml", "training.stepz", "did you mean")
    broken.write_text("method: {name: cyclegan}\ntraining: {steps: 3, epochs: 4}\n")
    one_line(gan_nst("train", broken), "training.steps", "training.epochs")
    one_line(gan_nst("train"), "nothing to train")
    one_line(gan_nst("train", "--domain", "x", "--method", "cyclegam"), "did you mean cyclegan?")
    one_line(gan_nst("train", CONFIG, "--domain", "x"), "--domain")


def test_folders(gan_nst, tiny, folders, tmp_path):
    a, b = folders
    one_line(
        gan_nst("train", CONFIG, *tiny, f"data.a={tmp_path / 'none'}", f"data.b={b}"),
        "none",
        "no such folder",
        "data.a",
    )
    (tmp_path / "empty").mkdir()
    one_line(
        gan_nst("train", CONFIG, *tiny, f"data.a={a}", f"data.b={tmp_path / 'empty'}"),
        "empty: no images",
        ".png",
    )
    one_line(gan_nst("train", CONFIG, *tiny, f"data.a={a}"), "data: a and b go together")


def test_an_image_smaller_than_the_crop(gan_nst, tiny, folders):
    small = folders[0] / "small.png"
    Image.new("RGB", (20, 50)).save(small)
    arguments = [*own(folders, tiny), "data.upscale=false", "training.stop_at=1"]
    one_line(gan_nst("train", CONFIG, *arguments), small, "20 pixels", "data.crop_size=32")
    assert gan_nst("train", CONFIG, *arguments, "data.upscale=true")[0] == 0


@pytest.mark.parametrize("cache", ["auto", "never"])
def test_unreadable_and_truncated_images(gan_nst, tiny, folders, cache):
    intact = (folders[0] / "0.png").read_bytes()
    (folders[0] / "cut.png").write_bytes(intact[: len(intact) // 2])
    (folders[0] / "text.png").write_text("no image")
    arguments = [*own(folders, tiny), f"data.cache={cache}", "training.stop_at=1"]
    one_line(gan_nst("train", CONFIG, *arguments), "2 of", "cut.png", "text.png", "data.skip_broken=true")
    code, _, err = gan_nst("train", CONFIG, *arguments, "data.skip_broken=true")
    assert code == 0
    assert "skipped" in err
    assert "cut.png" in err


def test_resume(gan_nst, finished, tmp_path):
    one_line(gan_nst("train", "--resume", tmp_path / "nothing"), "nothing", "no such run")
    one_line(gan_nst("train", "--resume", tmp_path), "not a run")
    one_line(gan_nst("train", "--resume", finished, "--domain", "x"), "--resume")
    one_line(
        gan_nst("train", "--resume", finished, "method.cycle_weight=3"),
        "method.cycle_weight (2.0 in the run, 3.0 given)",
    )
    one_line(gan_nst("train", "--resume", finished, "seed=1", "data.flip=0"), "seed", "data.flip")
    one_line(gan_nst("train", "--resume", finished, "training.steps=3"), "training.steps")
    one_line(gan_nst("train", CONFIG, "--output", finished), "not empty", "--resume")
    code, out, err = gan_nst(
        "train", "--resume", finished, "training.steps=6", "data.workers=0", "training.log_every=2"
    )
    assert code == 0
    assert "schedules now follow 6 steps" in err
    assert "step 6/6" in out


def test_resume_of_another_method_or_format(gan_nst, finished):
    path = checkpoint.newest_first(finished / "checkpoints")[0]
    good = path.read_bytes()
    payload = torch.load(path, weights_only=True)
    for old in checkpoint.newest_first(finished / "checkpoints")[1:]:
        old.unlink()
    torch.save({**payload, "format": 7}, path)
    one_line(gan_nst("train", "--resume", finished), "format 7")
    payload["settings"]["method"]["name"] = "stargan"
    torch.save(payload, path)
    one_line(gan_nst("train", "--resume", finished), "stargan")
    path.write_bytes(good[:1000])
    one_line(gan_nst("train", "--resume", finished), path.name, "damaged")
    shutil.rmtree(finished / "checkpoints")
    (finished / "checkpoints").mkdir()
    one_line(gan_nst("train", "--resume", finished), "no checkpoints")


def test_init_from_another_architecture(gan_nst, finished, tiny, tmp_path):
    arguments = [*tiny, "training.stop_at=1", f"training.init_from={finished}"]
    one_line(
        gan_nst("train", CONFIG, *arguments, "method.generator.width=6"), "does not fit method.generator"
    )
    assert gan_nst("train", CONFIG, *arguments, "--output", tmp_path / "from")[0] == 0


def test_translate(gan_nst, finished, tmp_path):
    image = tmp_path / "in" / "x.png"
    image.parent.mkdir()
    Image.new("RGB", (40, 33), "red").save(image)
    one_line(gan_nst("translate", tmp_path / "no", image, "--output", tmp_path / "out"), "no such run")
    one_line(
        gan_nst("translate", finished, tmp_path / "no", "--output", tmp_path / "out"),
        "no such file or folder",
    )
    one_line(gan_nst("translate", finished, image, "--output", image), "would overwrite")
    one_line(gan_nst("translate", finished, image, "--output", image.parent), "would overwrite")
    one_line(gan_nst("translate", finished, image.parent, "--output", image), "is a file")
    one_line(
        gan_nst("translate", finished, image, "--output", tmp_path / "out", "--direction", "xy"),
        "xy",
        "ab, ba",
    )
    exported = finished / "generator.safetensors"
    one_line(
        gan_nst("translate", exported, image, "--output", tmp_path / "out", "--direction", "ba"),
        "translates ab, not ba",
    )
    fake = tmp_path / "fake.safetensors"
    fake.write_bytes(b"no tensors")
    one_line(gan_nst("translate", fake, image, "--output", tmp_path / "out"), "fake.safetensors")
    (image.parent / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    code, out, err = gan_nst("translate", finished, image.parent, "--output", tmp_path / "out")
    assert code == 1
    assert "cut.jpg" in err
    assert "Traceback" not in err
    assert pixels(tmp_path / "out" / "x.png").shape == (33, 40, 3)


def test_unfinished_run_is_translated_with_its_newest_checkpoint(gan_nst, finished, tmp_path):
    image = tmp_path / "x.png"
    Image.new("RGB", (40, 33), "red").save(image)

    def translated(name, direction):
        out = tmp_path / name
        assert gan_nst("translate", finished, image, "--output", out, "--direction", direction)[0] == 0
        return pixels(out / "x.png")

    exported = [translated(f"{direction}1", direction) for direction in ("ab", "ba")]
    for file in finished.glob("*.safetensors"):
        file.unlink()
    averaged = [translated(f"{direction}2", direction) for direction in ("ab", "ba")]
    assert all(np.array_equal(x, y) for x, y in zip(exported, averaged, strict=True))


def test_a_refused_start_leaves_no_run(gan_nst, tiny, in_project):
    one_line(gan_nst("train", CONFIG, *tiny, "data.augmentations=[{name: Nope}]"), "Nope")
    one_line(gan_nst("train", CONFIG, *tiny, "--dry-run", "training.init_from=nowhere"), "nowhere")
    assert not (in_project / "runs").exists()


def test_results_of_an_earlier_session_are_not_used_for_a_later_step(gan_nst, tiny, tmp_path):
    """Stopped, resumed, and stopped again before its end: the newest checkpoint translates, not the old export."""
    run, image = tmp_path / "run", tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 33, 3), np.uint8)).save(image)
    few = ["training.steps=100000", "training.stop_at=2", "method.generator.start_from=nothing"]
    assert gan_nst("train", CONFIG, *tiny, *few, "--output", run)[0] == 0
    gan_nst("translate", run, image, "--output", tmp_path / "two")
    process = start("train", "--resume", run)
    wait_for_step(process, run, 5)  # the checkpoint of step 4 is written
    process.kill()
    finish(process)
    assert not (run / "generator.safetensors").exists()
    gan_nst("translate", run, image, "--output", tmp_path / "later")
    assert not np.array_equal(pixels(tmp_path / "two" / "x.png"), pixels(tmp_path / "later" / "x.png"))


def test_a_broken_test_image_is_reported_at_the_start(gan_nst, tiny, folders, tmp_path):
    a, b = folders
    for name in ("ta", "tb"):
        shutil.copytree(a, tmp_path / name)
    (tmp_path / "ta" / "3.png").write_text("no image")
    tests = [f"data.test_a={tmp_path / 'ta'}", f"data.test_b={tmp_path / 'tb'}", "training.stop_at=1"]
    one_line(gan_nst("train", CONFIG, *own(folders, tiny), *tests), "test", "3.png")
    code, out, _ = gan_nst("train", CONFIG, *own(folders, tiny), *tests, "data.skip_broken=true")
    assert code == 0
    assert "5 images against 5 real ones (5 pairs)" in out


def test_the_input_may_be_inside_the_output(gan_nst, finished, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 33), "red").save(tmp_path / "photos" / "x.jpg")
    assert gan_nst("translate", finished, tmp_path / "photos", "--output", tmp_path)[0] == 0
    assert (tmp_path / "x.png").exists()


def test_training_continues_without_metrics_that_cannot_be_written(gan_nst, finished):
    (finished / "metrics.jsonl").unlink()
    (finished / "metrics.jsonl").mkdir()
    code, _, err = gan_nst("train", "--resume", finished, "training.steps=8")
    assert code == 0
    assert err.count("metrics.jsonl: could not be written (Is a directory)") == 1
    assert checkpoint.load_newest(finished / "checkpoints")[1]["step"] == 8


def test_a_full_disk_at_a_checkpoint_is_one_line_and_keeps_the_one_before(gan_nst, finished, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gan_nst.training.checkpoint.torch.save", full)
    result = gan_nst("train", "--resume", finished, "training.steps=8")
    one_line(
        result,
        "step-0000006.pt",
        "No space left",
        "step-0000004.pt is intact",
        "free space on that disk (old runs or",
    )
    monkeypatch.undo()
    assert checkpoint.load_newest(finished / "checkpoints")[1]["step"] == 4
    assert not list(finished.rglob("*.part"))


def test_of_two_trainings_in_one_run_the_second_is_refused(gan_nst, finished):
    with training_in(finished):
        one_line(gan_nst("train", "--resume", finished, "training.steps=8"), finished, "another process")
    assert gan_nst("train", "--resume", finished, "training.steps=8")[0] == 0


def test_a_start_removes_what_a_killed_training_left_and_nothing_else(tmp_path):
    ours = [
        f"{name}.0123abcd.part"
        for name in (".settings.yaml", "checkpoints/.step-0000001.pt", "samples/.step-000001.png")
    ]
    theirs = [
        "notes/video.mp4.part",
        "notes/.video.mp4.0123abcd.part",
        ".video.mp4.part",
        "video.part",
        ".x.part/y",
    ]
    for name in (*ours, *theirs):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with training_in(tmp_path):
        assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(
            (*theirs, ".lock")
        )


def test_a_start_removes_what_a_killed_process_left(gan_nst, tiny, in_project):
    """From the run that is resumed, and from an earlier run when a new one starts."""
    assert gan_nst("train", CONFIG, *tiny, "training.steps=2")[0] == 0
    run = (in_project / "runs" / "photo2cartoon" / "cyclegan" / "latest").resolve()
    left = [
        run / "checkpoints" / ".step-0000009.pt.0123abcd.part",
        run / "samples" / ".step-000009.png.0123abcd.part",
    ]
    evaluation = run / ".evaluation.part" / "samples" / ".test.png.0123abcd.part"
    for again in (["--resume", run], [CONFIG, *tiny, "training.steps=2"]):
        evaluation.parent.mkdir(parents=True)
        for path in (*left, evaluation):
            path.write_text("half")
        (run / ".lock").touch()
        assert gan_nst("train", *again)[0] == 0
        assert not any(path.exists() for path in (*left, run / ".evaluation.part", run / ".lock"))


def test_demo_images_drawn_for_a_smaller_job(gan_nst, tiny):
    where = [*tiny, "data.upscale=false", "data.load_size=64", "data.crop_size=48"]
    one_line(gan_nst("train", CONFIG, *where), "drawn at 32 pixels", "remove the folder")


def test_demo(gan_nst, tmp_path):
    one_line(gan_nst("data", "demo"), "--domain")
    one_line(gan_nst("data", "demo", "--domain", "zebras"), "zebras", "photo2cartoon")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    one_line(gan_nst("data", "demo", tmp_path / "full"), "not empty")
    assert (tmp_path / "full" / "mine.txt").exists()


def test_demo_sizes_are_whole_numbers(gan_nst, tmp_path):
    result = gan_nst("data", "demo", tmp_path / "x", "--size", "0")
    one_line(result, "--size: expected a whole number of at least 1, got '0'")
