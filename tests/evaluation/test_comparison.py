"""The metrics, the scores that a number of images allows, and the cache of a reference set."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gan_nst.core.errors import DataError
from gan_nst.core.files import temporary_path
from gan_nst.evaluation import comparison, distances
from gan_nst.evaluation.comparison import Metrics, ReferenceSet, compare_features
from gan_nst.evaluation.features import DESCRIPTIONS, Features, choose, extract, extract_cached
from gan_nst.evaluation.paired import Lpips, absolute_error, structural_similarity

CPU = torch.device("cpu")


class Colours(nn.Module):
    """A feature network of 12 numbers that counts how often it is called: the mean colours of four quarters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.weight * nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


class Difference(nn.Module):
    """Replaces LPIPS by the mean absolute difference."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x, y):
        return self.weight * (x - y).abs().mean()


@pytest.fixture
def features():
    return Features("inception-64", Colours(), 12, 8, "part.pth", "f00d")


@pytest.fixture
def metrics(features):
    return Metrics(features, Lpips(Difference(), "squeeze.pth", "beef"), "clean", None)


def images(count, seed=0, size=40):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (size, size + 4, 3), np.uint8) for _ in range(count)]


def named(some):
    return {Path("folder", f"{i:03d}.png"): image for i, image in enumerate(some)}


@pytest.mark.parametrize("protocol", DESCRIPTIONS)
def test_the_description_names_everything_a_number_depends_on(features, protocol):
    described = Metrics(features, Lpips(Difference(), "squeeze.pth", "beef"), protocol, None).describe()
    assert described["name"] == protocol
    assert described["resize"] == f"to 8x8, {DESCRIPTIONS[protocol]}"
    assert described["features"] == "inception-64"
    assert (described["dimension"], described["file"], described["sha256"]) == (12, "part.pth", "f00d")
    assert described["lpips"] == {"network": "squeeze", "file": "squeeze.pth", "sha256": "beef"}
    assert (described["kid_subsets"], described["neighbours"]) == (100, 3)
    for name in ("torch", "torch-fidelity", "pillow", "numpy"):
        assert described["libraries"][name] == version(name)
    assert "jackknife" in described["intervals"]
    assert json.loads(json.dumps(described)) == described


def test_missing_parts_are_described_as_none():
    described = Metrics.choose("random", "clean", CPU).describe()
    assert described["lpips"] is None
    assert described["file"] is None
    assert len(described["sha256"]) == 64


def test_a_comparison_has_the_distances_and_the_means_over_images(metrics, features):
    real, generated, inputs, truths = (named(images(9, seed)) for seed in range(4))
    found = ReferenceSet(metrics, list(real.values())).compare(
        generated.items(), inputs.__getitem__, truths.__getitem__
    )
    a, b = (extract(features, some.values(), "clean") for some in (generated, real))
    assert found.scores["fid_64"] == distances.frechet_score(a, b)
    kid, kernel = distances.kernel_score(a, b)
    assert found.scores["kid_64"] == kid
    precision, recall = distances.precision_recall_scores(a, b)
    assert (found.scores["precision_64"], found.scores["recall_64"]) == (precision, recall)
    assert found.numbers == {"kid_64_std": kernel.deviation, "kid_64_subset_size": 4}

    assert list(found.images) == list(generated)
    for path, image in generated.items():
        given, truth = inputs[path], truths[path]
        assert found.images[path] == {
            "change": absolute_error(image, given),
            "lpips_to_input": pytest.approx(2 * absolute_error(image, given), rel=1e-4),
            "error": absolute_error(image, truth),
            "ssim": structural_similarity(image, truth),
            "lpips_to_truth": pytest.approx(2 * absolute_error(image, truth), rel=1e-4),
        }
    for key in ("change", "error", "ssim", "lpips_to_input", "lpips_to_truth"):
        values = [one[key] for one in found.images.values()]
        assert found.scores[key].value == pytest.approx(np.mean(values))
        assert found.scores[key].low < found.scores[key].value < found.scores[key].high


def test_precision_is_of_the_generated_images_and_recall_of_the_real_ones(metrics):
    real = images(30)
    found = ReferenceSet(metrics, real).compare(named([real[0]] * 10 + [real[1]] * 10).items())
    assert found.scores["precision_64"].value == 1
    assert found.scores["recall_64"].value < 0.2


def test_without_inputs_and_truths_there_are_distances_only(metrics):
    found = ReferenceSet(metrics, images(9)).compare(named(images(9, 1)).items())
    assert set(found.scores) == {"fid_64", "kid_64", "precision_64", "recall_64"}
    only_truth = ReferenceSet(metrics, images(9)).compare(
        named(images(9, 1)).items(), None, named(images(9, 2)).get
    )
    assert set(only_truth.scores) - set(found.scores) == {"error", "ssim", "lpips_to_truth"}


def test_lpips_is_omitted_without_its_weights_and_for_small_images(metrics, features):
    generated, inputs = (named([*images(3, seed), *images(2, seed, size=31)]) for seed in (1, 2))
    found = ReferenceSet(metrics, images(6)).compare(generated.items(), inputs.__getitem__)
    assert ["lpips_to_input" in one for one in found.images.values()] == [True] * 3 + [False] * 2
    known = [one["lpips_to_input"] for one in found.images.values() if "lpips_to_input" in one]
    assert found.scores["lpips_to_input"].value == pytest.approx(np.mean(known))
    without = ReferenceSet(Metrics(features, None, "clean", None), images(6))
    assert "lpips_to_input" not in without.compare(generated.items(), generated.__getitem__).scores


def test_a_comparison_becomes_plain_data(metrics):
    found = ReferenceSet(metrics, images(3)).compare(named(images(2, 1)).items())
    assert found.plain() == {"fid_64": found.scores["fid_64"].value, "intervals": {}}
    found = ReferenceSet(metrics, images(9)).compare(named(images(9, 1)).items())
    plain = json.loads(json.dumps(found.plain()))
    assert plain["kid_64_subset_size"] == 4
    assert set(plain["intervals"]) == {"fid_64", "kid_64", "precision_64", "recall_64"}
    for key, (low, high) in plain["intervals"].items():
        assert low <= plain[key] <= high


EXPECTED = {
    0: set(),
    1: set(),
    2: {"fid_64"},
    3: {"fid_64"},
    4: {"fid_64", "kid_64"},
    5: {"fid_64", "kid_64", "precision_64", "recall_64"},
    6: {"fid_64", "kid_64", "precision_64", "recall_64"},
}


@pytest.mark.parametrize("count", EXPECTED)
@pytest.mark.parametrize("others", [6, None])
def test_fewer_images_have_fewer_scores(metrics, features, count, others):
    """On either side."""
    few, many = (
        extract(features, images(n, seed), "clean") for n, seed in ((count, 1), (others or count, 2))
    )
    for pair in ((few, many), (many, few)):
        scores, numbers = compare_features(features, *pair)
        assert set(scores) == EXPECTED[count]
        assert set(numbers) == ({"kid_64_std", "kid_64_subset_size"} if count >= 4 else set())
        for score in scores.values():
            assert np.isfinite(score.value)
            assert (score.low is None) == (count == 2)
            assert score.low is None or score.low <= score.value <= score.high
    if count >= 2:
        floor = ReferenceSet(Metrics(features, None, "clean", None), images(count)).noise_floor
        assert set(floor) == {"images"} | ({"fid_64"} if count >= 4 else set())


def test_features_that_are_not_finite_are_refused_in_one_line(features, metrics, monkeypatch):
    def broken(self, x):
        rows = x.flatten(1)[:, :12].clone()
        rows[1] = float("nan")
        return rows

    monkeypatch.setattr(Colours, "forward", broken)
    with pytest.raises(
        DataError, match=r"inception-64 features: not finite for 1 image of 4; replace part.pth"
    ):
        ReferenceSet(metrics, images(4))


def test_precision_and_recall_can_be_omitted(features):
    rows = extract(features, images(9), "clean")
    assert set(compare_features(features, rows, rows + 1, all_of_them=False)[0]) == {"fid_64", "kid_64"}


def test_the_noise_floor_is_of_the_reference_set(metrics):
    found = ReferenceSet(metrics, images(9))
    assert found.noise_floor["images"] == 4
    assert found.noise_floor["fid_64"] == distances.noise_floor(found.real, distances.frechet_distance)
    assert "kid_64" in found.noise_floor
    assert found.noise_floor is found.noise_floor, "taken once"


def test_too_few_images_for_the_features_give_a_warning(metrics):
    """Five times as many images as features is where a Frechet distance begins to settle."""
    for generated, real, warned in [(12, 90, True), (90, 59, True), (2, 2, True), (60, 60, False)]:
        warnings = ReferenceSet(metrics, images(real)).warnings(generated)
        assert len(warnings) == warned
        if warned:
            assert f"{min(generated, real)} images are few for 12 features" in warnings[0]
            assert "FID-64" in warnings[0]
            assert "KID-64" in warnings[0]


def test_random_features_give_a_warning():
    found = ReferenceSet(Metrics.choose("random", "clean", CPU), images(2)).warnings(2)
    assert len(found) == 2
    assert "Fréchet distance of random features" in found[0]
    assert "not an FID" in found[1]


def test_a_reference_set_goes_through_the_network_once(features, tmp_path):
    some = images(5)
    first = extract_cached(features, some, "clean", tmp_path / "a" / "cache")
    assert features.network.calls == 1
    again = extract_cached(features, images(5), "clean", tmp_path / "a" / "cache")
    assert features.network.calls == 1
    assert torch.equal(first, again)
    assert first.dtype == again.dtype == torch.float64
    assert torch.equal(first, extract(features, some, "clean"))
    metrics = Metrics(features, None, "clean", tmp_path / "a" / "cache")
    before = features.network.calls
    assert torch.equal(ReferenceSet(metrics, some).real, first)
    assert features.network.calls == before


def changed_pixel(some):
    some[3] = some[3].copy()
    some[3][7, 7, 1] ^= 1
    return some


def changed_shape(some):
    """The same bytes, as an image twice as wide."""
    height, width, _ = some[2].shape
    some[2] = some[2].reshape(height // 2, width * 2, 3)
    return some


@pytest.mark.parametrize(
    "change", [changed_pixel, changed_shape, lambda some: some[:-1], lambda some: some[::-1], lambda some: []]
)
def test_changed_images_are_not_taken_from_the_cache(features, tmp_path, change):
    extract_cached(features, images(5), "clean", tmp_path)
    some = change(images(5))
    found = extract_cached(features, some, "clean", tmp_path)
    assert features.network.calls == (2 if some else 1)
    assert torch.equal(found, extract(features, some, "clean"))


def test_other_networks_and_protocols_are_not_confused(features, tmp_path):
    some = images(4)
    extract_cached(features, some, "clean", tmp_path)
    others = [
        (Features("inception-192", features.network, 12, 8, "part.pth", "f00d"), "clean"),
        (Features("inception-64", features.network, 12, 8, "part.pth", "feed"), "clean"),
        (features, "legacy"),
    ]
    for number, (other, protocol) in enumerate(others, 2):
        extract_cached(other, some, protocol, tmp_path)
        assert features.network.calls == number
    assert len(list(tmp_path.iterdir())) == 4


def test_a_cache_that_cannot_be_written_only_costs_time(features, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        features.network.calls = 0
        for calls in (1, 2):
            found = extract_cached(features, images(4), "clean", cache)
            assert features.network.calls == calls
            assert torch.equal(found, extract(Features("x", Colours(), 12, 8, None, ""), images(4), "clean"))
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_full_disk_leaves_nothing_behind(features, tmp_path, monkeypatch):
    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    found = extract_cached(features, images(4), "clean", tmp_path)
    assert found.shape == (4, 12)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(features, tmp_path):
    extract_cached(features, images(4), "clean", tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.rename(temporary_path(entry))
    extract_cached(features, images(4), "clean", tmp_path)
    assert list(tmp_path.iterdir()) == [entry]


@pytest.mark.parametrize("damage", [b"", b"nonsense", None, "other"])
def test_a_damaged_cache_is_replaced(features, tmp_path, damage):
    first = extract_cached(features, images(4), "clean", tmp_path)
    (entry,) = tmp_path.iterdir()
    intact = entry.read_bytes()
    if damage == "other":
        from safetensors.torch import save

        entry.write_bytes(save({"something else": torch.zeros(3)}))
    else:
        entry.write_bytes(intact[:-7] if damage is None else damage)
    again = extract_cached(features, images(4), "clean", tmp_path)
    assert features.network.calls == 2
    assert torch.equal(first, again)
    assert entry.read_bytes() == intact, "the entry is repaired"
    extract_cached(features, images(4), "clean", tmp_path)
    assert features.network.calls == 2


def test_without_a_cache_nothing_is_written(features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for calls in (1, 2):
        extract_cached(features, images(3), "clean", None)
        assert features.network.calls == calls
    assert list(tmp_path.iterdir()) == []


def test_images_are_compared_as_they_arrive(metrics, monkeypatch):
    """So that a folder of any size fits into memory."""
    monkeypatch.setattr("gan_nst.evaluation.features._BATCH", 2)
    at = []
    monkeypatch.setattr(Colours, "forward", lambda self, x: at.append(passed[0]) or x.flatten(1)[:, :12])
    passed = [0]

    def stream():
        for item in named(images(6, 1)).items():
            passed[0] += 1
            yield item

    found = ReferenceSet(metrics, images(4))
    at.clear()
    found.compare(stream())
    assert at == [2, 4, 6]


def test_the_fewest_images_are_those_with_a_covariance():
    assert comparison.FEWEST == 2
    rows = extract(choose("random", CPU), images(2), "clean")
    assert np.isfinite(distances.frechet_distance(rows, rows + 1))
