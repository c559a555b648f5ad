"""Feature networks that images are compared through: the FID Inception, whole or in part, or random weights."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch_fidelity import FeatureExtractorInceptionV3

from gan_nst.core import weights as pretrained
from gan_nst.core.errors import SettingsError, WeightsError
from gan_nst.core.files import atomic_write
from gan_nst.images.arrays import ImageArray, to_tensor

Protocol = Literal["clean", "legacy"]

DESCRIPTIONS: dict[Protocol, str] = {
    "clean": "anti-aliased bicubic (Pillow) on float values, clipped to 0..255, then (x - 128) / 128",
    "legacy": "bilinear without anti-aliasing (torch) on float values, then 2 x / 255 - 1, as pytorch-fid does",
}


def prepare(image: ImageArray, size: int, protocol: Protocol) -> Tensor:
    """An image, RGB uint8 (h, w, 3), as float32 (3, size, size), about [-1, 1].

    "clean" is Parmar et al. 2022 (arXiv:2104.11222): each channel is resized as floats, so that nothing is rounded,
    with a filter that grows with the scale, so that nothing aliases. "legacy" is what pytorch-fid does, and with it
    most published numbers. Where alpha was, there is white: transparent pixels have no colour to compare.
    """
    if protocol == "legacy":
        x = to_tensor(image)[None].to(torch.float32) / 255
        return 2 * F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)[0] - 1
    channels = [
        Image.fromarray(np.ascontiguousarray(image[..., c], np.float32)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        for c in range(3)
    ]
    values = np.stack([np.asarray(channel) for channel in channels]).clip(0, 255)
    return (torch.from_numpy(values) - 128) / 128


# What pytorch-fid and torch-fidelity call the features of 64, 192, 768 and 2048 numbers, and the layers before each.
_STAGES = {
    64: ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    192: ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    768: ("Mixed_5b", "Mixed_5c", "Mixed_5d", *(f"Mixed_6{letter}" for letter in "abcde")),
    2048: ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
}


class Inception(FeatureExtractorInceptionV3):  # type: ignore[misc]
    """Maps images (n, 3, 299, 299), about [-1, 1], to features (n, dimension).

    The library's own class unpickles its file, insists on every layer, and resizes in its own way.
    """

    def __init__(self, file: io.BytesIO, dimension: int) -> None:
        self.needed = [name for width, names in _STAGES.items() if width <= dimension for name in names]
        super().__init__("inception-v3-compat", [str(dimension)], feature_extractor_weights_path=file)
        self.eval()

    @classmethod
    def load(cls, path: Path, dimension: int) -> "Inception":
        """The network up to the features of so many numbers, from the whole file or from its lower part.

        Raises WeightsError when the file lacks a layer that is needed, or is of another network.
        """
        weights = pretrained.load(path)
        # The constructor unpickles; what it is given is a file in memory that is written here, from tensors alone.
        file = io.BytesIO()
        torch.save(weights, file)
        file.seek(0)
        try:
            with torch.random.fork_rng(
                devices=[]
            ):  # layers draw initial weights, unnoticed by a run's random state
                return cls(file, dimension)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"{path}: not the FID Inception network for {dimension} features ({reason})"
            ) from None

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        for name in self.state_dict():
            if name.split(".")[0] in self.needed and "num_batches" not in name and name not in state:
                raise KeyError(f"it lacks {name}")
        return nn.Module.load_state_dict(self, state, strict=False, assign=assign)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.needed:
            x = getattr(self, name)(x)
        return x.mean((2, 3))


FeatureName = Literal["inception", "inception-768", "inception-192", "inception-64", "random"]
Metric = Literal["frechet", "kernel", "precision", "recall"]
FEATURE_NAMES: tuple[str, ...] = get_args(FeatureName)

_BATCH = 16

# Both projects offer the same file, converted from the 2015-12-05 TensorFlow graph.
INCEPTION = pretrained.Pretrained(
    "the FID Inception network",
    ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
# A lower part of it is enough for lower features.
INCEPTION_PART = pretrained.Pretrained(
    "the FID Inception network up to its 768 features",
    (*INCEPTION.names, "inception_fid_to_mixed7a.pth"),
    INCEPTION.url,
)


@dataclass(frozen=True)
class Features:
    """A feature network and what is to be told of it beside every number.

    network: float32 (n, 3, size, size), about [-1, 1], to (n, dimension). digest: SHA-256 of its weights' file.
    """

    name: str
    network: nn.Module
    dimension: int
    size: int
    file: str | None
    digest: str

    def key(self, metric: Metric) -> str:
        """What a score through these features is called in JSON."""
        return score_key(self.name, metric)


def score_key(features: str, metric: Metric) -> str:
    """What a score through the named features is called in JSON: the standard features alone give the standard name,
    "fid"; the others "fid_768", "frechet_random".
    """
    if features == "random":
        return f"{metric}_random"
    standard = {"frechet": "fid", "kernel": "kid"}.get(metric, metric)
    return standard + features.removeprefix("inception").replace("-", "_")


def choose(name: str, device: torch.device, weights: Path | None = None, download: bool = False) -> Features:
    """The named feature network; "auto" is Inception, else the part of it that lies here, else random features.

    weights: a file of Inception weights, instead of looking for one. download: fetches them when they lie nowhere.
    Raises WeightsError when an explicit request cannot be met, SettingsError for an unknown name.
    """
    if name == "auto":
        name = best_at_hand(weights, download)
    if name == "random":
        return _random(device)
    if name not in FEATURE_NAMES:
        raise SettingsError(f"features: expected auto or one of {', '.join(FEATURE_NAMES)}, got {name!r}")
    dimension = 2048 if name == "inception" else int(name.removeprefix("inception-"))
    wanted = INCEPTION if name == "inception" else INCEPTION_PART
    if download and weights is None:
        pretrained.fetch(wanted)
    part = "" if name != "inception" else ", or use features inception-768 with a part of the network"
    path = pretrained.require(
        wanted, weights, f"give its path (--weights, evaluation.weights), or let --download fetch it{part}"
    )
    from gan_nst.evaluation.features import (
        Inception,  # with torchvision behind it, seconds that random features need not
    )

    network = Inception.load(path, dimension).to(device)
    network = network.to(memory_format=torch.channels_last)  # 1.8 times as fast on a CPU
    return Features(name, network, dimension, 299, path.name, pretrained.digest(path))


@torch.inference_mode()
def extract(features: Features, images: Iterable[ImageArray], protocol: Protocol) -> Tensor:
    """The features of images of any sizes, float64 (n, dimension) on the CPU."""
    device = next(features.network.parameters()).device
    found = [torch.empty(0, features.dimension)]
    for batch in _batches(images):
        inputs = torch.stack([prepare(image, features.size, protocol) for image in batch])
        inputs = inputs.to(device, memory_format=torch.channels_last)
        found.append(features.network(inputs).cpu())
    return torch.cat(found).double()


def extract_cached(
    features: Features, images: Iterable[ImageArray], protocol: Protocol, cache: Path | None
) -> Tensor:
    """`extract`, remembered in the folder `cache` under what the images show, so that no entry can be stale.

    images: can be gone through twice.
    """
    if cache is None:
        return extract(features, images, protocol)
    device = next(features.network.parameters()).device.type
    content = hashlib.sha256(
        f"{features.name} {features.digest} {protocol} {torch.__version__} {device}".encode()
    )
    count = 0
    for image in images:
        count += 1
        content.update(str(image.shape).encode())
        content.update(image.tobytes())
    path = cache / f"features-{content.hexdigest()[:32]}.safetensors"
    if (known := _remembered(path, (count, features.dimension))) is not None:
        return known.double()
    found = extract(features, images, protocol)
    with suppress(OSError):  # a cache that cannot be written only costs time
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            unfinished.write_bytes(save({"features": found.float()}))  # float32 is what the network gave
    return found


def _remembered(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """What a file remembers; None where it cannot be features of this shape."""
    if not path.is_file():
        return None
    with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
        known: Tensor = file.get_tensor("features")
        if known.shape == shape and known.is_floating_point() and known.isfinite().all():
            return known
    return None


def best_at_hand(weights: Path | None = None, download: bool = False) -> FeatureName:
    """The name of the best features that can be had: Inception, the part of it that lies here, or random ones."""
    if download or pretrained.find(INCEPTION, weights) is not None:
        if weights is not None and "Mixed_7c.branch1x1.conv.weight" not in pretrained.load(weights):
            return "inception-768"
        return "inception"
    return "random" if pretrained.find(INCEPTION_PART) is None else "inception-768"


def _batches(images: Iterable[ImageArray]) -> Iterator[list[ImageArray]]:
    images = iter(images)
    while batch := list(islice(images, _BATCH)):
        yield batch


class _RandomNetwork(nn.Module):
    """Four strided convolutions with fixed random weights; means and deviations of each layer's channels."""

    WIDTHS = (3, 8, 16, 24, 32)

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(20150512)
        kernels = []
        for i, o in zip(self.WIDTHS, self.WIDTHS[1:], strict=False):
            # Uniform in float64, which is the same on every processor; normal numbers differ in their last bits.
            draw = torch.rand(o, i, 3, 3, generator=source, dtype=torch.float64)
            kernels.append(nn.Parameter(((2 * draw - 1) * (6 / (9 * i)) ** 0.5).float(), requires_grad=False))
        self.kernels = nn.ParameterList(kernels)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for kernel in self.kernels:
            x = F.leaky_relu(F.conv2d(x, kernel, stride=2, padding=1), 0.2)
            found += [x.mean((2, 3)), x.std((2, 3))]
        return torch.cat(found, dim=1)


def _random(device: torch.device) -> Features:
    network = _RandomNetwork()
    content = hashlib.sha256(b"".join(kernel.numpy().tobytes() for kernel in network.kernels))
    dimension = 2 * sum(_RandomNetwork.WIDTHS[1:])
    return Features("random", network.to(device), dimension, 64, None, content.hexdigest())
