"""Other projects' generators: ours compute the same as theirs, which are written out here with their own names; other
files are refused.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_nst.core.errors import WeightsError
from gan_nst.inference.foreign import recognise
from gan_nst.networks import build


class CycleganBlock(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        first = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU()]
        middle = [nn.Dropout(0.5)] if dropout else []
        second = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]
        self.conv_block = nn.Sequential(*first, *middle, *second)

    def forward(self, x):
        return x + self.conv_block(x)


class Cyclegan(nn.Module):
    """The ResNet generator of pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, width=4, blocks=9, dropout=False):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
        for w in (width, 2 * width):
            layers += [nn.Conv2d(w, 2 * w, 3, 2, 1), nn.InstanceNorm2d(2 * w), nn.ReLU()]
        layers += [CycleganBlock(4 * width, dropout) for _ in range(blocks)]
        for w in (4 * width, 2 * width):
            layers += [
                nn.ConvTranspose2d(w, w // 2, 3, 2, 1, output_padding=1),
                nn.InstanceNorm2d(w // 2),
                nn.ReLU(),
            ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class CartoonganNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width) + 0.5)
        self.shift = nn.Parameter(torch.randn(width))

    def forward(self, x):
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
        return (x - mean) / torch.sqrt(variance + 1e-9) * self.scale[:, None, None] + self.shift[
            :, None, None
        ]


class Cartoongan(nn.Module):
    """The published CartoonGAN generator: BGR in and out."""

    def __init__(self, width=4):
        super().__init__()
        w = width
        self.conv01_1, self.in01_1 = nn.Conv2d(3, w, 7), CartoonganNorm(w)
        self.conv02_1, self.conv02_2 = nn.Conv2d(w, 2 * w, 3, 2), nn.Conv2d(2 * w, 2 * w, 3)
        self.conv03_1, self.conv03_2 = nn.Conv2d(2 * w, 4 * w, 3, 2), nn.Conv2d(4 * w, 4 * w, 3)
        self.in02_1, self.in03_1 = CartoonganNorm(2 * w), CartoonganNorm(4 * w)
        for number in range(4, 12):
            for k in (1, 2):
                self.add_module(f"conv{number:02}_{k}", nn.Conv2d(4 * w, 4 * w, 3))
                self.add_module(f"in{number:02}_{k}", CartoonganNorm(4 * w))
        self.deconv01_1 = nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, 1)
        self.deconv01_2, self.in12_1 = nn.Conv2d(2 * w, 2 * w, 3), CartoonganNorm(2 * w)
        self.deconv02_1 = nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1)
        self.deconv02_2, self.in13_1 = nn.Conv2d(w, w, 3), CartoonganNorm(w)
        self.deconv03_1 = nn.Conv2d(w, 3, 7)

    def convolve(self, x, *names):
        """Convolutions in a row; every plain one reflects."""
        for name in names:
            layer = getattr(self, name)
            if isinstance(layer, nn.Conv2d):
                x = F.pad(x, (layer.kernel_size[0] // 2,) * 4, mode="reflect")
            x = layer(x)
        return x

    def forward(self, x):
        x = F.relu(self.in01_1(self.convolve(x, "conv01_1")))
        x = F.relu(self.in02_1(self.convolve(x, "conv02_1", "conv02_2")))
        x = F.relu(self.in03_1(self.convolve(x, "conv03_1", "conv03_2")))
        for number in range(4, 12):
            at = f"{number:02}"
            branch = F.relu(getattr(self, f"in{at}_1")(self.convolve(x, f"conv{at}_1")))
            x = x + getattr(self, f"in{at}_2")(self.convolve(branch, f"conv{at}_2"))
        x = F.relu(self.in12_1(self.convolve(x, "deconv01_1", "deconv01_2")))
        x = F.relu(self.in13_1(self.convolve(x, "deconv02_1", "deconv02_2")))
        return torch.tanh(self.convolve(x, "deconv03_1"))


def made(kind, **options):
    torch.manual_seed(0)
    return kind(**options).eval()


def ours(weights):
    foreign = recognise(weights, "file.pth")
    network = build(foreign.network)
    network.load_state_dict(foreign.weights)
    return network.eval()


def images(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 32, 40, generator=generator, dtype=dtype) * 2 - 1


@torch.no_grad()
def difference(a, b, x):
    """The largest difference between two generators' images, which span [-1, 1]."""
    first, second = a(x), b(x)
    assert first.std() > 0.05, "flat images prove nothing"
    return (first - second).abs().max().item()


def in_rgb(bgr):
    return lambda x: bgr(x.flip(1)).flip(1)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(("blocks", "width"), [(9, 4), (6, 4), (6, 3), (1, 8)])
def test_a_cyclegan_resnet_matches_up_to_rounding(blocks, width, dropout):
    theirs = made(Cyclegan, width=width, blocks=blocks, dropout=dropout)
    network = ours(theirs.state_dict())
    assert (network.spec.width, network.spec.blocks) == (width, blocks)
    assert difference(theirs.double(), network.double(), images()) < 1e-11  # measured: 4e-15


def test_a_cartoongan_matches_up_to_rounding():
    theirs = made(Cartoongan)
    network = ours(theirs.state_dict())
    assert difference(in_rgb(theirs.double()), network.double(), images()) < 1e-11  # measured: 4e-15
    assert difference(theirs, network, images()) > 0.1, (
        "RGB is as good as BGR, so this test would prove nothing"
    )


@pytest.mark.parametrize("kind", [Cyclegan, Cartoongan])
def test_the_published_size_matches_up_to_rounding_in_float32(kind):
    theirs = made(kind, width=64)
    network = ours(theirs.state_dict())
    theirs = in_rgb(theirs) if kind is Cartoongan else theirs
    assert difference(theirs, network, images(torch.float32)) < 1e-5  # measured: 2e-6


def prefixed(weights):
    return {f"module.{name}": weight for name, weight in weights.items()}


def with_old_statistics(weights):
    """Adds the statistics that PyTorch 0.3 saved for instance norms."""
    old = dict(weights)
    for name, weight in weights.items():
        match = re.fullmatch(r"model\.(\d+)\.bias", name)
        if match and name != "model.26.bias":
            norm, channels = f"model.{int(match[1]) + 1}", len(weight)
        elif re.fullmatch(r"model\.\d+\.conv_block\.\d\.bias", name):
            norm, channels = f"{name[:-6]}{int(name[-6]) + 1}", len(weight)
        else:
            continue
        old[f"{norm}.running_mean"], old[f"{norm}.running_var"] = torch.randn(channels), torch.rand(channels)
        old[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    assert len(old) == len(weights) + 3 * 23
    return old


def without_dead_biases(weights):
    return {name: w for name, w in weights.items() if not name.endswith("bias") or name == "model.26.bias"}


@pytest.mark.parametrize(
    "change", [prefixed, with_old_statistics, without_dead_biases, lambda w: prefixed(with_old_statistics(w))]
)
def test_unused_tensors_change_nothing(change):
    weights = made(Cyclegan).state_dict()
    plain, other = recognise(weights, "a"), recognise(change(weights), "b")
    assert other.network == plain.network
    assert other.weights.keys() == plain.weights.keys()
    assert all(torch.equal(other.weights[name], weight) for name, weight in plain.weights.items())


def changed(weights, **changes):
    """Replaces tensors; None removes one."""
    renamed = {name.replace("__", "."): weight for name, weight in changes.items()}
    return {name: w for name, w in {**weights, **renamed}.items() if w is not None}


CYCLEGAN, CARTOONGAN = made(Cyclegan).state_dict(), made(Cartoongan).state_dict()
ONE = torch.ones(4)
REFUSED = {
    "nothing": ({}, "first tensors: none"),
    "another network": (
        {"features.0.weight": ONE, "classifier.1.bias": ONE},
        r"classifier\.1\.bias, features",
    ),
    "U-Net": ({"model.model.0.weight": ONE, "model.model.1.model.1.weight": ONE}, "not a known"),
    "PatchGAN": (
        {"model.0.weight": ONE, "model.0.bias": ONE, "model.2.weight": ONE},
        r"first tensors: model\.0\.bias",
    ),
    "PatchGAN in parallel": ({"module.model.0.weight": ONE}, r"first tensors: model\.0\.weight"),
    "anti-aliased": (changed(CYCLEGAN, model__7__filt=ONE), r"model\.7\.filt is not one"),
    "batch norm": (
        changed(CYCLEGAN, model__2__weight=ONE, model__2__running_mean=ONE),
        r"model\.2\.weight is not one",
    ),
    "affine": (changed(CYCLEGAN, model__2__weight=ONE, model__2__bias=ONE), r"model\.2\.weight is not one"),
    "one tensor more": (changed(CYCLEGAN, model__30__weight=ONE), r"model\.30\.weight is not one"),
    "one tensor less": (changed(CYCLEGAN, model__4__weight=None), r"model\.4\.weight is missing"),
    "no last bias": (changed(CYCLEGAN, model__26__bias=None), r"model\.26\.bias is missing"),
    "no blocks": ({k: w for k, w in CYCLEGAN.items() if "conv_block" not in k}, "blocks"),
    "gray images": (
        changed(CYCLEGAN, model__1__weight=torch.ones(4, 1, 7, 7)),
        r"\(4, 1, 7, 7\) instead of",
    ),
    "no channels": (changed(CYCLEGAN, model__1__weight=torch.tensor(1.0)), "width"),
    "other kernels": (
        changed(CYCLEGAN, model__4__weight=torch.ones(8, 4, 4, 4)),
        r"model\.4\.weight has the shape",
    ),
    "a block less": (
        {k: w for k, w in CYCLEGAN.items() if "model.12." not in k},
        "is not one of its tensors",
    ),
    "cartoon, more": (changed(CARTOONGAN, conv12_1__weight=ONE), r"conv12_1\.weight is not one"),
    "cartoon, less": (changed(CARTOONGAN, in05_2__scale=None), r"in05_2\.scale is missing"),
    "cartoon, a live bias less": (changed(CARTOONGAN, deconv03_1__bias=None), r"deconv03_1\.bias is missing"),
    "cartoon, shape": (changed(CARTOONGAN, in05_2__scale=torch.ones(3)), r"in05_2\.scale has the shape"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_unknown_generator_is_refused_with_the_known_ones(what):
    weights, reason = REFUSED[what]
    with pytest.raises(WeightsError, match=reason) as raised:
        recognise(weights, "folder/file.pth")
    message = str(raised.value)
    assert message.startswith("folder/file.pth: ")
    assert "\n" not in message
    assert "conv01_1.weight" in message.split("; expected ")[1]
    assert "model.10.conv_block.1.weight" in message.split("; expected ")[1]
