"""`gan-nst data smooth`, `gan-nst data frames` and `gan-nst import` on the command line."""

import json

import numpy as np
import pytest
import torch
from helpers_runs import one_line

from gan_nst.core.files import temporary_path
from gan_nst.data.demo import draw_cartoon, make_scene
from gan_nst.data.smoothing import smooth_edges
from gan_nst.images.arrays import resize_image
from gan_nst.images.files import find_images, read_image, write_image
from gan_nst.inference.exported import load_exported
from gan_nst.networks import build


def test_smooth_writes_the_tree_at_the_requested_size(gan_nst, datasets, tmp_path):
    folder = datasets / "photo2cartoon" / "trainB"
    code, out, err = gan_nst("data", "smooth", folder, tmp_path / "out", "--size", 24)
    assert code == 0, err
    assert "12 images" in out
    for file in find_images(folder):
        expected = smooth_edges(resize_image(read_image(file), 24, "short_side"))
        assert np.array_equal(read_image(tmp_path / "out" / file.name), expected)
    assert gan_nst("data", "smooth", folder, tmp_path / "own")[0] == 0
    assert read_image(tmp_path / "own" / find_images(folder)[0].name).shape == (32, 32, 3)


def test_smooth_overwrites_no_image(gan_nst, datasets):
    folder = datasets / "photo2cartoon" / "trainB"
    before = [file.read_bytes() for file in find_images(folder)]
    one_line(gan_nst("data", "smooth", folder, folder), "overwrite an input")
    assert [file.read_bytes() for file in find_images(folder)] == before


def test_smooth_removes_what_a_killed_process_left(gan_nst, datasets, tmp_path):
    folder = datasets / "photo2cartoon" / "trainB"
    left = temporary_path(tmp_path / find_images(folder)[0].name)
    left.touch()
    assert gan_nst("data", "smooth", folder, tmp_path)[0] == 0
    assert not left.exists()


def test_cartoons_without_edges_are_reported_before_training(gan_nst, tmp_path):
    for split in ("trainA", "trainB"):
        for number in range(8):
            write_image(
                np.full((40, 40, 3), 20 * number, np.uint8), tmp_path / "flat" / split / f"{number}.png"
            )
    asked = ["data.domain=flat", f"data.root={tmp_path}", "data.load_size=36", "data.crop_size=32"]
    config = "experiments/photo2cartoon/cartoongan.yaml"
    code, _, err = gan_nst("train", config, "device=cpu", *asked, "data.held_out=0", "--dry-run")
    assert code == 0, err
    assert "hardly any edges" in err
    assert f"gan-nst data smooth {tmp_path / 'flat' / 'trainB'}" in err


def test_frames_takes_its_options(gan_nst, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "video.mkv"), "w") as video:
        stream = video.add_stream("ffv1", 24)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "bgr0"
        for scene in range(2):
            image = np.ascontiguousarray(draw_cartoon(make_scene(0, "film", scene), 128)[:96])
            for _ in range(72):
                video.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")))
        video.mux(stream.encode())
    code, out, err = gan_nst(
        "data", "frames", tmp_path / "video.mkv", tmp_path / "out", "--size", "48", "--every", "1m"
    )
    assert code == 0, err
    assert "kept 2 frames of 64 x 48 pixels" in out
    assert [read_image(file).shape for file in find_images(tmp_path / "out")] == [(48, 64, 3)] * 2
    one_line(gan_nst("data", "frames", tmp_path / "none.mkv", tmp_path / "more"), "none.mkv", "no such video")
    result = gan_nst("data", "frames", tmp_path / "video.mkv", tmp_path / "more", "--every", "2x")
    one_line(result, "--every: expected a time above 0")


def cyclegan_file(path):
    """A generator of pytorch-CycleGAN-and-pix2pix, of width 2 with one block."""
    network, weights = build({"name": "resnet", "width": 2, "blocks": 1, "upsampling": "transposed"}), {}
    places = ["1", "4", "7", "10.conv_block.1", "10.conv_block.5", "11", "14", "18"]
    for place, segment in zip(places, network.segments.values(), strict=True):
        for name, weight in segment.convolution.state_dict().items():
            weights[f"model.{place}.{name}"] = weight
    torch.save(weights, path)
    return network


def test_import_takes_its_options(gan_nst, datasets, tmp_path):
    network = cyclegan_file(tmp_path / "latest_net_G_B.pth")
    out = tmp_path / "out.safetensors"
    options = ["--load-size", 64, "--crop-size", 48, "--resize", "none", "--licence", "CC BY"]
    code, printed, err = gan_nst("import", tmp_path / "latest_net_G_B.pth", out, *options)
    assert code == 0, err
    assert f"gan-nst translate {out}" in printed
    generator, description = load_exported(out)
    assert description.translation == "ba"
    assert json.loads(description.training_scale.model_dump_json()) == {
        "load_size": 64,
        "crop_size": 48,
        "resize": "none",
    }
    assert description.licence == "CC BY"
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(generator(image), network(image))
    folder = datasets / "photo2cartoon" / "testA"
    assert gan_nst("translate", out, folder, "--output", tmp_path / "translated")[0] == 0
    code, _, err = gan_nst(
        "import", tmp_path / "latest_net_G_B.pth", tmp_path / "ab.safetensors", "--direction", "ab"
    )
    assert (code, load_exported(tmp_path / "ab.safetensors")[1].translation) == (0, "ab"), err


@pytest.mark.parametrize("unsupported", [torch.ones(64, 3, 7, 7).to_sparse(), torch.ones(64, 3, 7, 7) * 1j])
def test_import_refuses_unsupported_tensors_in_one_line(gan_nst, tmp_path, unsupported):
    torch.save({"conv01_1.weight": unsupported}, tmp_path / "x.pth")
    one_line(gan_nst("import", tmp_path / "x.pth", tmp_path / "out.safetensors"), "x.pth", "conv01_1.weight")
    assert not (tmp_path / "out.safetensors").exists()
