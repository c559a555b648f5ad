"""LPIPS against ten lines in float64 and torchmetrics, with random weights; against its published heads if found."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics.functional.image.lpips as library
import torchvision

from gan_nst.core.errors import WeightsError
from gan_nst.evaluation.paired import Lpips

CPU = torch.device("cpu")
SLICES = (2, 5, 8, 10, 11, 12, 13)  # of SqueezeNet's layers, where each of the seven features ends
HEADS = library.__file__.replace("lpips.py", "lpips_models/squeeze.pth")


def noise(height=64, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height=64, width=48):
    rows, columns = np.indices((height, width))
    return np.stack([rows * 3, columns * 4, 255 - rows - columns], 2).astype(np.uint8)


@pytest.fixture(scope="module")
def weights():
    """SqueezeNet 1.1 of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return torchvision.models.squeezenet1_1(weights=None).state_dict()


@pytest.fixture
def file(weights, tmp_path):
    torch.save(weights, tmp_path / "squeezenet1_1.pth")
    return tmp_path / "squeezenet1_1.pth"


@torch.no_grad()
def lpips(x, y, weights):
    """Zhang et al. 2018, equation 1: of seven layers, unit vectors' squared differences, weighted by the heads."""
    network = torchvision.models.squeezenet1_1(weights=None).features.double()
    network.load_state_dict({k.removeprefix("features."): w for k, w in weights.items() if "features" in k})
    heads = list(torch.load(HEADS, weights_only=True, map_location="cpu").values())
    mean, deviation = (
        torch.tensor(v).double()[:, None, None] for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450])
    )
    a, b = (((torch.tensor(p).permute(2, 0, 1)[None] / 127.5 - 1) - mean) / deviation for p in (x, y))
    total, start = 0.0, 0
    for stop, head in zip(SLICES, heads, strict=True):
        a, b = network[start:stop](a), network[start:stop](b)
        difference = (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square()
        total, start = total + float((difference * head.double()).sum(1).mean()), stop
    return total


@pytest.mark.parametrize(
    ("x", "y"),
    [(noise(seed=1), noise(seed=2)), (smooth(), noise(seed=3)), (smooth(33, 200), smooth(33, 200) // 2)],
)
def test_the_distance_equals_ten_lines_in_float64(file, weights, x, y):
    found = Lpips.load(file, CPU)(x, y)
    assert found > 0
    assert found == pytest.approx(lpips(x, y, weights), rel=1e-4)


def test_the_distance_equals_torchmetrics(file, weights):
    with torch.random.fork_rng(devices=[]):
        other = library._LPIPS(net="squeeze", pnet_rand=True)
    layers = {f"slices.{i}.{n}" for i, s in enumerate(other.net.slices) for n, _ in s.named_parameters()}
    other.net.load_state_dict({n: weights["features." + n.split(".", 2)[2]] for n in layers})
    x, y = noise(seed=1), smooth()
    with torch.no_grad():
        expected = other(*(torch.tensor(p).permute(2, 0, 1)[None] / 127.5 - 1 for p in (x, y)))
    assert Lpips.load(file, CPU)(x, y) == pytest.approx(float(expected), rel=1e-6)


def test_the_distance_is_0_for_equal_images_and_grows(file):
    metric = Lpips.load(file, CPU)
    x = smooth()
    assert metric(x, x.copy()) == 0
    worse = [
        np.clip(x + strength * (noise() / 255 - 0.5), 0, 255).astype(np.uint8) for strength in (9, 60, 250)
    ]
    distances = [metric(x, y) for y in worse]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert metric(worse[1], x) == pytest.approx(distances[1], rel=1e-6)


def test_the_metric_names_its_file(file):
    metric = Lpips.load(file, CPU)
    assert metric.file == "squeezenet1_1.pth"
    assert metric.digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_weights_are_found_in_the_named_folder(file, monkeypatch):
    assert Lpips.find(CPU) is None
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(file.parent))
    assert Lpips.find(CPU).file == "squeezenet1_1.pth"


def test_loading_leaves_the_random_state_alone(file):
    before = torch.get_rng_state()
    Lpips.load(file, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_random_or_trained(file):
    first, second = Lpips.load(file, CPU), Lpips.load(file, CPU)
    assert first(noise(seed=1), smooth()) == second(noise(seed=1), smooth())
    assert not any(p.requires_grad for p in first.network.parameters())


WRONG = {
    "another SqueezeNet": lambda weights: torchvision.models.squeezenet1_0(weights=None).state_dict(),
    "a part": lambda weights: {k: w for k, w in weights.items() if not k.startswith("features.12.")},
    "a layer of another shape": lambda weights: weights | {"features.0.weight": torch.zeros(64, 3, 5, 5)},
    "no SqueezeNet": lambda weights: {"conv.weight": torch.zeros(3, 3)},
    "nothing": lambda weights: {},
    "not finite": lambda weights: weights | {"features.0.bias": torch.full((64,), float("nan"))},
}


@pytest.mark.parametrize("what", WRONG)
def test_another_file_is_refused_in_one_line(weights, tmp_path, what):
    path = tmp_path / "squeezenet1_1.pth"
    torch.save(WRONG[what](weights), path)
    with pytest.raises(WeightsError) as raised:
        Lpips.load(path, CPU)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_the_bundled_heads_are_the_published_ones(pretrained_weights):
    published = torch.load(
        pretrained_weights / "lpips_v0.1_squeeze.pth", weights_only=True, map_location="cpu"
    )
    metric = Lpips.load(pretrained_weights / "squeezenet1_1.pth", CPU)
    assert len(published) == len(SLICES)
    for found, head in zip(metric.network.heads, published.values(), strict=True):
        torch.testing.assert_close(found.data, head, rtol=1e-6, atol=0)


def test_the_published_network_equals_ten_lines(pretrained_weights):
    path = pretrained_weights / "squeezenet1_1.pth"
    weights = torch.load(path, weights_only=True, map_location="cpu")
    x, y = smooth(), np.clip(smooth() + 40 * (noise() / 255 - 0.5), 0, 255).astype(np.uint8)
    assert Lpips.load(path, CPU)(x, y) == pytest.approx(lpips(x, y, weights), rel=1e-4)
