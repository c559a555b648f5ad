"""Feature networks: the same features however images come, and the FID Inception against its library's own."""

import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save
from torch_fidelity import FeatureExtractorInceptionV3

from gan_nst.core.errors import SettingsError, WeightsError
from gan_nst.core.options import EvaluateOptions, FeatureName
from gan_nst.evaluation import features as module
from gan_nst.evaluation.distances import frechet_distance
from gan_nst.evaluation.features import (
    DESCRIPTIONS,
    Features,
    choose,
    extract,
    extract_cached,
    load_inception,
    prepare,
    score_key,
)
from gan_nst.images.files import find_images, read_image

CPU = torch.device("cpu")
WIDTHS = (64, 192, 768, 2048)


class Reference(FeatureExtractorInceptionV3):
    """The library's own network, of random weights that neither let activations fade nor grow."""

    def __init__(self):
        empty = io.BytesIO()
        torch.save({}, empty)
        empty.seek(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(
                "reference", [str(width) for width in WIDTHS], feature_extractor_weights_path=empty
            )
            for layer in self.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                elif isinstance(layer, torch.nn.BatchNorm2d):
                    for values in (layer.weight, layer.running_var):
                        torch.nn.init.uniform_(values, 0.8, 1.25)
                    for values in (layer.bias, layer.running_mean):
                        torch.nn.init.normal_(values, std=0.1)

    def load_state_dict(self, *_):
        pass


@pytest.fixture(scope="module")
def reference():
    return Reference()


@pytest.fixture(scope="module")
def files(reference, tmp_path_factory):
    """Its weights, as the complete file and as the part up to Mixed_6e."""
    folder = tmp_path_factory.mktemp("inception")
    weights = reference.state_dict()
    torch.save(weights, folder / "weights-inception-2015-12-05-6726825d.pth")
    part = {name: w for name, w in weights.items() if not name.startswith(("Mixed_7", "fc"))}
    torch.save(part, folder / "inception_fid_to_mixed7a.pth")
    yield {"complete": next(folder.glob("weights*")), "part": next(folder.glob("*7a.pth"))}
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Images of several sizes, gray and transparent ones among them, as files are read."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number, (width, height, mode) in enumerate(
        [
            (40, 30, "RGB"),
            (299, 299, "RGB"),
            (64, 64, "L"),
            (31, 90, "RGBA"),
            (20, 20, "P"),
            (7, 5, "RGB"),
            (50, 33, "LA"),
        ]
    ):
        small = rng.integers(0, 256, (4, 4, len(Image.new(mode, (1, 1)).getbands())), np.uint8).squeeze()
        Image.fromarray(small).resize((width, height)).convert(mode).save(folder / f"{number}.png")
    return [read_image(path) for path in find_images(folder)]


@pytest.fixture(scope="module")
def networks(files):
    """Random features, and those of Inception's first layers."""
    return {"random": choose("random", CPU), "inception": choose("inception-64", CPU, files["part"])}


@pytest.mark.parametrize("protocol", DESCRIPTIONS)
@pytest.mark.parametrize("which", ["random", "inception"])
def test_batches_and_order_do_not_matter(networks, photographs, monkeypatch, which, protocol):
    features = networks[which]
    alone = torch.cat([extract(features, [image], protocol) for image in photographs])
    assert alone.shape == (len(photographs), features.dimension)
    assert alone.dtype == torch.float64
    scale = float(alone.abs().mean())
    for batch in (1, 3, 16):
        monkeypatch.setattr(module, "_BATCH", batch)
        found = extract(features, iter(photographs), protocol)
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6 * scale)
    reverse = extract(features, photographs[::-1], protocol)
    torch.testing.assert_close(reverse.flip(0), alone, rtol=1e-5, atol=1e-6 * scale)
    apart = torch.cdist(alone, alone) + torch.eye(len(alone)) * 1e9
    assert apart.min() > 1e-3 * scale, "different images have different features"


def test_no_images_have_no_features(networks):
    assert extract(networks["random"], [], "clean").shape == (0, networks["random"].dimension)


def test_images_go_through_one_batch_at_a_time(networks, photographs, monkeypatch):
    """So that a folder of any size fits into memory."""
    monkeypatch.setattr(module, "_BATCH", 3)
    seen, given = [], []

    def images():
        for image in photographs:
            given.append(image)
            yield image

    network = torch.nn.Module()
    network.weight = torch.nn.Parameter(torch.zeros(1))
    network.forward = lambda x: seen.append((len(x), len(given))) or x.flatten(1)
    extract(Features("random", network, 3 * 4 * 4, 4, None, ""), images(), "clean")
    assert seen == [(3, 3), (3, 6), (1, 7)]


def test_random_features_are_the_same_in_every_process():
    """The digest is of the weights as they were first computed: torch 2.15, x86."""
    torch.manual_seed(5)
    first = choose("random", CPU)
    assert first.digest == "7adc7efe67bdb5c4694dd62b6a08980e75180e7c45d0ebb76683b904ec9b8d98"
    torch.manual_seed(6)
    assert choose("random", CPU).digest == first.digest
    assert first.file is None
    assert first.dimension == 160


def test_random_features_are_the_same_on_every_processor():
    code = (
        "import torch; from gan_nst.evaluation.features import choose; "
        "print(choose('random', torch.device('cpu')).digest)"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == choose("random", CPU).digest


def test_random_features_notice_colours_and_edges(networks):
    gray = np.full((64, 64, 3), 128, np.uint8)
    red = gray + np.array([60, 0, 0], np.uint8)
    checks = gray + 60 * (np.indices((64, 64)).sum(0) // 4 % 2)[..., None].astype(np.uint8)
    found = extract(networks["random"], [gray, gray, red, checks], "clean")
    assert torch.equal(found[0], found[1])
    assert (found[0] - found[2]).norm() > 0.1
    assert (found[0] - found[3]).norm() > 0.1
    assert (found[2] - found[3]).norm() > 0.1


def test_the_random_state_of_a_run_is_left_alone(files):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    choose("random", CPU)
    choose("inception-64", CPU, files["part"])
    load_inception(files["complete"], 2048)
    assert torch.equal(torch.get_rng_state(), before)


KEYS = {
    "inception": ("fid", "kid", "precision", "recall"),
    "inception-768": ("fid_768", "kid_768", "precision_768", "recall_768"),
    "inception-192": ("fid_192", "kid_192", "precision_192", "recall_192"),
    "inception-64": ("fid_64", "kid_64", "precision_64", "recall_64"),
    "random": ("frechet_random", "kernel_random", "precision_random", "recall_random"),
}


@pytest.mark.parametrize("name", get_args(FeatureName))
def test_only_the_standard_features_have_the_standard_names(name):
    features = Features(name, torch.nn.Identity(), 1, 1, None, "")
    metrics = ("frechet", "kernel", "precision", "recall")
    assert tuple(features.key(metric) for metric in metrics) == KEYS[name]
    assert tuple(score_key(name, metric) for metric in metrics) == KEYS[name]


def random_image(size=299, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def test_features_equal_torch_fidelity(reference, files):
    """At 299x299, where no resizing differs, and its input is that of the clean protocol."""
    image = random_image()
    with torch.inference_mode():
        found = reference(torch.from_numpy(image).permute(2, 0, 1)[None])
        expected = dict(zip(WIDTHS, found, strict=True))
    for width, file in [(64, "part"), (192, "complete"), (768, "part"), (2048, "complete")]:
        name = "inception" if width == 2048 else f"inception-{width}"
        features = choose(name, CPU, files[file])
        found = extract(features, [image], "clean")
        assert found.shape == (1, features.dimension) == (1, width)
        scale = float(expected[width].abs().mean())
        assert scale > 1e-2, "the activations vanished, so the comparison would prove nothing"
        torch.testing.assert_close(found, expected[width].double(), rtol=1e-4, atol=1e-5 * scale)


def test_legacy_features_equal_the_layers_called_one_by_one(reference, files):
    image = random_image(120)
    layers = (
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 MaxPool_1 Conv2d_3b_1x1 Conv2d_4a_3x3 MaxPool_2 Mixed_5b Mixed_5c "
        "Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e"
    )
    with torch.inference_mode():
        x = prepare(image, 299, "legacy")[None]
        for layer in layers.split():
            x = reference.get_submodule(layer)(x)
        expected = x.flatten(2).mean(2).double()
    found = extract(choose("inception-768", CPU, files["part"]), [image], "legacy")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.mean()))


def test_a_part_is_refused_for_the_standard_features(files):
    for load in (
        lambda: choose("inception", CPU, files["part"]),
        lambda: load_inception(files["part"], 2048),
    ):
        with pytest.raises(WeightsError, match=r"2048 features.*lacks Mixed_7a") as raised:
            load()
        assert str(raised.value).startswith(f"{files['part']}: ")
        assert "\n" not in str(raised.value)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def broken(weights, what, folder):
    name = "Conv2d_2a_3x3.conv.weight"
    if what == "another network":
        return torchvision.models.squeezenet1_1(weights=None).state_dict()
    if what == "torchvision's Inception":  # of the same names, but trained differently, and on other classes
        return {n: w for n, w in weights.items() if "fc" not in n} | {"fc.weight": torch.zeros(1000, 2048)}
    if what == "a layer missing":
        return {n: w for n, w in weights.items() if n != name}
    if what == "a deviation missing":
        return {n: w for n, w in weights.items() if n != "Conv2d_1a_3x3.bn.running_var"}
    if what == "another shape":
        return weights | {name: torch.zeros(32, 32, 5, 5)}
    if what == "not finite":
        return weights | {name: torch.full_like(weights[name], float("nan"))}
    if what == "code":
        return weights | {"bomb": Bomb(str(folder / "trace"))}
    assert what == "nothing"
    return {}


@pytest.mark.parametrize(
    "what",
    [
        "another network",
        "torchvision's Inception",
        "a layer missing",
        "a deviation missing",
        "another shape",
        "not finite",
        "code",
        "nothing",
    ],
)
def test_a_wrong_file_is_refused_in_one_line(reference, tmp_path, what):
    low = {n: w for n, w in reference.state_dict().items() if n.startswith(("Conv2d_1", "Conv2d_2"))}
    path = tmp_path / "weights.pth"
    torch.save(low, path)
    load_inception(path, 64)  # so the change is what is refused
    torch.save(broken(low, what, tmp_path), path)
    with pytest.raises(WeightsError) as raised:
        choose("inception-64", CPU, path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "trace").exists()


def test_the_features_name_their_file(files):
    features = choose("inception-192", CPU, files["part"])
    assert (features.name, features.dimension, features.size) == ("inception-192", 192, 299)
    assert features.file == "inception_fid_to_mixed7a.pth"
    assert features.digest == hashlib.sha256(files["part"].read_bytes()).hexdigest()
    assert not features.network.training
    assert not any(p.requires_grad for p in features.network.parameters())


@pytest.fixture
def unbuilt(monkeypatch):
    """Inception is chosen, but not built, which takes a second."""
    monkeypatch.setattr(module, "load_inception", lambda path, dimension: torch.nn.Identity())


@pytest.mark.usefixtures("unbuilt")
def test_auto_takes_the_best_available(files, monkeypatch, tmp_path):
    assert choose("auto", CPU).name == "random"
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(tmp_path))
    assert choose("auto", CPU).name == "random"
    (tmp_path / files["part"].name).symlink_to(files["part"])
    assert choose("auto", CPU).name == "inception-768"
    (tmp_path / files["complete"].name).symlink_to(files["complete"])
    assert choose("auto", CPU).name == "inception"
    assert choose("auto", CPU, files["part"]).name == "inception-768", "a given file takes precedence"
    assert choose("auto", CPU, files["complete"]).name == "inception"


def test_an_explicit_request_that_cannot_be_met_says_what_to_do():
    with pytest.raises(WeightsError) as raised:
        choose("inception", CPU)
    for said in (
        "weights-inception-2015-12-05-6726825d.pth",
        "GAN_NST_WEIGHTS",
        "--download",
        "inception-768",
    ):
        assert said in str(raised.value)
    with pytest.raises(WeightsError, match=r"inception_fid_to_mixed7a\.pth") as raised:
        choose("inception-64", CPU)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["inception-100", "clip", "", "none"])
def test_unknown_features_are_refused(name):
    with pytest.raises(SettingsError, match=f"got {name!r}"):
        EvaluateOptions(features=name)


@pytest.mark.usefixtures("unbuilt")
def test_missing_weights_are_downloaded_on_request(files, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("gan_nst.core.pretrained.fetch", lambda wanted: asked.append(wanted))
    choose("inception-64", CPU, files["part"], download=True)
    choose("random", CPU, download=True)
    assert not asked, "where a file is given, and for random features, nothing is"
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(files["complete"].parent))
    assert choose("auto", CPU, download=True).name == "inception"
    choose("inception-64", CPU, download=True)
    assert asked == [module.INCEPTION, module.INCEPTION_PART]


def test_legacy_fid_of_photographs_against_paintings(pretrained_weights, test_data):
    """1.2325 was computed with other code, from the same weights: pytorch-fid's resizing and layers."""
    features = choose("inception-768", CPU, pretrained_weights / "inception_fid_to_mixed7a.pth")
    sets = [
        extract(features, map(read_image, find_images(test_data / "monet2photo" / split)), "legacy")
        for split in ("testB", "testA")
    ]
    assert [len(rows) for rows in sets] == [100, 60]
    assert frechet_distance(*sets) == pytest.approx(1.2325, abs=5e-4)


@pytest.mark.parametrize(
    "remembered",
    [
        {"features": torch.zeros(3, 7)},
        {"features": torch.zeros(2, 160)},
        {"features": torch.full((3, 160), torch.nan)},
        {"features": torch.zeros(3, 160, dtype=torch.int64)},
        {"other": torch.zeros(3, 160)},
        b"",
    ],
)
def test_cached_features_are_used_only_if_they_fit_the_images(tmp_path, remembered):
    images = [np.random.default_rng(n).integers(0, 256, (9, 8, 3), np.uint8) for n in range(3)]
    random = choose("random", CPU)
    found = extract_cached(random, images, "clean", tmp_path)
    assert found.shape == (3, 160)
    (path,) = tmp_path.iterdir()
    path.write_bytes(remembered if isinstance(remembered, bytes) else save(remembered))
    assert torch.equal(extract_cached(random, images, "clean", tmp_path), found)
    assert torch.equal(load_file(path)["features"].double(), found)


def test_a_pickle_in_the_cache_is_not_loaded(tmp_path):
    class Touch:
        def __reduce__(self):
            return Path.touch, (canary,)

    canary, cache = tmp_path / "canary", tmp_path / "cache"
    content = pickle.dumps(Touch())
    pickle.loads(content)
    canary.unlink()  # it exists: unpickling creates it
    images = [np.zeros((9, 8, 3), np.uint8)] * 2
    random = choose("random", CPU)
    found = extract_cached(random, images, "clean", cache)
    (path,) = cache.iterdir()
    path.write_bytes(content)
    assert torch.equal(extract_cached(random, images, "clean", cache), found)
    assert not canary.exists()


def test_a_pipe_in_the_cache_does_not_block(tmp_path):
    images = [np.zeros((9, 8, 3), np.uint8)] * 2
    random = choose("random", CPU)
    found = extract_cached(random, images, "clean", tmp_path)
    (path,) = tmp_path.iterdir()
    path.unlink()
    os.mkfifo(path)
    assert torch.equal(extract_cached(random, images, "clean", tmp_path), found)
