"""Feature networks through which sets of images are compared: the FID Inception network, a lower part of it, or fixed
random convolutions.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gan_nst.core import pretrained
from gan_nst.core.errors import DataError, WeightsError, counted
from gan_nst.core.files import atomic_write, remove_temporaries
from gan_nst.core.options import FeatureName
from gan_nst.images.arrays import ImageArray, to_tensor

Metric = Literal["frechet", "kernel", "precision", "recall"]
Protocol = Literal["clean", "legacy"]

DESCRIPTIONS: dict[Protocol, str] = {
    "clean": "anti-aliased bicubic (Pillow) on float values, clipped to 0..255, then (x - 128) / 128",
    "legacy": "bilinear without anti-aliasing (torch) on float values, then 2 x / 255 - 1, as pytorch-fid does",
}

# torch-fidelity and pytorch-fid offer the same file, converted from the TensorFlow graph of 2015-12-05.
INCEPTION = pretrained.Pretrained(
    "the FID Inception network",
    ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
# Enough for the lower features.
INCEPTION_PART = pretrained.Pretrained(
    "the FID Inception network up to its 768 features",
    (*INCEPTION.names, "inception_fid_to_mixed7a.pth"),
    INCEPTION.url,
)
_BATCH = 16
_CLASSES = 1008  # of the TensorFlow graph; torchvision's layers have the same names


@dataclass(frozen=True)
class Features:
    """A feature network, with what has to be reported next to every number computed through it.

    network: float32 (n, 3, size, size), about [-1, 1], to (n, dimension). file, digest: its weights' file (None for
    random features) and the SHA-256 of the weights.
    """

    name: str
    network: nn.Module
    dimension: int
    size: int
    file: str | None
    digest: str

    def key(self, metric: Metric) -> str:
        """The JSON key of a score computed through these features."""
        return score_key(self.name, metric)


def score_key(features: str, metric: Metric) -> str:
    """The JSON key of a score computed through the named features: "fid" for the standard features alone, "fid_768"
    or "frechet_random" for others.
    """
    if features == "random":
        return f"{metric}_random"
    standard = {"frechet": "fid", "kernel": "kid"}.get(metric, metric)
    return standard + features.removeprefix("inception").replace("-", "_")


def choose(name: str, device: torch.device, weights: Path | None = None, download: bool = False) -> Features:
    """The named feature network; "auto" is the best one available.

    weights: a file of Inception weights, instead of looking for one. download: fetches them if they are not found.
    Raises WeightsError when an explicit request cannot be met.
    """
    if name == "auto":
        name = best_available(weights, download)
    if name == "random":
        network = _RandomNetwork()
        content = hashlib.sha256(b"".join(kernel.numpy().tobytes() for kernel in network.kernels))
        return Features(name, network.to(device), 2 * sum(network.WIDTHS[1:]), 64, None, content.hexdigest())
    dimension = 2048 if name == "inception" else int(name.removeprefix("inception-"))
    wanted = INCEPTION if name == "inception" else INCEPTION_PART
    if download and weights is None:
        pretrained.fetch(wanted)
    part = ", or use features inception-768 with a part of the network" if name == "inception" else ""
    path = pretrained.require(
        wanted, weights, f"give its path (--weights, evaluation.weights), or let --download fetch it{part}"
    )
    inception = load_inception(path, dimension).to(device)
    inception = inception.to(memory_format=torch.channels_last)  # 1.8 times as fast on a CPU
    return Features(name, inception, dimension, 299, path.name, pretrained.digest(path))


def best_available(weights: Path | None = None, download: bool = False) -> FeatureName:
    """The name of the best features available: Inception, else the part of it that is found, else random ones."""
    if download or pretrained.find(INCEPTION, weights) is not None:
        if weights is not None and "Mixed_7c.branch1x1.conv.weight" not in pretrained.load(weights):
            return "inception-768"
        return "inception"
    return "random" if pretrained.find(INCEPTION_PART) is None else "inception-768"


def load_inception(path: Path, dimension: int) -> nn.Module:
    """The FID Inception network up to its 64, 192, 768 or 2048 features, from the full file or from its lower part.

    Maps images (n, 3, 299, 299), about [-1, 1], to features (n, dimension). Built from torch-fidelity's blocks, since
    its own class unpickles the file, insists on every layer and resizes in its own way. Raises WeightsError when a
    layer is missing or the file belongs to another network.
    """
    # Imports torchvision: seconds that random features need not spend.
    from torch_fidelity import feature_extractor_inceptionv3 as blocks

    convolution = blocks.BasicConv2d
    with torch.device("meta"):  # draws no initial weights
        stages: dict[int, dict[str, nn.Module]] = {
            64: {
                "Conv2d_1a_3x3": convolution(3, 32, kernel_size=3, stride=2),
                "Conv2d_2a_3x3": convolution(32, 32, kernel_size=3),
                "Conv2d_2b_3x3": convolution(32, 64, kernel_size=3, padding=1),
                "MaxPool_1": nn.MaxPool2d(3, stride=2),
            },
            192: {
                "Conv2d_3b_1x1": convolution(64, 80, kernel_size=1),
                "Conv2d_4a_3x3": convolution(80, 192, kernel_size=3),
                "MaxPool_2": nn.MaxPool2d(3, stride=2),
            },
            768: {
                "Mixed_5b": blocks.InceptionA(192, pool_features=32),
                "Mixed_5c": blocks.InceptionA(256, pool_features=64),
                "Mixed_5d": blocks.InceptionA(288, pool_features=64),
                "Mixed_6a": blocks.InceptionB(288),
                "Mixed_6b": blocks.InceptionC(768, channels_7x7=128),
                "Mixed_6c": blocks.InceptionC(768, channels_7x7=160),
                "Mixed_6d": blocks.InceptionC(768, channels_7x7=160),
                "Mixed_6e": blocks.InceptionC(768, channels_7x7=192),
            },
            2048: {
                "Mixed_7a": blocks.InceptionD(768),
                "Mixed_7b": blocks.InceptionE_1(1280),
                "Mixed_7c": blocks.InceptionE_2(2048),
            },
        }
        network = nn.Sequential()
        for width, layers in stages.items():
            for name, layer in layers.items() if width <= dimension else ():
                network.add_module(name, layer)
        network.add_module("mean", _GlobalMean())
    counts = {name: torch.tensor(0) for name in network.state_dict() if name.endswith("num_batches_tracked")}
    weights = counts | pretrained.load(path)
    what = f"the FID Inception network for {dimension} features"
    if len(weights.get("fc.bias", weights.get("fc.weight", range(_CLASSES)))) != _CLASSES:
        raise WeightsError(f"{path}: not {what} (it has other classes, as torchvision's Inception has)")
    pretrained.fill(network, weights, path, what)
    return network


class _GlobalMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


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


def prepare(image: ImageArray, size: int, protocol: Protocol) -> Tensor:
    """An image, RGB uint8 (h, w, 3), as a network's input: float32 (3, size, size), about [-1, 1].

    "clean" follows Parmar et al. 2022 (arXiv:2104.11222): each channel is resized as floats, so that nothing is
    rounded, with a filter that grows with the scale, so that nothing aliases. "legacy" is what pytorch-fid does, and
    with it most published numbers.
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


@torch.inference_mode()
def extract(features: Features, images: Iterable[ImageArray], protocol: Protocol) -> Tensor:
    """The features of images of any sizes, float64 (n, dimension) on the CPU, computed batch by batch.

    Raises DataError when they are not finite.
    """
    device = next(features.network.parameters()).device
    batches = [torch.empty(0, features.dimension)]
    for batch in _batches(images):
        inputs = torch.stack([prepare(image, features.size, protocol) for image in batch])
        inputs = inputs.to(device, memory_format=torch.channels_last)
        batches.append(features.network(inputs).cpu())
    found = torch.cat(batches).double()
    if broken := int((~found.isfinite()).any(1).sum()):
        source = features.file or "random weights"
        raise DataError(
            f"{features.name} features: not finite for {counted(broken, 'image')} of {len(found)}; replace {source} or "
            "choose another device"
        )
    return found


def extract_cached(
    features: Features, images: Iterable[ImageArray], protocol: Protocol, cache: Path | None
) -> Tensor:
    """`extract`, cached in a folder under a hash of the images' pixels, so that no entry can be stale.

    images: iterated over twice.
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
    if (known := _read_cached(path, (count, features.dimension))) is not None:
        return known.double()
    found = extract(features, images, protocol)
    with suppress(OSError):  # a cache that cannot be written only costs time
        cache.mkdir(parents=True, exist_ok=True)
        remove_temporaries(cache, {path.name})
        with atomic_write(path) as unfinished:
            unfinished.write_bytes(save({"features": found.float()}))  # float32 is what the network gave
    return found


def _read_cached(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The features in a file; None unless they have this shape and are finite."""
    if not path.is_file():
        return None
    with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
        known: Tensor = file.get_tensor("features")
        if known.shape == shape and known.is_floating_point() and known.isfinite().all():
            return known
    return None


def _batches(images: Iterable[ImageArray]) -> Iterator[list[ImageArray]]:
    images = iter(images)
    while batch := list(islice(images, _BATCH)):
        yield batch
