"""Hostile files: pickles that execute code, exported generators with forged contents."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION


class _Call:
    """Calls a function when it is unpickled carelessly."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced

    def __call__(self):
        """Makes nested calls possible: pickle requires what `__reduce__` returns first to be callable."""


class _Scripted(torch.nn.Module):
    """Writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        torch.save(torch.zeros(1), state[0])
        self.path = state[0]
        self.training = state[1]


HARMLESS = ("zip, one more pickle", "jit, a pickle")
"""Those of `pickles` whose code no loader executes because torch's C++ reads that member; they must be refused too."""

LOADERS: dict[str, Callable[[Path], object]] = {
    "pickle": lambda path: pickle.loads(path.read_bytes()),
    "torch": lambda path: torch.load(path, weights_only=False),
    "numpy": lambda path: dict(np.load(path, allow_pickle=True)),  # dict loads every member of an archive
}
"""Careless loaders, by the format of what they load."""


def pickle_format(name: str) -> str:
    """The key in `LOADERS` for one of `pickles`."""
    first = name.split(",")[0]
    return {"npy": "numpy", "npz": "numpy"}.get(first, "torch" if first in _TORCH else "pickle")


_TORCH = ("zip", "legacy", "jit", "tar")
_LEGACY_HEAD = (MAGIC_NUMBER, PROTOCOL_VERSION, {"little_endian": True})


def pickles(canary: Path) -> dict[str, bytes]:
    """Files in every format in which torch and numpy have ever loaded pickles.

    All except the harmless create `canary` when a careless loader of their format loads them.
    """
    touch = f"touch {canary}"
    system, execute = _Call(os.system, touch), _Call(exec, f"open({str(canary)!r}, 'w')")
    found = {f"protocol {n}": pickle.dumps(system, n) for n in range(pickle.HIGHEST_PROTOCOL + 1)}
    found["exec"] = pickle.dumps(execute)
    found["by hand"] = f"cposix\nsystem\n(S'{touch}'\ntR.".encode()
    found["getattr"] = pickle.dumps(_Call(_Call(getattr, _Call(__import__, "os"), "system"), touch))
    for name, zipped in (("zip", True), ("legacy", False)):
        found[name] = _saved(system, zipped)
        found[f"{name}, in a list"] = _saved({"format": 1, "state": [execute]}, zipped)
        found[f"{name}, a class"] = _saved({"w": _Call(io.FileIO, str(canary), "w")}, zipped)
        found[f"{name}, of torch"] = _saved({"w": _Call(torch.save, 0, str(canary))}, zipped)
    # The first three pickles of a legacy file are its header; the code is in the fourth.
    found["legacy, after"] = b"".join(map(pickle.dumps, _LEGACY_HEAD)) + found["by hand"]
    found["zip, by hand"] = _with(_saved({"w": torch.zeros(2)}), "data.pkl", found["by hand"])
    found["zip, one more pickle"] = _with(_saved({"w": torch.zeros(2)}), "constants.pkl", found["by hand"])
    found["jit"] = _scripted(canary)
    found["jit, a pickle"] = _with(found["jit"], "data.pkl", found["by hand"])
    found["tar"] = _tar(found["by hand"])
    found["npy"], found["npz"] = _numpy(system)
    return found


def _saved(value: object, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _scripted(canary: Path) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(_Scripted(str(canary))), file)
    return file.getvalue()


def _with(archive: bytes, end: str, content: bytes) -> bytes:
    """The zip archive with the member whose name ends with `end` replaced, or added if there is none."""
    with zipfile.ZipFile(io.BytesIO(archive)) as original:
        members = {name: original.read(name) for name in original.namelist()}
    name = next((name for name in members if name.endswith(end)), f"archive/{end}")
    return packed({**members, name: content})


def packed(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _tar(code: bytes) -> bytes:
    """A file in the format torch used before 0.1.10."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(code)
            archive.addfile(info, io.BytesIO(code))
    return file.getvalue()


def _numpy(value: object) -> tuple[bytes, bytes]:
    array, one, several = np.array([value], dtype=object), io.BytesIO(), io.BytesIO()
    np.save(one, array, allow_pickle=True)
    np.savez(several, features=array)
    return one.getvalue(), several.getvalue()


def forged_safetensors(exported: bytes) -> dict[str, bytes]:
    """Copies of an exported generator with false claims in their headers."""
    length = struct.unpack("<Q", exported[:8])[0]
    header, data = json.loads(exported[8 : 8 + length]), exported[8 + length :]
    first = next(name for name in header if name != "__metadata__")

    def made(changes: dict, description: object = None, size: int | None = None) -> bytes:
        metadata = header["__metadata__"] if description is None else {"gan_nst": description}
        text = json.dumps({**header, "__metadata__": metadata, **changes}).encode()
        return struct.pack("<Q", len(text) if size is None else size) + text + data

    original = json.loads(header["__metadata__"]["gan_nst"])

    def network(**changes: object) -> bytes:
        return made({}, json.dumps({**original, "network": {**original["network"], **changes}}))

    offsets = header[first]["data_offsets"]
    return {
        "empty": b"",
        "a length of all memory": made({}, size=2**63),
        "a length beyond the file": made({}, size=10**8),
        "a size beyond the file": made({first: {**header[first], "data_offsets": [0, 2**40]}}),
        "a shape of all memory": made({first: {**header[first], "shape": [2**31, 2**31]}}),
        "a shape that overflows": made({first: {**header[first], "shape": [2**62, 4]}}),
        "offsets backwards": made({first: {**header[first], "data_offsets": offsets[::-1]}}),
        "offsets that overlap": made({"twice": header[first]}),
        "an unknown type": made({first: {**header[first], "dtype": "Q99"}}),
        "another type": made({first: {**header[first], "dtype": "I32"}}),
        "another name": made({"__class__": header.pop(first)}),
        "no description": made({}, ""),
        "a deep description": made({}, "[" * 100_000),
        "endless digits": made({}, '{"format": ' + "9" * 100_000 + "}"),
        "another format": made({}, json.dumps({**original, "format": 99})),
        "a network by import": network(name="os.system"),
        "a huge network": network(width=1024, blocks=100, downsamplings=5),
        "a discriminator": made({}, json.dumps({**original, "network": {"name": "patchgan"}})),
        "no translation": made({}, json.dumps({**original, "translation": ["../../x"]})),
    }


def forged_onnx(description: str) -> dict[str, bytes]:
    """ONNX files whose metadata claims that they are exported generators; their graphs are not."""
    from onnx import TensorProto, helper

    def model(
        nodes: list,
        initial: list = (),
        *,
        kind: int = TensorProto.UINT8,
        metadata: str | None = description,
        domain: str = "",
    ) -> bytes:
        ends = [
            helper.make_tensor_value_info(n, kind, ["n", "c", "h", "w"]) for n in ("images", "translated")
        ]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializer=initial)
        opsets = [helper.make_opsetid("", 20)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        if metadata is not None:
            made.metadata_props.add(key="gan_nst", value=metadata)
        return made.SerializeToString()

    node = helper.make_node
    same = node("Identity", ["images"], ["translated"])
    outside = helper.make_tensor("w", TensorProto.UINT8, [1], b"\0", raw=True)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../../../../../etc/passwd"), ("offset", "0"), ("length", "1")):
        outside.external_data.add(key=key, value=value)
    huge = helper.make_tensor("shape", TensorProto.INT64, [2], [2**40, 2**20])
    forged = helper.make_tensor("w", TensorProto.UINT8, [1], b"\0", raw=True)
    forged.dims[:] = [2**40]
    of_floats = json.dumps({**json.loads(description), "pixels": "float"})
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    nothing = [node("Mul", ["images", "zero"], ["none"]), node("Div", ["none", "none"], ["translated"])]
    short = helper.make_tensor("axes", TensorProto.INT64, [4], [0, 0, 0, 0])
    return {
        "empty": b"",
        "not a protobuf": b"\xff" * 500,
        "no metadata": model([same], metadata=None),
        "a broken description": model([same], metadata="{"),
        "a deep description": model([same], metadata="[" * 100_000),
        "external weights": model([node("Add", ["images", "w"], ["translated"])], [outside]),
        "a tensor of all memory": model([node("Add", ["images", "w"], ["translated"])], [forged]),
        "an operator of its own": model(
            [node("Run", ["images"], ["translated"], domain="evil")], domain="evil"
        ),
        "other types": model([node("Identity", ["images"], ["translated"])], kind=TensorProto.DOUBLE),
        "no input": model([node("Identity", ["nothing"], ["translated"])]),
        "all memory": model(
            [
                node("ConstantOfShape", ["shape"], ["zeros"]),
                node("ReduceMax", ["zeros"], ["most"], keepdims=0),
                node("Cast", ["most"], ["cast"], to=TensorProto.UINT8),
                node("Add", ["images", "cast"], ["translated"]),
            ],
            [huge],
        ),
        "not a number": model(nothing, [zero], kind=TensorProto.FLOAT, metadata=of_floats),
        "another size": model([node("Concat", ["images", "images"], ["translated"], axis=3)]),
        "no image": model([node("Expand", ["images", "axes"], ["translated"])], [short]),
    }


def forged_programs(description: str, canary: Path) -> dict[str, bytes]:
    """.pt2 files whose metadata claims that they are exported generators; their contents are something else."""
    code = pickles(canary)["by hand"]
    config = "x/data/weights/model_weights_config.json"

    def program(members: dict[str, bytes], entry: dict | None = None) -> bytes:
        weights = {"config": {"generator.w": entry}} if entry is not None else {}
        return packed(
            {"x/extra/gan_nst": description.encode(), config: json.dumps(weights).encode(), **members}
        )

    def entry(path: str, sizes: list, pickled: bool = False, kind: object = 7) -> dict:
        meta = {"dtype": kind, "sizes": [{"as_int": size} for size in sizes]}
        return {"path_name": path, "use_pickle": pickled, "tensor_meta": meta}

    return {
        "empty": b"",
        "a pickle alone": code,
        "no metadata": packed({"x/data/weights/w": code}),
        "a broken description": packed({"x/extra/gan_nst": b"{"}),
        "no weights": program({}),
        "a pickled weight": program({"x/data/weights/w": code}, entry("w", [1], pickled=True)),
        "a weight that is a pickle": program({"x/data/weights/w": code}, entry("w", [2, 2])),
        "a weight outside": program({}, entry("../../../../../../etc/passwd", [4])),
        "a weight of all memory": program({"x/data/weights/w": b"\0" * 4}, entry("w", [2**40, 2**20])),
        "a negative weight": program({"x/data/weights/w": b"\0" * 4}, entry("w", [-1])),
        "a type of its own": program({"x/data/weights/w": b"\0" * 4}, entry("w", [1], kind={"x": 1})),
        "a name that leads out": program({f"../../{canary.name}": code}),
        "a bomb": packed({"x/extra/gan_nst": b" " * 10**8}, zipfile.ZIP_DEFLATED),
    }
