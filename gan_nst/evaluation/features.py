"""Feature networks that pictures are compared through: the FID Inception, whole or in part, or random weights."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gan_nst.core import pretrained
from gan_nst.core.errors import SettingsError
from gan_nst.evaluation.protocol import Protocol, prepare
from gan_nst.images.files import Picture, replacing

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
    from gan_nst.evaluation.inception import (
        Inception,
    )  # with torchvision behind it, seconds that random features need not

    network = Inception.load(path, dimension).to(device)
    network = network.to(memory_format=torch.channels_last)  # 1.8 times as fast on a CPU
    return Features(name, network, dimension, 299, path.name, pretrained.digest(path))


@torch.inference_mode()
def extract(features: Features, pictures: Iterable[Picture], protocol: Protocol) -> Tensor:
    """The features of pictures of any sizes, float64 (n, dimension) on the CPU."""
    device = next(features.network.parameters()).device
    found = [torch.empty(0, features.dimension)]
    for batch in _batches(pictures):
        inputs = torch.stack([prepare(picture, features.size, protocol) for picture in batch])
        inputs = inputs.to(device, memory_format=torch.channels_last)
        found.append(features.network(inputs).cpu())
    return torch.cat(found).double()


def extract_cached(
    features: Features, pictures: Iterable[Picture], protocol: Protocol, cache: Path | None
) -> Tensor:
    """`extract`, remembered in the folder `cache` under what the pictures show, so that no entry can be stale.

    pictures: can be gone through twice.
    """
    if cache is None:
        return extract(features, pictures, protocol)
    device = next(features.network.parameters()).device.type
    content = hashlib.sha256(
        f"{features.name} {features.digest} {protocol} {torch.__version__} {device}".encode()
    )
    count = 0
    for picture in pictures:
        count += 1
        content.update(str(picture.shape).encode())
        content.update(picture.tobytes())
    path = cache / f"features-{content.hexdigest()[:32]}.safetensors"
    if (known := _remembered(path, (count, features.dimension))) is not None:
        return known.double()
    found = extract(features, pictures, protocol)
    with suppress(OSError):  # a cache that cannot be written only costs time
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
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


def _batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    pictures = iter(pictures)
    while batch := list(islice(pictures, _BATCH)):
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
