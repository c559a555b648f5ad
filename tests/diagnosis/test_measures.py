"""The measures of generators broken on purpose, compared with those of good ones."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan_nst.data.demo import make_demo
from gan_nst.diagnosis.measures import measure
from gan_nst.images.arrays import to_float, to_tensor, to_uint8
from gan_nst.images.files import find_images, read_image
from gan_nst.networks import build

COUNT, SIZE = 12, 64


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(photographs, cartoons) of the same scenes, uint8 (n, 3, h, w)."""
    root = tmp_path_factory.mktemp("demo")
    make_demo(root, size=SIZE, count=1, held_out=COUNT)
    return [
        torch.stack([to_tensor(read_image(path)) for path in find_images(root / f"test{domain}")])
        for domain in "AB"
    ]


def convolutional(upsampling, seed):
    """An untrained generator."""
    torch.manual_seed(seed)
    return build({"name": "resnet", "width": 8, "blocks": 1, "downsamplings": 1, "upsampling": upsampling})


class Transposed(nn.Module):
    """The image at half its size, brought back by a transposed convolution of random weights about one."""

    def __init__(self, kernel, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.up = nn.ConvTranspose2d(
            3, 3, kernel, stride=2, padding=kernel // 2, output_padding=kernel % 2, groups=3
        )
        nn.init.uniform_(self.up.weight, 0.5 / kernel, 1.5 / kernel)

    def forward(self, x):
        return self.up(F.avg_pool2d(x, 2)) * 0.5


@torch.no_grad()
def translated(images, network):
    return to_uint8(network(to_float(images)))


def stripes(period, direction):
    """A wave between -1 and 1, of shape (SIZE, SIZE)."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    wave = {"rows": y, "columns": x, "diagonal": y + x, "other diagonal": y - x}[direction]
    return torch.cos(2 * math.pi * wave / period + math.pi / 4) * math.sqrt(2)


def noise(images):
    return torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_true_translation_is_sound(demo):
    photographs, cartoons = demo
    found = measure(photographs, cartoons, cartoons.flip(0))
    assert found.diversity == pytest.approx(1)
    assert found.change > 0.1
    assert found.correlation > 0.3
    assert found.checkerboard == pytest.approx(1, abs=0.5)


def test_a_constant_generator_has_no_diversity(demo):
    photographs, cartoons = demo
    found = measure(photographs, cartoons[:1].expand_as(photographs), cartoons)
    assert found.diversity == 0
    assert found.checkerboard < 2
    gray = measure(photographs, torch.full_like(photographs, 127), cartoons)
    assert gray.diversity == 0
    assert math.isnan(gray.correlation)
    assert 0 < gray.checkerboard <= 1


def test_a_generator_that_hardly_looks_at_its_input_has_little_diversity(demo):
    photographs, cartoons = demo
    outputs = (0.9 * cartoons[:1].float() + 0.1 * cartoons.float()).round().to(torch.uint8)
    assert measure(photographs, outputs, cartoons).diversity == pytest.approx(0.1, abs=0.02)


def test_an_identity_changes_nothing(demo):
    photographs, cartoons = demo
    found = measure(photographs, photographs, cartoons)
    assert found.change == 0
    assert found.correlation == pytest.approx(1, abs=1e-5)
    assert found.diversity > 0.3
    assert found.checkerboard < 2


def test_change_is_the_mean_difference():
    black = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    half = black.clone()
    half[:, :, :8] = 51
    assert measure(black, half, black).change == pytest.approx(0.1)


def test_inverted_images_correlate_negatively(demo):
    photographs, cartoons = demo
    found = measure(photographs, 255 - photographs, cartoons)
    assert found.correlation == pytest.approx(-1, abs=1e-5)


def test_correlation_is_pearsons_averaged_over_the_images_that_are_not_flat(demo):
    photographs, cartoons = demo
    outputs = cartoons.clone()
    outputs[0] = 90
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    luma = [[(p.numpy() * weights).sum(0).ravel() for p in images] for images in (photographs, outputs)]
    expected = np.mean([np.corrcoef(x, y)[0, 1] for x, y in list(zip(*luma, strict=True))[1:]])
    assert measure(photographs, outputs, cartoons).correlation == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [48, 64])
def test_untrained_transposed_convolutions_leave_a_checkerboard(demo, size, seed):
    photographs, cartoons = (images[..., :size, :size] for images in demo)
    broken = measure(photographs, translated(photographs, convolutional("transposed", seed)), cartoons)
    sound = measure(photographs, translated(photographs, convolutional("resize", seed)), cartoons)
    assert broken.checkerboard > 5
    assert sound.checkerboard < 3


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_transposed_convolution_of_a_sound_image_leaves_a_checkerboard(demo, kernel):
    photographs, cartoons = demo
    outputs = translated(photographs, Transposed(kernel, 0))
    found = measure(photographs, outputs, cartoons)
    assert found.correlation > 0.7
    assert found.checkerboard > 5


@pytest.mark.parametrize("period", [2, 4])
@pytest.mark.parametrize("direction", ["rows", "columns", "diagonal", "other diagonal"])
def test_stripes_of_any_direction_are_found(demo, period, direction):
    photographs, cartoons = demo
    seen = (photographs + 4 * stripes(period, direction)).round().clamp(0, 255).to(torch.uint8)
    assert measure(cartoons, seen, cartoons).checkerboard > 5


@pytest.mark.parametrize("direction", ["rows", "columns", "diagonal"])
def test_stripes_too_faint_to_see_are_ignored(direction):
    """One level of blue, a ninth of a gray level, on images so smooth that their spectrum has nothing else."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    smooth = torch.stack([40 + 2 * y, 60 + x, 200 - x - y]).expand(4, -1, -1, -1).to(torch.uint8)
    faint = smooth.clone()
    faint[:, 2] = (faint[:, 2] + stripes(2, direction)).round().to(torch.uint8)
    found = measure(smooth, faint, smooth)
    assert found.change > 0
    assert found.checkerboard < 2


def test_noise_is_not_a_checkerboard(demo):
    photographs, cartoons = demo
    found = measure(photographs, noise(photographs), cartoons)
    assert found.checkerboard < 2
    assert abs(found.correlation) < 0.05


@pytest.mark.parametrize("direction", ["rows", "columns"])
def test_lines_of_one_direction_are_not_a_checkerboard(demo, direction):
    """They raise an entire axis of the spectrum, not a single point."""
    photographs, cartoons = demo
    lines = noise(photographs)[..., :1].expand_as(photographs)
    if direction == "columns":
        lines = lines.transpose(2, 3)
    assert measure(photographs, lines, cartoons).checkerboard < 3


def test_photographs_and_cartoons_have_no_checkerboard(demo):
    photographs, cartoons = demo
    assert measure(photographs, photographs, cartoons).checkerboard < 2
    assert measure(cartoons, cartoons, photographs).checkerboard < 2


def test_one_image_has_no_diversity_to_measure(demo):
    photographs, cartoons = demo
    found = measure(photographs[:1], cartoons[:1], cartoons)
    assert math.isnan(found.diversity)
    assert found.change > 0
    assert math.isfinite(found.correlation + found.checkerboard)
    assert math.isnan(measure(photographs, cartoons, cartoons[:1]).diversity)
    assert math.isnan(measure(photographs, cartoons, cartoons[:1].expand(4, -1, -1, -1)).diversity)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 24), (30, 17), (33, 100)])
def test_any_size_is_measured(height, width):
    images = torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8)
    found = measure(images, images, images)
    assert found.diversity == pytest.approx(1)
    assert found.checkerboard <= 1


def test_diversity_does_not_depend_on_the_number_of_images():
    """On average: outputs and targets of the same kind have a ratio of 1, three of them or forty."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=generator)
    assert measure(images, images, images[:3]).diversity == pytest.approx(1, abs=0.03)
    assert measure(images[:3], images[:3], images).diversity == pytest.approx(1, abs=0.03)
