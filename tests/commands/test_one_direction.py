"""CartoonGAN from two folders of images to a translator, one direction only, and across the end of its warm-up."""

import json
import logging
import os
import shutil

import pytest
import torch
from helpers_runs import PROJECT, TINY, metrics, one_line, same_state
from torchvision.models import squeezenet1_1

import gan_nst
from gan_nst.core.options import TrainOptions
from gan_nst.data import cache
from gan_nst.images.files import find_images, read_image
from gan_nst.inference.exported import load_exported
from gan_nst.training import checkpoint

CONFIG = os.path.join(PROJECT, "experiments", "photo2cartoon", "cartoongan.yaml")
STEPS, WARM_UP = 8, 4
SMALL = [
    *(text for text in TINY if not text.startswith("method.discriminator.layers")),
    f"training.steps={STEPS}",
    f"method.warm_up={WARM_UP / STEPS}",
    "method.differentiable_augmentation=[colour,translation,cutout]",
    "evaluation.every=4",
]


def train(datasets, out, *more):
    return gan_nst.train(CONFIG, [f"data.root={datasets}", *SMALL, *more], TrainOptions(output=out))


def training_alone(datasets):
    """Without images for validation and evaluation, which would take longer than these trainings."""
    folders = [f"data.{d}={datasets / 'photo2cartoon' / f'train{d.upper()}'}" for d in ("a", "b")]
    return [*folders, "data.held_out=0"]


def train_alone(datasets, out, *more):
    return train(datasets, out, *training_alone(datasets), *more)


@pytest.fixture(scope="module")
def messages():
    """The messages logged while `run` was trained."""
    return []


@pytest.fixture(scope="module")
def run(datasets, tmp_path_factory, messages):
    """With the settings file's features (auto): the tests have no weights."""
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("gan_nst")
    logger.addHandler(handler)
    try:
        return train(datasets, tmp_path_factory.mktemp("runs") / "run")
    finally:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def alone(datasets, tmp_path_factory):
    return train_alone(datasets, tmp_path_factory.mktemp("alone") / "run")


def test_without_weights_the_small_job_uses_random_features_with_a_warning(run, messages):
    assert sum("using random features for the content loss" in message for message in messages) == 1
    saved = checkpoint.load_newest(run / "checkpoints")[1]["settings"]["method"]
    assert saved["features"] == {"network": "random", "layer": None, "weights": None, "sha256": None}


def test_one_direction_is_exported_and_evaluated(run):
    assert [path.name for path in run.glob("*.safetensors")] == ["generator.safetensors"]
    generator, description = load_exported(run / "generator.safetensors")
    assert generator.spec.name == "resnet"
    assert description.scores
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert "ab" in evaluation
    assert "ba" not in evaluation
    page = (run / "report.html").read_text()
    assert "cartoongan" in page
    assert "ba →" not in page
    assert (run / "samples" / "final.png").is_file()


def test_the_terms_logged_are_those_of_the_phase(run):
    for step, line in metrics(run).items():
        terms = {key for key in line if key.startswith(("generator/", "discriminator/"))}
        late = {
            "generator/adversarial",
            *(f"discriminator/discriminator_{x}" for x in ("real", "smoothed", "fake")),
        }
        assert terms == {"generator/content"} | (late if step > WARM_UP else set()), step
    shares = {key: value for key, value in metrics(run)[STEPS].items() if key.startswith("gradient_share/")}
    assert set(shares) == {"gradient_share/generator/content", "gradient_share/generator/adversarial"}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)


def test_no_checkpoint_holds_the_features(run):
    payload = checkpoint.load_newest(run / "checkpoints")[1]
    assert {key.split(".")[0] for key in payload["state"]} == {"generators", "discriminators"}


@pytest.mark.parametrize("stop", [WARM_UP - 1, WARM_UP, WARM_UP + 1])
def test_a_run_resumed_around_the_end_of_the_warm_up_is_the_same_run(datasets, alone, tmp_path, stop):
    stopped = train_alone(datasets, tmp_path / "run", f"training.stop_at={stop}")
    untouched = not checkpoint.load_newest(stopped / "checkpoints")[1]["optimizers"]["discriminator"]["state"]
    assert untouched == (stop <= WARM_UP)
    gan_nst.train(options=TrainOptions(resume=stopped))
    assert same_state(alone, stopped)


@pytest.mark.parametrize("change", ["method.warm_up=0.375", "method.differentiable_augmentation=[]"])
def test_another_rule_is_another_run(datasets, alone, tmp_path, change):
    """Negative control: the comparison detects a difference."""
    assert not same_state(alone, train_alone(datasets, tmp_path / "run", change))


def test_the_cache_and_its_absence_are_the_same_run(datasets, alone, tmp_path):
    assert same_state(alone, train_alone(datasets, tmp_path / "run", "data.cache=never"))


def test_the_smoothed_view_is_cached_with_the_images(datasets, tmp_path):
    shutil.copytree(datasets / "photo2cartoon", tmp_path / "photo2cartoon")
    train_alone(tmp_path, tmp_path / "run", "training.stop_at=1")
    with_view = set((tmp_path / ".cache").glob("*.bin"))
    shutil.rmtree(tmp_path / ".cache")
    shutil.rmtree(tmp_path / "run")
    cyclegan = os.path.join(PROJECT, "experiments", "default", "cyclegan.yaml")
    names = [f"data.root={tmp_path}", *training_alone(tmp_path), *TINY, "training.steps=1"]
    gan_nst.train(cyclegan, names, TrainOptions(output=tmp_path / "run"))
    assert len(with_view) == len(set((tmp_path / ".cache").glob("*.bin"))) + 1


def test_broken_cartoons_are_skipped_in_both_views(datasets, tmp_path, monkeypatch):
    shutil.copytree(datasets / "photo2cartoon", tmp_path / "photo2cartoon")
    files = find_images(tmp_path / "photo2cartoon" / "trainB")
    files[0].write_bytes(b"no image")
    opened = {}
    real = cache.open_images

    def recording(folder, settings, what, view="image"):
        images, rest = real(folder, settings, what, view)
        opened[what] = rest.files
        return images, rest

    monkeypatch.setattr("gan_nst.runs.prepare.open_images", recording)
    train_alone(tmp_path, tmp_path / "run", "training.stop_at=1", "data.skip_broken=true")
    assert opened["domain b, smoothed"] == opened["domain b, training"]
    assert len(opened["domain b, smoothed"]) == len(files) - 1


def test_curves_are_drawn_and_images_translated(gan_nst, run, datasets, tmp_path):
    code, out, err = gan_nst("curves", run, "--output", tmp_path / "curves.png")
    assert code == 0, err
    assert read_image(tmp_path / "curves.png").size
    photographs = datasets / "photo2cartoon" / "testA"
    code, out, err = gan_nst("translate", run, photographs, "--output", tmp_path / "cartoons")
    assert code == 0, err
    images = find_images(tmp_path / "cartoons")
    assert len(images) == len(find_images(photographs))
    assert {read_image(path).shape for path in images} == {(32, 32, 3)}
    one_line(gan_nst("translate", run, photographs, "--output", tmp_path / "x", "--direction", "ba"), "ba")


MISSING = "method.features={network: vgg19, layer: null, weights: null}"  # as in the recipe for a GPU


def test_missing_weights_stop_a_run_before_it_begins(gan_nst, datasets, tmp_path):
    result = gan_nst("train", CONFIG, f"data.root={datasets}", *SMALL, MISSING, "--output", tmp_path / "run")
    ways = ("method.features.weights=FILE", "method.features.network=squeezenet1_1")
    one_line(result, "VGG-19", torch.hub.get_dir(), *ways)
    assert not (tmp_path / "run").exists()


def test_the_suggested_light_network_needs_nothing_else(gan_nst, datasets, tmp_path, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.save(squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet1_1.pth")
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(tmp_path))
    light = [MISSING, "method.features.network=squeezenet1_1", *training_alone(datasets)]
    code, _, err = gan_nst("train", CONFIG, f"data.root={datasets}", *SMALL, *light, "--dry-run")
    assert code == 0, err
