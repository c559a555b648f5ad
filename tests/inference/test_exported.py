"""Exported generators: equal ones give equal files, and an invalid file is reported in one line."""

import json
import os
import struct
from functools import partial

import pytest
import torch
from helpers_inference import refusal
from safetensors import safe_open
from safetensors.torch import save, save_file

from gan_nst.core.errors import CheckpointError, one_line
from gan_nst.inference.exported import Description, TrainingScale, export, load_exported, to_json
from gan_nst.networks import build

SPEC = {"name": "resnet", "width": 4, "blocks": 1, "downsamplings": 1}


def generator(seed=0, **options):
    torch.manual_seed(seed)
    return build({**SPEC, **options})


def description(network, **options):
    return Description(
        **{
            "network": network.spec.model_dump(),
            "translation": "ab",
            "training_scale": TrainingScale(load_size=36, crop_size=32),
            "method": "cyclegan",
            "scores": {"ssim": 0.5, "error": 0.25},
            **options,
        }
    )


@pytest.fixture
def network():
    return generator()


@pytest.fixture
def file(tmp_path, network):
    export(network, description(network), tmp_path / "ab.safetensors")
    return tmp_path / "ab.safetensors"


def test_an_exported_generator_is_loaded(file, network):
    loaded, described = load_exported(file)
    assert described == description(network)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(loaded(image), network.eval()(image))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert os.listdir(file.parent) == [file.name]


def test_equal_generators_give_equal_files(tmp_path, file):
    twin = generator()
    scores = {"error": 0.25, "ssim": 0.5}  # in another order
    export(twin, description(twin, scores=scores), tmp_path / "twin.safetensors")
    assert (tmp_path / "twin.safetensors").read_bytes() == file.read_bytes()
    loaded, described = load_exported(file)
    export(loaded, described, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_other_weights_or_descriptions_give_other_files(tmp_path, file, network):
    export(generator(1), description(network), tmp_path / "weights.safetensors")
    export(network, description(network, translation="ba"), tmp_path / "description.safetensors")
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 3


def test_the_metadata_is_one_key_of_sorted_json(file, network):
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert list(metadata) == ["gan_nst"]
    parsed = json.loads(metadata["gan_nst"])
    assert metadata["gan_nst"] == json.dumps(parsed, sort_keys=True, separators=(",", ":"))
    assert build(parsed["network"]).spec == network.spec
    assert str(file.parent) not in metadata["gan_nst"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_are_written_as_float32(tmp_path, dtype):
    network = generator().to(dtype)
    export(network, description(network), tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as opened:
        assert {opened.get_tensor(name).dtype for name in opened.keys()} == {torch.float32}  # noqa: SIM118
    loaded, _ = load_exported(tmp_path / "x.safetensors")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.float())


refused = partial(refusal, load_exported)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x80\x04pickle",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 8) + b"{\n\n\n\n\n\n}",
        struct.pack("<Q", 100) + b"{}",
    ],
)
def test_a_file_that_is_not_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "not a readable safetensors file" in refused(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert refused(tmp_path / "none.safetensors").endswith("no such file")
    refused(tmp_path)


def test_another_projects_safetensors_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    for metadata in (None, {"format": "pt"}, {"gan_nst2": "{}"}):
        save_file({"w": torch.zeros(2)}, path, metadata)
        assert "not an exported gan_nst generator" in refused(path)


def deep(levels):
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", "{}", deep(100_000), '{"format": 2}', '"' + "\n" * 5 + '"'],
    ids=["empty", "truncated", "list", "number", "null", "nothing", "deep", "format", "string"],
)
def test_an_invalid_description_is_refused(tmp_path, text):
    path = tmp_path / "x.safetensors"
    save_file(generator().state_dict(), path, {"gan_nst": text})
    refused(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"network": {}},
        {"network": {"name": "os.system"}},
        {"network": {"name": ["resnet"]}},
        {"network": [1]},
        {"network": {**SPEC, "width": 8}},
        {"network": {**SPEC, "width": -1}},
        {"network": {**SPEC, "upsampling": "transposed"}},
        {"network": {**SPEC, "blocks": 2}},
        {"network": {**SPEC, "code": "print()"}},
        {"training_scale": {"load_size": 0, "crop_size": 1}},
        {"scores": {"x": "high"}},
        {"unknown": 1},
        {"method": None},
    ],
)
def test_a_mismatched_description_is_refused(tmp_path, network, changes):
    fields = {**description(network).model_dump(mode="json"), **changes}
    path = tmp_path / "x.safetensors"
    save_file(network.state_dict(), path, {"gan_nst": json.dumps(fields)})
    refused(path)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_mismatched_weights_are_refused(tmp_path, network, change):
    weights = network.state_dict()
    name = next(iter(weights))
    if change == "missing":
        del weights[name]
    elif change == "extra":
        weights["extra"] = torch.zeros(1)
    else:
        weights[name] = weights[name][..., :1].contiguous()
    path = tmp_path / "x.safetensors"
    save_file(weights, path, {"gan_nst": json.dumps(description(network).model_dump(mode="json"))})
    refused(path)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_weights_that_are_not_numbers_are_refused(tmp_path, network, dtype):
    weights = network.state_dict()
    weights = {name: weight.to(dtype) for name, weight in weights.items()}
    path = tmp_path / "x.safetensors"
    save_file(weights, path, {"gan_nst": to_json(description(network))})
    assert "floating" in refused(path)


@pytest.mark.parametrize(
    "size", [{"width": 64}, {"blocks": 90}, {"width": 1024, "blocks": 100, "downsamplings": 5}]
)
def test_a_description_without_weights_allocates_nothing(tmp_path, network, monkeypatch, size):
    """Its weights would take up to 400 GB."""
    fields = {**description(network).model_dump(mode="json"), "network": {**SPEC, **size}}
    path = tmp_path / "x.safetensors"
    save_file(network.state_dict(), path, {"gan_nst": json.dumps(fields)})
    monkeypatch.setattr(torch.nn.init, "normal_", lambda x, *_: x if x.is_meta else pytest.fail("made"))
    assert "do not match" in refused(path)


@pytest.mark.parametrize("text", ["x\n" * 10_000, "é" * 10_000, "\x1b[31m"])
def test_an_invalid_description_is_reported_in_one_short_line(tmp_path, network, text):
    fields = description(network).model_dump(mode="json")
    for changes in ({text: 1}, {"format": text}, {"network": {**SPEC, text: 1}}, {"network": {"name": text}}):
        path = tmp_path / "x.safetensors"
        save_file(network.state_dict(), path, {"gan_nst": json.dumps({**fields, **changes})})
        message = refused(path)
        assert len(message) < 1000
        assert message == one_line(message)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    assert "not a file" in refused(tmp_path / "x.safetensors")


@pytest.mark.parametrize("fault", ["fsync", "replace"])
def test_a_file_is_written_atomically(file, network, monkeypatch, fault):
    before = file.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fault, full)
    with pytest.raises(CheckpointError, match=r"could not be written \(No space left on device\)"):
        export(generator(1), description(network), file)
    assert os.listdir(file.parent) == [file.name]
    assert file.read_bytes() == before


def test_a_missing_folder_is_reported(tmp_path, network):
    with pytest.raises(CheckpointError, match="could not be written"):
        export(network, description(network), tmp_path / "none" / "x.safetensors")


def test_safetensors_itself_gives_equal_bytes_for_equal_weights():
    """Equal files depend on it."""
    weights = {"b": torch.ones(2), "a": torch.zeros(3)}
    assert save(weights, {"k": "v"}) == save(dict(reversed(weights.items())), {"k": "v"})
