"""The frozen networks of content losses: each layer against torchvision's, the convention, and refusals."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from gan_nst.core import pretrained
from gan_nst.core.errors import SettingsError, WeightsError
from gan_nst.images.arrays import resize_image, to_float, to_tensor
from gan_nst.images.files import find_images, read_image
from gan_nst.networks import features as content
from gan_nst.networks.features import FeatureSettings, FrozenFeatures

NETWORKS = ("vgg19", "vgg19_normalised", "squeezenet1_1")
# The convention, written out independently.
MEAN, DEVIATION = (
    torch.tensor(values, dtype=torch.float64)[:, None, None]
    for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def drawn(shapes):
    """Weights that keep their input's size, and biases, by name."""
    source, weights = torch.Generator().manual_seed(5), {}
    for name, shape in shapes.items():
        reach = (6 / shape[1:].numel()) ** 0.5 if len(shape) == 4 else 0.3
        weights[name] = (torch.rand(shape, generator=source) * 2 - 1) * reach
    return weights


@pytest.fixture(scope="module")
def weights():
    """Random weights by network, under the names of the published files."""
    with torch.device("meta"):
        models = {
            "vgg19": torchvision.models.vgg19(weights=None, init_weights=False),
            "squeezenet1_1": torchvision.models.squeezenet1_1(weights=None),
        }
    found = {
        name: drawn({k: w.shape for k, w in model.state_dict().items() if k.startswith("features.")})
        for name, model in models.items()
    }
    found["vgg19"]["classifier.6.bias"] = torch.zeros(1000)
    normalised, position = {"0.weight": images(3, 3, 1, 1) * 200, "0.bias": images(3) * 100}, 2
    for layer, module in models["vgg19"].features.named_children():  # a padding before every convolution
        if isinstance(module, nn.Conv2d):
            normalised[f"{position}.weight"] = found["vgg19"][f"features.{layer}.weight"]
            normalised[f"{position}.bias"] = found["vgg19"][f"features.{layer}.bias"] * 20
            position += 3
        elif isinstance(module, nn.MaxPool2d):
            position += 1
    return {**found, "vgg19_normalised": normalised}


@pytest.fixture
def open_network(weights, monkeypatch):
    """Networks of random weights; the unit is taken from smaller images, as only its being divided by counts."""
    small = images(1, 3, 32, 32, seed=7)
    monkeypatch.setattr(content, "_fixed_images", lambda: small)
    monkeypatch.setattr(pretrained, "load", lambda path: weights[path.name])
    monkeypatch.setattr(pretrained, "require", lambda file, given, otherwise: given)

    def build(network, layer=None):
        file = None if network == "random" else network
        return FrozenFeatures(FeatureSettings(network=network, layer=layer, weights=file))

    return build


def vgg_layers(weights, x):
    """Every layer of torchvision's VGG-19 by its name in the literature."""
    model = torchvision.models.vgg19(weights=None, init_weights=False).features
    model.load_state_dict({k.removeprefix("features."): w for k, w in weights.items() if "features" in k})
    found, block, number = {}, 1, 0
    for module in model:
        x = module(x.clone())  # its ReLUs are in-place
        if isinstance(module, nn.Conv2d):
            number += 1
            found[f"conv{block}_{number}"] = x
        elif isinstance(module, nn.ReLU):
            found[f"relu{block}_{number}"] = x
        else:
            block, number = block + 1, 0
    return found


def normalised_layers(weights, x):
    """The same of the normalised network, whose first layer is its own normalisation and which reflects."""
    x = F.conv2d(x, weights["0.weight"], weights["0.bias"])
    found, position = {}, 2
    for block, convolutions in enumerate((2, 2, 4, 4, 4), start=1):
        for number in range(1, convolutions + 1):
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")
            x = F.conv2d(x, weights[f"{position}.weight"], weights[f"{position}.bias"])
            found[f"conv{block}_{number}"] = x
            x = found[f"relu{block}_{number}"] = F.relu(x)
            position += 3
        x = F.max_pool2d(x, 2)
        position += 1
    return found


def squeezenet_layers(weights, x):
    """Every convolution, ReLU and fire module of torchvision's SqueezeNet 1.1, by its name in the paper."""
    model = torchvision.models.squeezenet1_1(weights=None).features
    model.load_state_dict({k.removeprefix("features."): w for k, w in weights.items() if "features" in k})
    found, fire = {}, 2
    for module in model:
        x = module(x.clone())
        if isinstance(module, nn.Conv2d):
            found["conv1"] = x
        elif isinstance(module, nn.ReLU):
            found["relu1"] = x
        elif not isinstance(module, nn.MaxPool2d):
            found[f"fire{fire}"] = x
            fire += 1
    return found


LAYERS = {"vgg19": vgg_layers, "vgg19_normalised": normalised_layers, "squeezenet1_1": squeezenet_layers}
DEFAULTS = {"vgg19": "conv4_4", "vgg19_normalised": "conv3_1", "squeezenet1_1": "fire3"}


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_every_layer_is_that_of_the_network_written_out(open_network, weights, network):
    image = images(1, 3, 32, 48)
    x = (image + 1) / 2
    if network != "vgg19_normalised":
        x = (x - MEAN.float()) / DEVIATION.float()
    expected = LAYERS[network](weights[network], x)
    with pytest.raises(SettingsError) as raised:
        open_network(network, "conv9_9")
    message = f"method.features.layer: {network} has {', '.join(expected)}, got 'conv9_9'"
    assert str(raised.value).startswith(message + " (null is ")
    for layer, features in expected.items():
        ours = open_network(network, layer)
        found = ours(image) * ours.unit
        assert (found - features).abs().max() < 1e-4 * features.abs().max(), layer
        assert (found.min() < 0) == layer.startswith("conv"), layer
    assert torch.equal(open_network(network)(image), open_network(network, DEFAULTS[network])(image))


def test_images_are_normalised_as_rgb(open_network, weights):
    """Negative control of the convention: neither [-1, 1] itself, nor [0, 1], nor BGR give the same."""
    image = images(1, 3, 32, 32).double()
    network = open_network("squeezenet1_1", "conv1").double()
    kernel = weights["squeezenet1_1"]["features.0.weight"].double()
    bias = weights["squeezenet1_1"]["features.0.bias"].double()
    x = (image + 1) / 2
    right, *wrong = (
        F.conv2d(y, kernel, bias, stride=2)
        for y in ((x - MEAN) / DEVIATION, image, x, (x.flip(1) - MEAN) / DEVIATION)
    )
    found = network(image) * network.unit
    assert (found - right).abs().max() < 1e-5
    assert all((found - y).abs().max() > 0.1 for y in wrong)


@pytest.mark.parametrize("network", [*NETWORKS, "random"])
def test_features_are_in_units_of_their_mean_magnitude_to_three_digits(open_network, network):
    ours = open_network(network)
    unit = ours.unit.item()
    assert unit > 0
    assert unit == pytest.approx(float(f"{unit:.3g}"), rel=1e-6)
    assert ours(content._fixed_images()).abs().mean().item() == pytest.approx(1, abs=0.006)


def test_the_unit_is_taken_from_four_images_that_are_the_same_everywhere():
    """The first values, from numbers that torch's generator draws alike on every machine."""
    fixed = content._fixed_images()
    assert fixed.shape == (4, 3, 128, 128)
    assert -1 <= fixed.min() < -0.9 < 0.9 < fixed.max() <= 1
    assert torch.equal(fixed, content._fixed_images())
    assert fixed.std(dim=(2, 3)).min() > 0.1


def test_random_features_are_the_same_every_time_and_need_no_file():
    torch.manual_seed(1)
    first = FrozenFeatures(FeatureSettings(network="random"))
    torch.manual_seed(2)
    second, early = (FrozenFeatures(FeatureSettings(network="random", layer=n)) for n in (None, "conv1"))
    image = images(2, 3, 32, 24)
    assert torch.equal(first(image), second(image))
    assert first(image).shape == (2, 64, 8, 6)
    assert early(image).shape == (2, 16, 32, 24)
    assert first.unit == second.unit == pytest.approx(0.6, abs=0.005)
    convolutions = [layer for layer in first.layers if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:  # He et al. 2015: the deviation that keeps the size through a ReLU
        fan = layer.weight[0].numel()
        assert layer.weight.std() == pytest.approx((2 / fan) ** 0.5, rel=0.1)
        assert not layer.bias.any()


@pytest.mark.parametrize("network", [*NETWORKS, "random"])
def test_building_one_keeps_the_random_state_and_has_no_parameters(open_network, network):
    before = torch.get_rng_state()
    ours = open_network(network)
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(ours.parameters())
    assert not ours.state_dict()
    assert len(list(ours.buffers())) > 3
    image = images(1, 3, 32, 32).requires_grad_()
    (slope,) = torch.autograd.grad(ours(image).abs().mean(), image)
    assert slope.abs().max() > 0


@pytest.mark.parametrize("network", ["squeezenet1_1", "vgg19_normalised", "random"])
@torch.no_grad()
def test_it_runs_in_bfloat16_in_float64_and_on_the_meta_device(open_network, network):
    ours, image = open_network(network), images(2, 3, 32, 32)
    expected = ours(image)
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(image)
    assert (found.float() - expected).abs().mean() < 0.03
    double = copy.deepcopy(ours).double()(image.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, rtol=1e-4, atol=1e-4)
    shapes = copy.deepcopy(ours).to("meta")(image.to("meta"))
    assert shapes.is_meta
    assert shapes.shape == expected.shape


WRONG = {
    "another network": lambda w: {k.replace("features", "body"): x for k, x in w.items()},
    "a part": lambda w: {k: x for k, x in w.items() if not k.startswith("features.4.")},
    "another shape": lambda w: w | {"features.0.weight": torch.zeros(64, 3, 5, 5)},
    "nothing": lambda w: {},
    "no tensors": lambda w: {"features.0.weight": 1},
    "not finite": lambda w: w | {"features.0.bias": torch.full((64,), torch.inf)},
}


@pytest.mark.parametrize("what", WRONG)
def test_another_file_is_refused_in_one_line(weights, tmp_path, what):
    path = tmp_path / "squeezenet1_1.pth"
    torch.save(WRONG[what](weights["squeezenet1_1"]), path)
    refused("squeezenet1_1", path)


def test_a_damaged_or_missing_file_is_refused_in_one_line(weights, tmp_path):
    path = tmp_path / "squeezenet1_1.pth"
    refused("squeezenet1_1", path)
    torch.save(weights["squeezenet1_1"], path)
    intact = path.read_bytes()
    for content_ in (b"", b"no weights", intact[: len(intact) // 2]):
        path.write_bytes(content_)
        refused("squeezenet1_1", path)
    path.write_bytes(intact)
    assert FrozenFeatures(FeatureSettings(network="squeezenet1_1", weights=path)).unit > 0


def test_the_lower_part_of_a_network_suffices_for_its_layers(weights, tmp_path):
    path = tmp_path / "squeezenet1_1.pth"
    torch.save({k: w for k, w in weights["squeezenet1_1"].items() if k < "features.4"}, path)
    assert FrozenFeatures(FeatureSettings(network="squeezenet1_1", layer="relu1", weights=path)).unit > 0
    refused("squeezenet1_1", path, "squeezenet1_1 up to the requested layer (it lacks 4.squeeze.weight)")


@pytest.mark.parametrize(
    "change",
    [
        {"2.weight": torch.zeros(64, 3, 5, 5)},
        {"0.weight": torch.zeros(3, 3, 3, 3)},
        {"0.weight": torch.zeros(3)},
        {"0.bias": None},
        {"0.bias": torch.zeros(4)},
        {"0.weight": torch.zeros(3, 5, 1, 1)},
    ],
)
def test_a_wrong_first_layer_of_the_normalised_network_is_refused_in_one_line(weights, tmp_path, change):
    path = tmp_path / "vgg_normalised.pth"
    kept = {k: w for k, w in weights["vgg19_normalised"].items() if int(k.split(".")[0]) < 17}
    torch.save({k: w for k, w in (kept | change).items() if w is not None}, path)
    refused("vgg19_normalised", path)


def test_weights_of_zeros_are_refused_in_one_line(weights, tmp_path):
    path = tmp_path / "squeezenet1_1.pth"
    torch.save({k: torch.zeros_like(w) for k, w in weights["squeezenet1_1"].items()}, path)
    refused("squeezenet1_1", path)


def test_a_download_is_offered_only_where_there_is_one(caplog):
    content.resolve(FeatureSettings(network="vgg19_normalised", weights="auto"))
    (message,) = caplog.messages
    assert "download" not in message


def refused(network, path, part=""):
    with pytest.raises(WeightsError) as raised:
        FrozenFeatures(FeatureSettings(network=network, weights=path))
    assert str(raised.value).startswith(f"{path}: ")
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


FILES = {"squeezenet1_1": "squeezenet1_1.pth", "vgg19_normalised": "vgg19_normalised_to_relu3_1.pth"}
# Values of the raw features (network, layer): {(channel, row, column): value}, and their mean absolute value. From
# torch.nn.functional alone on the files' tensors in float64, the layers written out by hand; torch 2.11.
GOLDEN = {
    ("squeezenet1_1", "conv1"): (
        {(26, 0, 0): 7.647467098840152, (35, 18, 0): 9.982851589080783, (57, 18, 0): -6.282312913775635},
        0.8610383541911021,
    ),
    ("squeezenet1_1", "fire3"): (
        {(39, 8, 12): 25.88301188988237, (80, 8, 0): 52.59614239953907, (127, 0, 12): 38.26546804326074},
        2.1227782151286623,
    ),
    ("squeezenet1_1", "fire5"): (
        {(200, 0, 0): 193.77010986183856, (255, 3, 0): 92.40330929250369},
        11.719332324568045,
    ),
    ("vgg19_normalised", "conv1_1"): (
        {(20, 0, 0): 13.369420332972204, (33, 31, 0): 14.671489484145065, (59, 0, 0): -16.769258712542154},
        3.4600708759271317,
    ),
    ("vgg19_normalised", "relu2_1"): (
        {(40, 1, 0): 9.383772672261468, (69, 19, 0): 43.67866104910815, (120, 18, 2): 13.276177937310806},
        1.2268434966783142,
    ),
    ("vgg19_normalised", "conv3_1"): (
        {(85, 7, 2): 30.970752431967767, (133, 6, 2): 18.34545762247903, (251, 9, 1): 22.23160747340976},
        2.29931699219672,
    ),
}


@pytest.mark.parametrize(("network", "layer"), GOLDEN)
@torch.no_grad()
def test_published_weights_give_the_known_features(pretrained_weights, network, layer):
    rows, columns = np.indices((40, 56))
    image = np.stack([rows * 6, columns * 4, 255 - 2 * rows - 2 * columns], 2).astype(np.uint8)
    path = pretrained_weights / FILES[network]
    ours = FrozenFeatures(FeatureSettings(network=network, layer=layer, weights=path)).double()
    features = ours(to_float(to_tensor(image))[None].double())[0] * ours.unit
    values, size = GOLDEN[network, layer]
    assert {place: features[place].item() for place in values} == pytest.approx(values, rel=1e-5)
    assert features.abs().mean().item() == pytest.approx(size, rel=1e-5)


@pytest.mark.parametrize(("network", "unit"), [("squeezenet1_1", 1.45), ("vgg19_normalised", 1.6)])
def test_published_weights_have_the_known_unit(pretrained_weights, network, unit):
    ours = FrozenFeatures(FeatureSettings(network=network, weights=pretrained_weights / FILES[network]))
    assert ours.unit.item() == pytest.approx(unit, rel=0.002)


@torch.no_grad()
def test_losses_are_of_similar_size_for_all_networks(pretrained_weights, test_data):
    """From photographs to cartoons the losses are within a factor 2 of each other; of raw features they are not."""
    photographs, cartoons = (
        torch.stack([to_float(to_tensor(resize_image(read_image(p), 128, "squash"))) for p in files[:6]])
        for files in (find_images(test_data / "photo2hayao" / split) for split in ("testA", "testB"))
    )
    losses, raw = [], []
    for (network, file), layer in zip(FILES.items(), ("fire5", "conv3_1"), strict=True):
        ours = FrozenFeatures(
            FeatureSettings(network=network, layer=layer, weights=pretrained_weights / file)
        )
        losses.append((ours(photographs) - ours(cartoons)).abs().mean().item())
        raw.append(losses[-1] * ours.unit.item())
    assert 0.5 < losses[0] / losses[1] < 2
    assert not 0.5 < raw[0] / raw[1] < 2
    assert all(0.3 < loss < 1.5 for loss in losses)
