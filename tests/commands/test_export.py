"""`gan-nst export`: a file that matches `translate`, or no file and a one-line error."""

import os

import numpy as np
import pytest
import torch
from helpers_runs import CONFIG, one_line
from PIL import Image
from safetensors import safe_open
from torch import nn

from gan_nst.commands import export as command
from gan_nst.core.options import TranslatorOptions
from gan_nst.inference.exported import Description, TrainingScale, export, load_exported
from gan_nst.networks import build
from gan_nst.runs.generators import load_translator


def make(path, seed=0, stem=0.3):
    """A tiny exported generator with large weights."""
    torch.manual_seed(seed)
    network = build({"name": "resnet", "width": 4, "blocks": 1, "downsamplings": 1, "eps": 1e-2})
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    nn.init.normal_(network.segments["stem"].convolution.weight, std=stem)
    scale = TrainingScale(load_size=36, crop_size=32)
    plain = {"network": network.spec.model_dump(), "translation": "ab", "method": "cyclegan"}
    export(network, Description(**plain, training_scale=scale), path)
    return path


@pytest.fixture
def source(tmp_path):
    return make(tmp_path / "source.safetensors")


@pytest.fixture
def photo(tmp_path):
    """A folder with an image of an awkward size."""
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "p.png")
    return tmp_path / "photos"


def translated(gan_nst, source, photo, output):
    code, _, err = gan_nst("translate", source, photo, "--output", output, "--precision", "float32")
    assert code == 0, err
    with Image.open(output / "p.png") as image:
        return np.array(image).astype(int)


def test_an_onnx_file_is_written_checked_and_translates(gan_nst, source, photo, tmp_path):
    out = tmp_path / "x.onnx"
    out.write_bytes(b"an older one")
    code, text, err = gan_nst("export", source, "--format", "onnx", "--output", out)
    assert code == 0, err
    assert err == ""
    (line,) = text.splitlines()
    assert line.startswith(f"{out}: ")
    assert "largest difference" in line
    assert "dB" in line
    made = translated(gan_nst, out, photo, tmp_path / "made")
    assert np.abs(made - translated(gan_nst, source, photo, tmp_path / "wanted")).max() <= 1
    assert sorted(os.listdir(tmp_path)) == [
        "experiments", "made", "photos", "source.safetensors", "wanted", "x.onnx",
    ]  # fmt: skip
    again = gan_nst("export", out, "--format", "pt2", "--output", tmp_path / "y.pt2")
    one_line(again, out, "cannot be exported again")


def test_an_int8_file_is_calibrated_on_the_given_images(gan_nst, source, photo, tmp_path, monkeypatch):
    import onnx

    written = []
    monkeypatch.setitem(command._LOWEST_PSNR, "int8", 15.0)  # these weights are not trained
    for number, folder in enumerate((photo, None)):
        out = tmp_path / f"{number}.onnx"
        more = [] if folder is None else ["--calibrate", folder]
        code, text, err = gan_nst(
            "export", source, "--format", "onnx", "--output", out, "--precision", "int8", *more
        )
        assert code == 0, err
        assert ("calibrating on demo images" in text) == (folder is None)
        written.append(out.read_bytes())
    assert written[0] != written[1]
    model = onnx.load(out)
    kinds = {w.name: w.data_type for w in model.graph.initializer}
    weights = [node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    eight = [name for name in weights if kinds.get(name) == onnx.TensorProto.INT8]
    assert len(eight) == 3  # down1 and the block's two; neither the stem nor the up-sampling layers
    assert b".py" not in written[0]


def test_a_program_translates(gan_nst, source, photo, tmp_path):
    out = tmp_path / "x.pt2"
    code, text, err = gan_nst("export", source, "--format", "pt2", "--output", out)
    assert code == 0, err
    assert len(text.splitlines()) == 1
    made = translated(gan_nst, out, photo, tmp_path / "made")
    assert np.abs(made - translated(gan_nst, source, photo, tmp_path / "wanted")).max() <= 1
    assert load_translator(out).takes_statistics


def test_a_run_is_exported_and_compared_on_its_own_test_images(gan_nst, tiny, tmp_path, monkeypatch):
    run, out = tmp_path / "run", tmp_path / "ba.safetensors"
    assert gan_nst("train", CONFIG, *tiny, "training.steps=1", "--output", run)[0] == 0
    seen = []
    compare = command.compare
    monkeypatch.setattr(command, "compare", lambda *given: seen.append(given[2]) or compare(*given))
    options = ["--format", "safetensors", "--direction", "ba", "--precision", "float16"]
    code, _, err = gan_nst("export", run, *options, "--output", out)
    assert code == 0, err
    with safe_open(out, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    loaded, description = load_exported(out)
    assert description.translation == "ba"
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    wanted = load_translator(run, TranslatorOptions(direction="ba")).generator.state_dict()
    stem = "segments.stem.convolution.weight"
    assert torch.equal(loaded.state_dict()[stem], wanted[stem].half().float())
    # Images of the test split; the drawn ones have 36 pixels.
    assert {image.shape for image in seen[0]} == {(32, 32, 3)}


def test_a_file_that_disagrees_with_the_translator_is_not_written(gan_nst, source, tmp_path, monkeypatch):
    other = load_exported(make(tmp_path / "other.safetensors", seed=1))[0]
    serialize = command.serialize
    monkeypatch.setattr(command, "serialize", lambda generator, *rest: serialize(other, *rest))
    out = tmp_path / "x.safetensors"
    out.write_bytes(b"an older one")
    for precision, part in (("float32", "does not agree"), ("float16", "float16 is too inaccurate")):
        result = gan_nst(
            "export", source, "--format", "safetensors", "--precision", precision, "--output", out
        )
        one_line(result, out, part, "dB")
        assert out.read_bytes() == b"an older one"
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


def test_a_program_converts_back_to_its_source(gan_nst, source, tmp_path):
    assert gan_nst("export", source, "--format", "pt2", "--output", tmp_path / "x.pt2")[0] == 0
    back = tmp_path / "back.safetensors"
    code, _, err = gan_nst("export", tmp_path / "x.pt2", "--format", "safetensors", "--output", back)
    assert (code, err) == (0, "")
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("left", [[], [b"damaged"]])
def test_a_run_without_a_readable_checkpoint_is_exported(gan_nst, source, tmp_path, left):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for content in left:
        (run / "checkpoints" / "step-0000001.pt").write_bytes(content)
    source.rename(run / "generator.safetensors")
    assert gan_nst("export", run, "--format", "pt2", "--output", tmp_path / "x.pt2")[0] == 0


def test_a_generator_that_overflows_float16_is_refused(gan_nst, tmp_path):
    source, out = make(tmp_path / "large.safetensors", stem=1e4), tmp_path / "x.onnx"
    options = ["--format", "onnx", "--precision", "float16", "--pixels", "float"]
    one_line(gan_nst("export", source, *options, "--output", out), out, "not written", "not finite")
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        (
            "x.pt2",
            ["--format", "pt2", "--precision", "int8"],
            ["pt2", "int8", "onnx: float32, float16, int8"],
        ),
        ("x.safetensors", ["--format", "safetensors", "--precision", "int8"], ["not available"]),
        ("x.pt", ["--format", "pt2"], ["x.pt", "give it that suffix"]),
        ("x.onnx", ["--format", "pt2"], ["x.onnx", ".pt2"]),
        ("none/x.onnx", ["--format", "onnx"], ["x.onnx", "its folder does not exist"]),
        ("folder.onnx", ["--format", "onnx"], ["folder.onnx", "is a folder"]),
        ("x.onnx", ["--format", "onnx", "--calibrate", "."], ["--calibrate", "float32"]),
        ("x.onnx", ["--format", "onnx", "--direction", "ba"], ["translates ab, not ba"]),
        ("x.safetensors", ["--format", "safetensors", "--pixels", "float"], ["--pixels"]),
        ("source.safetensors", ["--format", "safetensors"], ["is the source itself"]),
        (
            "x.onnx",
            ["--format", "onnx", "--precision", "int8", "--calibrate", "none"],
            ["none", "no such folder"],
        ),
        (
            "x.onnx",
            ["--format", "onnx", "--precision", "int8", "--calibrate", "folder.onnx"],
            ["no readable images"],
        ),
    ],
)
def test_mistakes(gan_nst, source, tmp_path, name, options, parts):
    (tmp_path / "folder.onnx").mkdir()
    before = sorted(os.listdir(tmp_path))
    one_line(gan_nst("export", source, "--output", tmp_path / name, *options), *parts)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_missing_source_is_reported(gan_nst, tmp_path):
    out = tmp_path / "x.onnx"
    one_line(gan_nst("export", tmp_path / "none", "--format", "onnx", "--output", out), "none", "no such run")
    missing = tmp_path / "none.safetensors"
    one_line(gan_nst("export", missing, "--format", "onnx", "--output", out), missing, "no such file")
    assert gan_nst("export", missing, "--format", "onnx", "--output", out)[1] == ""


@pytest.mark.parametrize("format", ["safetensors", "pt2"])
def test_what_a_killed_export_left_is_removed(gan_nst, source, tmp_path, format):
    out = tmp_path / f"x.{format}"
    (tmp_path / f".{out.name}.0123abcd.part").write_bytes(b"half")
    (tmp_path / f".other.{format}.0123abcd.part").write_bytes(b"another's")
    assert gan_nst("export", source, "--format", format, "--output", out)[0] == 0
    hidden = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".") and path.is_file())
    assert hidden == [f".other.{format}.0123abcd.part"]
