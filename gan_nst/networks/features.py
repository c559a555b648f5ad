"""Frozen networks whose features show the content of an image rather than its style: for content losses.

They share one convention: images are RGB in [-1, 1] and are normalised by ImageNet's mean and deviation; features are
in units of their mean absolute value over a few fixed images. This makes the content loss, their mean absolute
difference, similar for all useful layers: 0.5 to 1.1 between photographs and their cartoons from SqueezeNet's conv1
to fire7 and the normalised VGG-19's conv1_1 to conv3_1, whose raw features differ twentyfold. Its gradient still
differs about fourfold between layers, and so does a suitable weight. (Published weights are for other conventions: raw
features of images in [0, 1], or of 0 to 255 minus a mean.)
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from gan_nst.core import pretrained
from gan_nst.core.errors import SettingsError, WeightsError
from gan_nst.core.pretrained import Pretrained
from gan_nst.core.settings import Section

log = logging.getLogger(__name__)

VGG19 = Pretrained(
    "VGG-19 (content loss)",
    ("vgg19-dcbb9e9d.pth", "vgg19.pth"),
    "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
)
VGG19_NORMALISED = Pretrained(
    "the normalised VGG-19 (content loss)", ("vgg_normalised.pth", "vgg19_normalised_to_relu3_1.pth")
)
SQUEEZENET = Pretrained(
    "SqueezeNet 1.1",
    ("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1.pth"),
    "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
)

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in [0, 1]


class FeatureSettings(Section):
    """The frozen network and layer of a content loss."""

    network: Literal["vgg19", "squeezenet1_1", "vgg19_normalised", "random"] = Field(
        "vgg19", description="random: three convolutions with fixed random weights, without a file"
    )
    layer: str | None = Field(
        None,
        description="conv4_4, relu3_1, fire5, ...; null: conv4_4, conv3_1 (normalised VGG-19) or fire3 (SqueezeNet)",
    )
    weights: Path | Literal["auto", "download"] | None = Field(
        None,
        description="a file; null: it must be found where weights are looked for; download: fetched if not found; "
        "auto: random features if not found",
    )
    sha256: str | None = Field(
        None, description="of the weights' file; saved by a run, which resumes with no other file"
    )

    @model_validator(mode="after")
    def _fits(self) -> "FeatureSettings":
        file = _KINDS[self.network].file
        if file is None and isinstance(self.weights, Path):
            raise ValueError(
                "weights: random features need no file; choose another network, or omit the file"
            )
        if self.weights == "download" and (file is None or file.url is None):
            raise ValueError(f"weights: {self.network} cannot be downloaded; give a file")
        return self


@dataclass(frozen=True)
class _Kind:
    """A network: its file, its default layer, where each named layer ends, and its layers without weights."""

    file: Pretrained | None
    layer: str
    ends: Mapping[str, int]
    layers: Callable[[], nn.Sequential]


class FrozenFeatures(nn.Module):
    """Maps images, (n, 3, h, w) in [-1, 1], to the features of one layer, (n, c, h', w'), of mean size about 1.

    It is not trained and belongs to no role: its weights are buffers, which checkpoints do not contain. Raises
    WeightsError if its weights are not found, SettingsError for an unknown layer.
    """

    mean: Tensor
    deviation: Tensor
    unit: Tensor

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        kind = _KINDS[settings.network]
        layer = settings.layer or kind.layer
        if layer not in kind.ends:
            raise SettingsError(
                f"method.features.layer: {settings.network} has {', '.join(kind.ends)}, got {layer!r} (null is "
                f"{kind.layer})"
            )
        with torch.device("meta"):  # no initial weights are drawn
            layers = kind.layers()[: kind.ends[layer]]
        path = None if kind.file is None else _path(kind.file, settings)
        if path is None:
            _draw(layers)
        else:
            if settings.sha256 is not None and settings.sha256 != pretrained.digest(path):
                raise WeightsError(f"{path}: not the file that the run started with; give that one")
            _load(layers, path, settings.network)
        self.layers = _without_parameters(layers)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None], persistent=False)
        self.register_buffer("unit", torch.ones(()), persistent=False)
        with torch.no_grad():
            # Three digits, so that machines that add up differently nearly always agree.
            unit = float(f"{self(_fixed_images()).abs().mean().item():.3g}")
        if not 0 < unit < math.inf:
            raise WeightsError(f"{path}: the features of {layer} have size {unit}; the weights are unusable")
        self.unit.fill_(unit)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(((images + 1) / 2 - self.mean) / self.deviation)
        return features / self.unit


def resolve(settings: FeatureSettings) -> FeatureSettings:
    """Returns the settings as a run saves them: with the hash of the weights, and `weights: auto` resolved to the
    network if its weights are found, else to random features, with a warning. Raises WeightsError for missing weights.
    """
    file = _KINDS[settings.network].file
    if file is None:
        return settings.model_copy(update={"weights": None})
    if settings.weights != "auto" or settings.sha256 is not None or pretrained.find(file) is not None:
        weights = None if settings.weights == "auto" else settings.weights
        path = _path(file, settings)
        digest = settings.sha256 or pretrained.digest(path)
        return settings.model_copy(update={"weights": weights, "sha256": digest})
    fetch = " (method.features.weights=download fetches it)" if file.url else ""
    log.warning(
        f"{file.what}: no {' or '.join(file.names)} found; using random features for the content loss: fine for a "
        f"smoke test, not for results{fetch}"
    )
    return FeatureSettings(network="random")


def _path(file: Pretrained, settings: FeatureSettings) -> Path:
    if settings.weights == "download" and file.url is not None:
        return pretrained.fetch(file)
    given = settings.weights if isinstance(settings.weights, Path) else None
    ways = "give its path (method.features.weights=FILE)"
    ways += ", or download it (method.features.weights=download)" if file.url else ""
    ways += ", or use method.features.network=squeezenet1_1" if settings.network == "vgg19" else ""
    return pretrained.require(file, given, ways)


def _load(layers: nn.Sequential, path: Path, network: str) -> None:
    """Loads the layers' weights from a file of the network or of its lower part."""
    weights = {name.removeprefix("features."): weight for name, weight in pretrained.load(path).items()}
    pretrained.fill(layers, weights, path, f"{network} up to the requested layer")
    if network == "vgg19_normalised":
        first = cast(nn.Conv2d, layers[0])
        assert first.bias is not None
        first.weight.data, first.bias.data = _fold(first.weight, first.bias)


def _fold(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the first layer of the normalised VGG-19 for normalised images. The file's maps RGB in [0, 1] to BGR of 0
    to 255 minus a mean.
    """
    mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in (_MEAN, _DEVIATION))
    folded = (weight.double() * deviation[None, :, None, None]).float()
    return folded, (bias + weight.double()[:, :, 0, 0] @ mean).float()


def _draw(layers: nn.Sequential) -> None:
    """Draws fixed random weights, the same on every machine."""
    source = torch.Generator().manual_seed(20181206)
    drawn = {}
    for name, weight in layers.state_dict().items():
        # Uniform numbers in float64 are the same on every processor; normal ones differ in their last bits.
        reach = math.sqrt(6 / weight[0].numel()) if weight.ndim == 4 else 0.0
        draw = torch.rand(weight.shape, generator=source, dtype=torch.float64)
        drawn[name] = ((2 * draw - 1) * reach).float()
    layers.load_state_dict(drawn, assign=True)


def _without_parameters(network: nn.Sequential) -> nn.Sequential:
    """Returns the network with its weights as buffers that are not saved."""
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, weight.detach(), persistent=False)
    return network.eval()


def _fixed_images() -> Tensor:
    """Returns four images of 128 pixels in [-1, 1] with a natural spectrum: more contrast at coarse scales."""
    source = torch.Generator().manual_seed(20140904)
    images = torch.zeros(4, 3, 128, 128)
    for cells in (2, 4, 8, 16, 32, 64, 128):
        draw = torch.rand(4, 3, cells, cells, generator=source, dtype=torch.float64).float() - 0.5
        images += F.interpolate(draw, size=128, mode="bilinear") * (2 / cells) ** 0.5
    return images.clamp(-1, 1)


def _vgg19() -> nn.Sequential:
    from torchvision.models.vgg import cfgs, make_layers  # takes seconds

    layers: nn.Sequential = make_layers(cfgs["E"])
    return layers


def _vgg19_normalised() -> nn.Sequential:
    """Returns a VGG-19 whose features were scaled to mean 1 (Gatys et al. 2016), with reflection padding."""
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    for layer in _vgg19():
        if isinstance(layer, nn.Conv2d):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(layer.in_channels, layer.out_channels, 3)]
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def _squeezenet() -> nn.Sequential:
    from torchvision.models import squeezenet1_1

    layers: nn.Sequential = squeezenet1_1().features
    return layers


def _random() -> nn.Sequential:
    widths, layers = (3, 16, 32, 64), []
    for stride, inputs, outputs in zip((1, 2, 2), widths, widths[1:], strict=False):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def _vgg_ends(first: int, a_convolution: int) -> dict[str, int]:
    """Returns where "conv1_1" (before its ReLU), "relu1_1", ... end among the layers."""
    ends, position = {}, first
    for block, convolutions in enumerate((2, 2, 4, 4, 4), start=1):
        for number in range(1, convolutions + 1):
            position += a_convolution
            ends[f"conv{block}_{number}"] = position
            position += 1
            ends[f"relu{block}_{number}"] = position
        position += 1  # pooling
    return ends


_FIRES = {"fire2": 4, "fire3": 5, "fire4": 7, "fire5": 8, "fire6": 10, "fire7": 11, "fire8": 12, "fire9": 13}

_KINDS = {
    "vgg19": _Kind(VGG19, "conv4_4", _vgg_ends(0, 1), _vgg19),
    "vgg19_normalised": _Kind(VGG19_NORMALISED, "conv3_1", _vgg_ends(1, 2), _vgg19_normalised),
    "squeezenet1_1": _Kind(SQUEEZENET, "fire3", {"conv1": 1, "relu1": 2, **_FIRES}, _squeezenet),
    "random": _Kind(None, "conv3", {"conv1": 1, "conv2": 3, "conv3": 5}, _random),
}
