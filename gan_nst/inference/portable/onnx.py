"""ONNX files: written by torch's exporter, run by onnxruntime; both need the extra `export`."""

import contextlib
import copy
import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export import export as trace

from gan_nst.core.errors import CheckpointError, SettingsError, reason
from gan_nst.images.arrays import ImageArray, to_float, to_tensor, to_uint8
from gan_nst.inference.exported import KEY, PortableDescription, parse_description, to_json
from gan_nst.networks.norm import InstanceNorm, flat_below
from gan_nst.tiling.strips import pad_to_multiple

_INPUT, _OUTPUT = "images", "translated"
_OPSET = 20
_LARGEST = 2**31 - 2**20  # bytes of weights; a single ONNX file holds at most 2 GiB


class ImageModel(nn.Module):
    """Maps RGB images (n, 3, h, w) of any size from 1x1 to the same: a generator with padding and ranges inside.

    pixels: uint8, or "float" for float32 in [0, 1]. compute: the type of the generator's input. Channels come first,
    as convolutions need them: programs that run such files expect it, and nothing is transposed.
    """

    def __init__(
        self, generator: nn.Module, pixels: Literal["uint8", "float"], compute: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.generator = generator
        self.multiple = int(getattr(generator, "multiple", 1))
        self.pixels = pixels
        self.compute = compute

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        x = to_float(images) if self.pixels == "uint8" else images * 2 - 1
        x = pad_to_multiple(x, self.multiple)
        y: Tensor = self.generator(x.to(self.compute))
        # Not a slice: whether that is contiguous depends on the size, and tracing would fix the example's answer.
        y = y.to(torch.float32).index_select(2, torch.arange(height, device=y.device))
        y = y.index_select(3, torch.arange(width, device=y.device))
        if self.pixels == "uint8":
            return to_uint8(y)
        return ((y + 1) / 2).clamp(0, 1)


def trace_model(model: ImageModel) -> ExportedProgram:
    """Returns the model's graph for any batch, height and width, without paths of its source code."""
    kind = torch.uint8 if model.pixels == "uint8" else torch.float32
    example = torch.zeros((2, 3, 37, 45), dtype=kind)  # sides that nothing divides, and that differ
    shape = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = trace(model.eval(), (example,), dynamic_shapes=(shape,), strict=False)
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def require_packages(*, to_write: bool) -> None:
    """Raises SettingsError, one line, when a package to run ONNX files, or to write them, is missing."""
    for name in ("onnx", "onnxruntime", *(("onnxscript",) if to_write else ())):
        try:
            importlib.import_module(name)
        except ImportError:
            raise SettingsError(
                f'ONNX files need the package {name}: pip install "gan_nst[export]"'
            ) from None


def write_onnx(
    generator: nn.Module, description: PortableDescription, path: Path, examples: Sequence[ImageArray] = ()
) -> None:
    """Writes the generator as an ONNX file.

    float16: convolutions compute in float16, norms in float32. int8: the convolutions on the way down and in the
    residual blocks compute in 8 bits, with a scale for each channel of the weights and one for each layer's input,
    calibrated on `examples`. The first convolution and those on the way up remain float32, as they draw the image: in
    8 bits they cost 11 dB, and they are an eighth of the work.
    """
    if sum(weight.numel() * 4 for weight in generator.parameters()) > _LARGEST:
        raise CheckpointError(f"{path}: an ONNX file holds at most 2 GiB; use --format pt2 or safetensors")
    compute = torch.float16 if description.precision == "float16" else torch.float32
    plain = copy.deepcopy(generator).to("cpu", compute).eval()
    for name, module in generator.named_modules():
        if isinstance(module, InstanceNorm):
            plain.set_submodule(name, _OnnxNorm(module))
    image_model = ImageModel(plain, description.pixels, compute)
    with _silenced():
        program = torch.onnx.export(
            trace_model(image_model),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
        if description.precision == "int8":
            model = _quantised(model, description, path, examples)
    for part in (*model.graph.node, *model.graph.value_info, *(n for f in model.functions for n in f.node)):
        del part.metadata_props[:]  # the exporter's notes, which name the files of its own source
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=to_json(description))
    path.write_bytes(model.SerializeToString())


class _OnnxNorm(nn.Module):
    """An instance norm as the one operator that every runtime has for it, in float32.

    Unlike that operator alone, and like ours, it makes channels of a single value 0.
    """

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        self.norm = norm
        self.ones = nn.Parameter(torch.ones(norm.channels), requires_grad=False)
        self.zeros = nn.Parameter(torch.zeros(norm.channels), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        full, eps = x.float(), self.norm.eps
        mean = full.mean((2, 3), keepdim=True)
        attributes: dict[str, Any] = {"epsilon": eps}
        y: Tensor = torch.onnx.ops.symbolic(
            "InstanceNormalization",
            (full - mean, self.ones, self.zeros),
            attributes,
            dtype=torch.float32,
            shape=x.shape,
        )
        share = y.square().mean((2, 3), keepdim=True)  # variance / (variance + eps)
        y = torch.where(share * eps <= (1 - share) * flat_below(mean, eps), 0.0, y)
        if self.norm.scale is not None and self.norm.shift is not None:
            y = y * self.norm.scale[:, None, None] + self.norm.shift[:, None, None]
        return y.to(x.dtype)


def _quantised(
    model: Any, description: PortableDescription, path: Path, examples: Sequence[ImageArray]
) -> Any:
    """The model with 8-bit convolutions on the way down and in the residual blocks."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            batches = (to_tensor(image)[None] for image in examples)
            self._left = (batch if description.pixels == "uint8" else batch / 255 for batch in batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._left, None)
            return None if batch is None else {_INPUT: batch.numpy()}

    inner = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(part in node.input[1] for part in (".down", ".block"))
    ]
    if not inner:  # onnxruntime would quantise every layer
        raise CheckpointError(
            f"{path}: int8 needs a generator with down-sampling or residual layers named as ours; use float16"
        )
    # Marks the model as preprocessed, without which onnxruntime warns.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "int8.onnx")
        quantize_static(
            model,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=inner,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(target)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Silences the exporter's and quantiser's messages on every logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


class OnnxGenerator(nn.Module):
    """One of our ONNX files as a generator: maps (n, 3, h, w) in [-1, 1] to the same, at any size.

    A file for uint8 images gets the input rounded to 8 bits: exact for 8-bit images, a loss for 16-bit ones. It
    computes on the CPU, wherever the images are. Raises CheckpointError for any other file.
    """

    multiple = 1

    def __init__(self, path: Path) -> None:
        super().__init__()
        require_packages(to_write=False)
        import onnxruntime

        self._path = path
        content, self.description = _read(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.enable_mem_pattern = False  # it would plan the memory again for every size
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no other base class
            raise CheckpointError(f"{path}: onnxruntime cannot run it ({_short(error)})") from None
        kind = "tensor(uint8)" if self.description.pixels == "uint8" else "tensor(float)"
        ends = (self._session.get_inputs(), self._session.get_outputs())
        for values, name in zip(ends, (_INPUT, _OUTPUT), strict=True):
            if [(value.name, value.type, len(value.shape)) for value in values] != [(name, kind, 4)]:
                raise CheckpointError(f"{path}: is not an image-to-image model, despite its metadata")

    def run(self, images: Tensor) -> Tensor:
        """Runs the file on images of its own type, on the CPU. Raises CheckpointError when it fails."""
        try:
            found = self._session.run([_OUTPUT], {_INPUT: images.numpy(force=True)})[0]
        except Exception as error:
            raise CheckpointError(
                f"{self._path}: failed on {tuple(images.shape)} ({_short(error)})"
            ) from None
        if found.shape != tuple(images.shape):
            raise CheckpointError(f"{self._path}: made {found.shape} of images {tuple(images.shape)}")
        return torch.from_numpy(found)

    def forward(self, x: Tensor) -> Tensor:
        if self.description.pixels == "uint8":
            return to_float(self.run(to_uint8(x.float()))).to(x.device)
        y = self.run((x.float() + 1) / 2)
        if not y.isfinite().all():
            raise CheckpointError(f"{self._path}: produced values that are not finite")
        return y.to(x.device) * 2 - 1


def _read(path: Path) -> tuple[bytes, PortableDescription]:
    """A file's content and its description, checked before anything in it is run."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        content = path.read_bytes()
        model = onnx.ModelProto.FromString(content)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, DecodeError) as error:
        raise CheckpointError(f"{path}: not a readable ONNX file ({_short(error)})") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if KEY not in metadata:
        raise CheckpointError(f"{path}: an ONNX file, but not one that gan-nst wrote (it has no description)")
    if _has_external_data(model):
        raise CheckpointError(
            f"{path}: keeps its weights in other files, which an exported generator never does"
        )
    return content, parse_description(PortableDescription, metadata[KEY], path)


def _has_external_data(message: Any) -> bool:
    """Whether any tensor of a message, however deep, is stored in another file."""
    if message.DESCRIPTOR.name == "TensorProto":
        return bool(message.data_location or message.external_data)
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = [value] if hasattr(value, "DESCRIPTOR") else value
            if any(map(_has_external_data, parts)):
                return True
    return False


def _short(error: BaseException) -> str:
    return reason(error)[:200]
