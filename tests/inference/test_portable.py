"""Files for other programs: they compute what the generator does at any size, and hostile ones execute nothing."""

import copy
import io
import json
import os
import pickle
import sys
import zipfile
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers_inference import refusal
from torch import nn

from gan_nst.core.errors import CheckpointError, SettingsError
from gan_nst.images.arrays import to_tensor
from gan_nst.inference.exported import KEY, PortableDescription, TrainingScale
from gan_nst.inference.portable.check import compare
from gan_nst.inference.portable.onnx import ImageModel, OnnxGenerator, require_packages, write_onnx
from gan_nst.inference.portable.program import run_program, write_program
from gan_nst.inference.translator import Translator
from gan_nst.networks import build
from gan_nst.runs.generators import load_generator
from gan_nst.tiling.strips import pad_to_multiple

SIZES = [(1, 1, 7), (1, 7, 1), (1, 3, 5), (2, 9, 8), (1, 16, 16), (3, 17, 31), (1, 64, 40), (2, 33, 70)]

# Together they cover every option of a generator.
KINDS = [
    ({"affine": True, "start_from": "image"}, "uint8"),
    ({"convolutions": 2, "upsampling": "transposed", "padding": "reflect", "eps": 1e-3}, "uint8"),
    ({"downsamplings": 2, "start_from": "smoothed"}, "float"),
]


def generator(seed=0, **options):
    """A tiny generator with large weights, so that losses of precision become visible."""
    torch.manual_seed(seed)
    network = build({"name": "resnet", "width": 4, "blocks": 1, "downsamplings": 1, "eps": 1e-2, **options})
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    return network.requires_grad_(False).eval()


def describe(network, **options):
    scale = TrainingScale(load_size=36, crop_size=32)
    plain = {"network": network.spec.model_dump(), "translation": "ab", "method": "cyclegan"}
    return PortableDescription(**plain, training_scale=scale, **options)


def images(n, h, w, seed=0):
    return torch.randint(
        0, 256, (n, 3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def by_hand(network, batch):
    """The generator's result, 0 to 255, not rounded."""
    padded = pad_to_multiple(batch.double() / 127.5 - 1, network.multiple)
    made = network.double()(padded)[:, :, : batch.shape[2], : batch.shape[3]]
    network.float()
    return ((made + 1) * 127.5).clamp(0, 255)


def furthest(run, network, pixels="uint8", sizes=SIZES):
    distances = []
    for size in sizes:
        batch = images(*size)
        made = run(batch).double() if pixels == "uint8" else run(batch / 255).double() * 255
        assert made.shape == batch.shape
        distances.append((made - by_hand(network, batch)).abs().max().item())
    return max(distances)


@pytest.mark.parametrize(("options", "pixels"), KINDS, ids=["image", "transposed", "smoothed"])
def test_an_onnx_file_matches_the_generator(tmp_path, options, pixels):
    network = generator(**options)
    write_onnx(network, describe(network, pixels=pixels), tmp_path / "x.onnx")
    session = OnnxGenerator(tmp_path / "x.onnx")
    assert furthest(session.run, network, pixels) < (0.51 if pixels == "uint8" else 0.02)  # only rounding
    batch = images(1, 20, 24)
    distance = session(batch / 127.5 - 1) - by_hand(network, batch) / 127.5 + 1
    assert distance.abs().max() < (0.51 / 127.5 if pixels == "uint8" else 1e-4)


def test_a_float16_program_matches_the_generator(tmp_path):
    network = generator(convolutions=2, upsampling="transposed", affine=True).half().float()
    write_program(network, describe(network, precision="float16"), tmp_path / "x.pt2")
    assert furthest(run_program(tmp_path / "x.pt2"), network) < 0.51
    loaded, description = load_generator(tmp_path / "x.pt2", None)
    assert description.precision == "float16"
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


@pytest.fixture(scope="module")
def written_files(tmp_path_factory):
    """A generator, and its files: float32 and float16 as ONNX, and a program."""
    folder, network = tmp_path_factory.mktemp("portable"), generator()
    write_onnx(network, describe(network), folder / "x.onnx")
    write_onnx(network, describe(network, precision="float16"), folder / "half.onnx")
    write_program(network, describe(network), folder / "x.pt2")
    return network, folder


def test_a_program_matches_the_generator(written_files):
    network, folder = written_files
    assert furthest(run_program(folder / "x.pt2"), network) < 0.51


def test_a_norm_is_exact_for_images_far_from_gray(written_files):
    network, folder = written_files
    batch = 250 + images(1, 200, 300) % 3
    assert (OnnxGenerator(folder / "x.onnx").run(batch) - by_hand(network, batch)).abs().max() < 0.7


def test_a_float16_file_computes_in_float16_except_for_its_norms(written_files):
    network, folder = written_files
    model = onnx.load(folder / "half.onnx")
    kinds = {w.name: w.data_type for w in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    norms = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    assert len(convolutions) == len(norms) + 1 == 6
    assert {kinds[node.input[1]] for node in convolutions} == {onnx.TensorProto.FLOAT16}
    assert {kinds[node.input[1]] for node in norms} == {onnx.TensorProto.FLOAT}
    assert 0.51 < furthest(OnnxGenerator(folder / "half.onnx").run, network) < 5
    half = ImageModel(copy.deepcopy(network).half(), "uint8", torch.float16)
    assert 0.6 < furthest(half, network) < 8


def test_float16_overflows_like_on_a_gpu():
    network = generator()
    network.segments["stem"].convolution.weight.fill_(1e4)
    assert ImageModel(network, "float")(torch.ones(1, 3, 16, 16)).isfinite().all()
    assert (
        not ImageModel(copy.deepcopy(network).half(), "float", torch.float16)(torch.ones(1, 3, 16, 16))
        .isfinite()
        .any()
    )


def test_an_onnx_file_describes_itself_without_local_paths(written_files):
    network, folder = written_files
    model = onnx.load(folder / "x.onnx")
    assert [entry.key for entry in model.metadata_props] == [KEY]
    description = json.loads(model.metadata_props[0].value)
    expected = {"precision": "float32", "pixels": "uint8", "smallest": 1, "translation": "ab"}
    assert expected.items() <= description.items()
    assert description["network"] == network.spec.model_dump()
    assert model.opset_import[0].version >= 18
    for values, name in ((model.graph.input, "images"), (model.graph.output, "translated")):
        assert [value.name for value in values] == [name]
        sizes = [d.dim_param or d.dim_value for d in values[0].type.tensor_type.shape.dim]
        assert sizes == ["batch", 3, "height", "width"]
    for file in ("x.onnx", "x.pt2"):
        assert b".py" not in (folder / file).read_bytes()


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_loaded_file_translates(written_files, suffix):
    network, folder = written_files
    loaded, description = load_generator(folder / f"x.{suffix}", None)
    assert description == describe(network)
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)
    made = Translator(loaded, description, "cpu", "float32")(image)
    wanted = Translator(network, describe(network), "cpu", "float32")(image)
    assert np.abs(made.astype(int) - wanted).max() <= 1


def test_the_comparison_detects_differences(written_files):
    network, folder = written_files
    translator = Translator(network, describe(network), "cpu", "float32")
    real = [np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)]
    run = OnnxGenerator(folder / "x.onnx").run
    same = compare(run, translator, real, "uint8")
    assert same.largest <= 1
    assert same.psnr > 60
    assert same.images == 8
    brighter = compare(lambda x: (run(x).int() + 3).clamp(max=255).to(torch.uint8), translator, real, "uint8")
    assert 3 <= brighter.largest <= 4
    assert 37 < brighter.psnr < 40
    with pytest.raises(CheckpointError, match="made"):
        compare(lambda x: run(x)[..., :-1], translator, real, "uint8")
    with pytest.raises(CheckpointError, match="not finite"):
        compare(lambda x: x.float() * torch.nan, translator, real, "uint8")


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 64)])
@pytest.mark.parametrize("value", [0, 17, 255])
def test_images_of_one_colour_agree_too(written_files, size, value):
    """Their rounding errors, which norms would amplify, become 0 in the file as in the network."""
    network, folder = written_files
    image = np.full((*size, 3), value, np.uint8)
    expected = Translator(network, describe(network), "cpu", "float32")(image)
    found = OnnxGenerator(folder / "x.onnx").run(to_tensor(image)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1


refused = partial(refusal, partial(load_generator, direction=None))


def altered(folder, target, change):
    model = onnx.load(folder / "x.onnx")
    change(model)
    target.write_bytes(model.SerializeToString())
    return target


def _another_output(model):
    model.graph.node[-1].output[0] = model.graph.output[0].name = "scores"


def _outside(model):
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../etc/passwd")


def _hidden_outside(model):
    attribute = model.graph.node[0].attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    attribute.t.external_data.add(key="location", value="secret")


def _with_a_false_size(model):
    model.graph.initializer[0].dims[0] = 2**40


def _described_as(text):
    def change(model):
        model.metadata_props[0].value = text

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda model: model.ClearField("metadata_props"), "not one that gan-nst wrote"),
        (_described_as("{"), "not a valid description of a generator"),
        (_described_as("[" * 100_000), "not a valid description of a generator"),
        (_described_as('{"format": 1}'), "not a valid description of a generator"),
        (_another_output, "not an image-to-image model"),
        (_outside, "in other files"),
        (_hidden_outside, "in other files"),
        (_with_a_false_size, "onnxruntime cannot run it"),
        (lambda model: model.graph.node[0].ClearField("input"), "onnxruntime cannot run it"),
    ],
)
def test_a_foreign_onnx_file_is_refused(written_files, tmp_path, change, part):
    assert part in refused(altered(written_files[1], tmp_path / "x.onnx", change))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04pickle", b"\xff" * 100, b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["x.onnx", "x.pt2"])
def test_a_file_of_neither_kind_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name)


@pytest.mark.parametrize("name", ["x.onnx", "x.pt2"])
def test_a_truncated_or_missing_file_or_a_folder_is_refused(written_files, tmp_path, name):
    content = (written_files[1] / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    refused(tmp_path / name)
    assert "no such file" in refused(tmp_path / "none" / name)
    (tmp_path / "folder" / name).mkdir(parents=True)
    assert "Is a directory" in refused(tmp_path / "folder" / name)


class Trap:
    """Unpickling it creates a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def repacked(folder, target, replace=(), compression=zipfile.ZIP_STORED):
    """The program's archive with some members replaced."""
    with zipfile.ZipFile(folder / "x.pt2") as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = old.read(name)
            for part, change in replace:
                content = change(content) if part in name else content
            new.writestr(name, content)
    return target


def test_a_pickle_in_a_program_is_never_executed(written_files, tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    (tmp_path / "sprung").mkdir()
    with pytest.raises(FileExistsError):  # the trap works
        pickle.loads(trap)
    (tmp_path / "sprung").rmdir()
    (tmp_path / "x.pt2").write_bytes(trap)
    refused(tmp_path / "x.pt2")
    inside = [("sample_inputs", lambda old: trap), ("models/model.json", lambda old: b"__import__('os')")]
    load_generator(repacked(written_files[1], tmp_path / "inside.pt2", inside), None)
    pickled = [
        ("weights/weight_0", lambda old: trap),
        ("model_weights_config", lambda old: old.replace(b'"use_pickle": false', b'"use_pickle": true')),
    ]
    assert "cannot be read" in refused(repacked(written_files[1], tmp_path / "weights.pt2", pickled))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "replace",
    [
        [("model_weights_config", lambda old: b"[]")],
        [("model_weights_config", lambda old: old.replace(b'{"as_int": 4}', b'{"as_int": 1099511627776}'))],
        [("model_weights_config", lambda old: old.replace(b'{"as_int": 4}', b'{"as_int": -4}'))],
        [("model_weights_config", lambda old: old.replace(b'"weight_0"', b'"../../../etc/passwd"'))],
        [("model_weights_config", lambda old: old.replace(b'"dtype": 7', b'"dtype": 99'))],
        [("weights/weight_0", lambda old: old[:-4])],
        [("weights/weight_0", lambda old: b"\xff" * len(old))],
        [(f"extra/{KEY}", lambda old: b"{}")],
        [(f"extra/{KEY}", lambda old: b"\xff")],
        [(f"extra/{KEY}", lambda old: old.replace(b'"width":4', b'"width":8'))],
        [(f"extra/{KEY}", lambda old: old.replace(b'"resnet"', b'"patchgan"'))],
    ],
)
def test_an_inconsistent_program_is_refused(written_files, tmp_path, replace):
    refused(repacked(written_files[1], tmp_path / "x.pt2", replace))


def test_a_compressed_program_is_refused(written_files, tmp_path):
    assert "compressed" in refused(repacked(written_files[1], tmp_path / "x.pt2", (), zipfile.ZIP_DEFLATED))


def test_a_program_of_something_else_is_refused(tmp_path):
    content = io.BytesIO()
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(2),)), content)
    (tmp_path / "x.pt2").write_bytes(content.getvalue())
    assert "not a program that gan-nst wrote" in refused(tmp_path / "x.pt2")


def test_int8_of_a_generator_without_inner_layers_is_refused(tmp_path):
    """onnxruntime would quantise every layer."""
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    network.multiple = 1
    description = describe(generator(), precision="int8")
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(CheckpointError, match=r"x\.onnx: int8 needs a generator with"):
        write_onnx(network, description, tmp_path / "x.onnx", [image])


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=rf'{name}: pip install "gan_nst\[export\]"'):
        require_packages(to_write=True)


def test_a_file_that_fails_on_an_image_is_reported(written_files, monkeypatch):
    session = OnnxGenerator(written_files[1] / "x.onnx")
    monkeypatch.setattr(
        session, "_session", onnxruntime.InferenceSession.__new__(onnxruntime.InferenceSession)
    )
    with pytest.raises(CheckpointError, match=r"x\.onnx: failed on"):
        session.run(images(1, 8, 8))
