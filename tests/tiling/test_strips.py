"""Images that do not fit in memory are translated in strips, as if in one piece."""

import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_inference import Blur, describe
from torch import nn

from gan_nst.commands.importing import import_generator
from gan_nst.core.errors import DataError
from gan_nst.core.options import TranslatorOptions
from gan_nst.images.files import read_image
from gan_nst.inference.exported import load_exported
from gan_nst.inference.translator import Translator
from gan_nst.networks import build
from gan_nst.tiling import strips as scratch
from gan_nst.tiling.segments import fuse_upsampling, run_with_statistics, stages
from gan_nst.tiling.strips import Moments, Strips, passes, scratch_bytes

# Every option of a generator at least once.
KINDS = {
    "cyclegan": {"upsampling": "resize"},
    "as published": {"upsampling": "transposed"},
    "cartoongan": {
        "convolutions": 2,
        "upsampling": "transposed",
        "padding": "reflect",
        "affine": True,
        "eps": 1e-9,
    },
    "two convolutions, zeros": {"convolutions": 2, "upsampling": "transposed", "affine": True},
    "two convolutions, resize": {"convolutions": 2},
    "from the image": {"start_from": "image"},
    "from the smoothed image": {"start_from": "smoothed"},
    "one down-sampling": {"downsamplings": 1, "start_from": "smoothed"},
    "three": {"downsamplings": 3, "convolutions": 2, "padding": "reflect", "start_from": "smoothed"},
}


def generator(width=4, blocks=2, **spec):
    """A generator whose parts all matter: the weights, including scales and shifts, keep activations near 1."""
    torch.manual_seed(0)
    network = build({"name": "resnet", "width": width, "blocks": blocks, **spec})
    for name, weight in network.named_parameters():
        if weight.ndim == 4:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        else:
            nn.init.normal_(weight, 1.0 if name.endswith("scale") else 0.0, 0.3)
    return network


def landscape(height, width, seed=0, levels=256):
    """A strong gradient from top to bottom, noise that grows from left to right: every part has its own
    statistics.
    """
    rng = np.random.default_rng(seed)
    down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    values = 0.9 * down**2 + 0.3 * across * rng.random((height, width, 3)) + [0, 0.05, 0.1]
    dtype = np.uint8 if levels == 256 else np.uint16
    return (values.clip(0, 1) * (levels - 1)).astype(dtype)


def in_one_piece(network, precision="float32"):
    return Translator(network, describe(), "cpu", precision)


def in_strips(network, rows, image, precision="float32", **options):
    """A translator whose memory holds about this many rows of the image."""
    most = max(at.bytes_a_pixel for at in stages(network))
    memory = int(most * min(image.shape[:2]) * rows)
    return Translator(network, describe(), "cpu", precision, memory=memory, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(168, 72), (131, 67), (90, 201)])
def test_strips_give_the_result_of_one_piece(kind, size):
    network, image = generator(**KINDS[kind]), landscape(*size)
    parts = in_strips(network, 40, image)
    assert parts.fits(*size) == 0
    expected = in_one_piece(network)(image).astype(int)
    assert np.ptp(expected) > 100
    assert np.abs(parts(image) - expected).max() <= 1


@pytest.mark.parametrize("size", [(4000, 1), (4000, 3), (3, 900), (2500, 9)])
def test_thin_images_can_be_translated_in_strips(size):
    network, image = generator(start_from="smoothed"), landscape(*size)
    parts = in_strips(network, 40, np.empty((16, 16, 3)))
    assert parts.fits(*size) == 0
    assert np.abs(parts(image).astype(int) - in_one_piece(network)(image)).max() <= 1


@pytest.mark.parametrize("rows", [29, 33, 38, 47, 61, 90])
def test_strips_may_be_of_any_height(rows):
    network, image = generator(start_from="smoothed"), landscape(151, 60)
    parts = in_strips(network, rows, image)
    heights = set(_heights(network, image, parts.memory))
    assert any(152 % height for height in heights)
    assert np.abs(parts(image).astype(int) - in_one_piece(network)(image)).max() <= 1


def _heights(network, image, memory):
    strips = Strips(network, lambda r: r, *image.shape[:2], memory=memory, scratch=Path(), statistics=None)
    return [strips._strip_height(way) for way in strips.passes]


def test_the_published_width_works_in_strips():
    network, image = generator(width=64, blocks=9), landscape(104, 44)
    assert np.abs(in_strips(network, 40, image)(image).astype(int) - in_one_piece(network)(image)).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 17, 200])
def test_images_of_one_colour_can_be_translated_in_strips(kind, value):
    """They vary only by rounding, which no norm may amplify."""
    network, image = generator(**KINDS[kind]), np.full((131, 67, 3), value, np.uint8)
    expected = in_one_piece(network)(image).astype(int)
    assert np.abs(in_strips(network, 40, image)(image) - expected).max() <= 1


def test_statistics_of_single_strips_would_be_visible():
    """The negative control: translating parts separately gives a very different image."""
    network, image = generator(), landscape(168, 72)
    alone = np.concatenate([in_one_piece(network)(part) for part in np.split(image, 4)])
    assert np.abs(alone.astype(int) - in_one_piece(network)(image)).max() > 30


def test_sixteen_bit_images_can_be_translated_in_strips():
    network, image = generator(), landscape(140, 60, levels=65536)
    expected, found = in_one_piece(network)(image), in_strips(network, 40, image)(image)
    assert found.dtype == np.uint16
    assert np.abs(found.astype(int) - expected).max() <= 65535 * 1e-4
    assert len(np.unique(found)) > 2000


def test_bfloat16_differs_by_its_own_rounding():
    network, image = generator(start_from="image"), landscape(140, 60)
    exact = in_one_piece(network)(image).astype(int)
    one, parts = in_one_piece(network, "bfloat16")(image), in_strips(network, 40, image, "bfloat16")(image)
    rounding = np.abs(one - exact).mean()
    assert 0 < np.abs(parts.astype(int) - one).mean() < 2 * rounding


def test_given_statistics_apply_to_strips_like_to_one_piece():
    network, image = generator(), landscape(140, 60)
    asked = []

    def darker(name, mean, variance):
        asked.append((name, mean, variance))
        return mean + 0.1, 2 * variance

    expected = in_one_piece(network).translate([image], darker)[0].astype(int)
    of_whole, asked = asked, []
    found = in_strips(network, 40, image).translate([image], darker)[0]
    assert np.abs(found - expected).max() <= 1
    assert np.abs(expected - in_one_piece(network)(image)).max() > 5
    for (name, mean, variance), (other, *theirs) in zip(asked, of_whole, strict=True):
        assert name == other
        torch.testing.assert_close(mean, theirs[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(variance, theirs[1], rtol=1e-4, atol=1e-6)


def test_returning_the_statistics_unchanged_has_no_effect():
    network = generator()
    x = torch.rand(2, 3, 24, 32) * 2 - 1
    torch.testing.assert_close(run_with_statistics(network, x, lambda _, *own: own), network(x))


@pytest.mark.parametrize("offset", [0, 1000])
def test_moments_of_strips_are_those_of_one_piece(offset):
    x = torch.randn(1, 5, 37, 11, dtype=torch.float64) * torch.arange(1, 6)[:, None, None] + offset
    x += torch.linspace(-3, 3, 37, dtype=torch.float64)[:, None]
    moments = Moments()
    for part in x.split([1, 20, 16], dim=2):
        moments.add(part)
    mean, variance = moments.take()
    torch.testing.assert_close(mean, x.mean((2, 3)))
    torch.testing.assert_close(variance, x.var((2, 3), correction=0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_only_full_resolution_stages_are_recomputed(kind):
    computed = [at.name for way in passes(generator(**KINDS[kind])) for at in way.chain]
    again = {name for name in computed if computed.count(name) > 1}
    assert again == {"stem", f"up{KINDS[kind].get('downsamplings', 2)}"}
    assert all(computed.count(name) == 2 for name in again)


def test_the_estimated_scratch_space_is_what_is_used(monkeypatch, tmp_path):
    """The peak size of the open scratch files."""
    live, most = {}, [0]

    class Watched(scratch.ScratchFile):
        def write(self, rows, x):
            super().write(rows, x)
            if id(self) not in live:
                weakref.finalize(self, live.pop, id(self))
            live[id(self)] = os.fstat(self._file.fileno()).st_size
            most[0] = max(most[0], sum(live.values()))

    monkeypatch.setattr("gan_nst.tiling.strips.ScratchFile", Watched)
    network, image = generator(blocks=3), landscape(160, 64)
    in_strips(network, 40, image, scratch=tmp_path)(image)
    assert most[0] == scratch_bytes(passes(network)) * 160 * 64
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_reported_before_computing(tmp_path):
    network, image = generator(), landscape(200, 400)
    translator = Translator(network, describe(), "cpu", memory=100_000, scratch=tmp_path)
    with pytest.raises(DataError, match=r"^an image 200 pixels wide needs at least 0.1 GiB; raise --memory$"):
        translator(image)


def test_too_little_disk_space_is_reported_before_computing(monkeypatch, tmp_path):
    usage = scratch.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda folder: usage)
    image = landscape(160, 64)
    with pytest.raises(DataError, match=r"0 MB free, but the scratch file needs \d+ MB; give a folder"):
        in_strips(generator(), 40, image, scratch=tmp_path)(image)


def test_a_full_disk_is_reported(monkeypatch, tmp_path):
    class Full:
        def seek(self, place): ...

        def write(self, data):
            raise OSError(28, "No space left on device")

    store = scratch.ScratchFile(tmp_path)
    store._file.close()
    store._file = Full()
    with pytest.raises(DataError, match=r"scratch file could not be written \(No space left on device\)"):
        store.write(range(0, 2), torch.zeros(1, 1, 2, 3))


def test_an_invalid_scratch_folder_is_reported(tmp_path):
    image = landscape(160, 64)
    with pytest.raises(DataError, match="missing: cannot hold a scratch file"):
        in_strips(generator(), 40, image, scratch=tmp_path / "missing")(image)


def test_a_network_without_segments_cannot_be_translated_in_strips():
    translator = Translator(Blur(), describe(), "cpu", memory=1_000_000)
    with pytest.raises(DataError, match=r"^300x200 pixels need about 0\.1 GiB, and this file cannot"):
        translator(landscape(200, 300))


def test_batches_fit_in_memory(monkeypatch):
    network, images = generator(), [landscape(40, 48, seed) for seed in range(5)]
    translator = Translator(
        network,
        describe(),
        "cpu",
        precision="float32",
        memory=in_strips(network, 40 * 2.5, images[0]).memory,
    )
    assert translator.fits(40, 48) == 2
    expected, sizes = [in_one_piece(network)(image) for image in images], []
    monkeypatch.setattr(translator.generator, "forward", _counting(translator.generator.forward, sizes))
    np.testing.assert_array_equal(translator.translate(images), expected)
    assert sizes == [2, 2, 1]


def _counting(forward, sizes):
    def counted(batch):
        sizes.append(len(batch))
        return forward(batch)

    return counted


def test_the_default_memory_is_one_and_a_half_gibibytes():
    assert TranslatorOptions.memory == 1.5 * 2**30


@pytest.fixture(scope="module")
def published(pretrained_weights, tmp_path_factory):
    file = tmp_path_factory.mktemp("published") / "hayao.safetensors"
    import_generator(pretrained_weights / "cartoongan_hayao_fp16.pth", file)
    return fuse_upsampling(load_exported(file)[0])


def test_a_published_generator_on_a_photograph(published, test_data):
    """Prints the error of bfloat16 (run pytest with -s)."""
    image = read_image(sorted((test_data / "photo2hayao" / "testA").iterdir())[0])
    expected = in_one_piece(published)(image).astype(int)
    exact = np.abs(in_strips(published, 60, image)(image) - expected)
    half = in_one_piece(published, "bfloat16")(image).astype(int)
    differences = {
        "strips": exact,
        "bfloat16": np.abs(half - expected),
        "bfloat16, strips": np.abs(in_strips(published, 60, image, "bfloat16")(image) - half),
    }
    for name, found in differences.items():
        print(
            f"{name}: largest {found.max()}, 99.9th percentile {np.percentile(found, 99.9)}, mean {found.mean():.3f}"
        )
    assert exact.max() <= 1
    assert differences["bfloat16, strips"].max() <= 16
    assert np.percentile(differences["bfloat16, strips"], 99.9) <= 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none")
@pytest.mark.parametrize("kind", KINDS)
def test_strips_give_the_result_of_one_piece_on_a_gpu(kind):
    network, image = generator(**KINDS[kind]), landscape(168, 72)
    memory = in_strips(network, 40, image).memory
    parts = Translator(network, describe(), "cuda", "float32", memory=memory)
    assert parts.fits(168, 72) == 0
    expected = Translator(network, describe(), "cuda", "float32")(image).astype(int)
    assert np.abs(parts(image) - expected).max() <= 1
