"""ONNX files: written with the exporter of torch, run with onnxruntime; both are packages of the extra `export`."""

import contextlib
import copy
import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export import export as trace

from gan_nst.core.errors import CheckpointError, SettingsError, reason
from gan_nst.images.arrays import ImageArray, to_float, to_tensor, to_uint8
from gan_nst.inference.exported import KEY, PortableDescription, to_text, told
from gan_nst.networks.norm import InstanceNorm, flat_below
from gan_nst.tiling.strips import SMALLEST


class Whole(nn.Module):
    """Maps RGB images (n, 3, h, w) to RGB images (n, 3, h, w), of any size from 1x1.

    pixels: uint8, or "float" for float32 in [0, 1]. compute: the type in which the generator is given them.
    Channels come first, as convolutions have them: what runs such files expects it, and nothing is transposed.
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
        rows, columns = self._places(height, width, x.device)
        x = x.index_select(2, rows).index_select(3, columns)
        y: Tensor = self.generator(x.to(self.compute))
        # Not a slice: whether that is contiguous would depend on the size, and be fixed to the example's.
        y = y.to(torch.float32).index_select(2, torch.arange(height, device=y.device))
        y = y.index_select(3, torch.arange(width, device=y.device))
        if self.pixels == "uint8":
            return to_uint8(y)
        return ((y + 1) / 2).clamp(0, 1)

    def _places(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which rows and columns of the image make the padded one, (h',) and (w',): those at the right and bottom
        mirrored, or the last one again where either side has too little to mirror.

        An index is computed where a padding would be chosen, since what is chosen is fixed by the example's size.
        """
        rows, columns = (torch.arange(self._grown(n), device=device) for n in (height, width))
        enough = ((2 * (height - 1) - rows[-1:]) >= 0) & ((2 * (width - 1) - columns[-1:]) >= 0)
        return _mirrored(rows, height, enough), _mirrored(columns, width, enough)

    def _grown(self, length: int) -> int:
        target = cast(int, torch.sym_max(length, max(SMALLEST, 2 * self.multiple)))
        return (target + self.multiple - 1) // self.multiple * self.multiple


def _mirrored(places: Tensor, length: int, enough: Tensor) -> Tensor:
    last = length - 1
    mirrored = torch.where(places > last, 2 * last - places, places)
    return torch.where(enough, mirrored, places.clamp(max=last)).clamp(min=0)


def make_program(whole: Whole) -> ExportedProgram:
    """The graph for any batch, height and width, without a trace of where its code lies."""
    kind = torch.uint8 if whole.pixels == "uint8" else torch.float32
    example = torch.zeros((2, 3, 37, 45), dtype=kind)  # of sides that nothing divides, and unlike each other
    shape = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = trace(whole.eval(), (example,), dynamic_shapes=(shape,), strict=False)
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


_INPUT, _OUTPUT = "images", "translated"
_OPSET = 20
_LARGEST = 2**31 - 2**20  # bytes of weights; a file of one piece has at most 2 GiB


def require_packages(*, to_write: bool) -> None:
    """Raises SettingsError, one line, when a package is missing that runs ONNX files, or one that writes them."""
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
    """Writes the generator as an ONNX file. Equal ones become equal files.

    float16: its convolutions compute in float16, its norms in float32. int8: the convolutions on the way down and in
    the residual blocks compute in 8 bits, with a scale for each channel of the weights, and one for each layer's input
    from what it is for `examples`; the first and those on the way up stay in float32, as they draw the image: in 8
    bits they cost 11 dB, and are an eighth of the work.
    """
    import onnx

    if sum(w.numel() * 4 for w in generator.parameters()) > _LARGEST:
        raise CheckpointError(f"{path}: an ONNX file holds at most 2 GiB; use --format pt2 or safetensors")
    compute = torch.float16 if description.precision == "float16" else torch.float32
    whole = Whole(_for_onnx(generator, compute), description.pixels, compute)
    with _quiet():
        program = torch.onnx.export(
            make_program(whole),
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
            model = _quantised(model, description, examples)
    _forget_origin(model)
    model.producer_name, model.producer_version = "gan_nst", ""
    model.metadata_props.add(key=KEY, value=to_text(description))
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path.read_bytes())


class Session(nn.Module):
    """An ONNX file of ours as a generator: maps (n, 3, h, w) in [-1, 1] to the same, of any size.

    A file of uint8 images is given what they round to: exact for images of 8 bits, less than those of 16 hold.
    It computes on the CPU, wherever the images are. Raises CheckpointError for a file of anything else.
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
        options.enable_mem_pattern = False  # it would plan the memory anew for every size
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no other class
            raise CheckpointError(f"{path}: onnxruntime cannot run it ({_short(error)})") from None
        given, made = ([(x.name, x.type, len(x.shape)) for x in values] for values in self._ends())
        kind = "tensor(uint8)" if self.description.pixels == "uint8" else "tensor(float)"
        if given != [(_INPUT, kind, 4)] or made != [(_OUTPUT, kind, 4)]:
            raise CheckpointError(f"{path}: maps no images to images, whatever it says of itself")

    def _ends(self) -> tuple[list[Any], list[Any]]:
        return self._session.get_inputs(), self._session.get_outputs()

    def run(self, images: Tensor) -> Tensor:
        """What the file makes of images of its own type, on the CPU. Raises CheckpointError when it cannot."""
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
            raise CheckpointError(f"{self._path}: made values that are not finite")
        return y.to(x.device) * 2 - 1


def _read(path: Path) -> tuple[bytes, PortableDescription]:
    """A file's content and what it says of itself, before anything in it is run."""
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
        raise CheckpointError(f"{path}: not an ONNX file that gan-nst wrote (it does not say what it is)")
    if _points_elsewhere(model):
        raise CheckpointError(
            f"{path}: has its weights in other files, which an exported generator never has"
        )
    return content, told(PortableDescription, metadata[KEY], path)


def _points_elsewhere(message: Any) -> bool:
    """Whether any tensor of a message, however deep, lies in another file."""
    if message.DESCRIPTOR.name == "TensorProto":
        return bool(message.data_location or message.external_data)
    parts = (value for field, value in message.ListFields() if field.message_type is not None)
    return any(_points_elsewhere(part) for value in parts for part in _each(value))


def _each(value: Any) -> Sequence[Any]:
    return [value] if hasattr(value, "DESCRIPTOR") else list(value)


class _OnnxNorm(nn.Module):
    """An instance norm by the operator that every runtime has for it, in float32.

    It makes 0 of channels of one value, as ours does, which that operator does not.
    """

    ones: Tensor
    zeros: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        scale, shift = norm.scale, norm.shift
        self.affine = scale is not None
        ones = torch.ones(norm.channels)
        self.register_buffer("ones", ones)
        self.register_buffer("zeros", torch.zeros(norm.channels))
        self.register_buffer("scale", (ones if scale is None else scale.detach().float())[:, None, None])
        self.register_buffer("shift", (0 * ones if shift is None else shift.detach().float())[:, None, None])
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        full = x.float()
        mean = full.mean((2, 3), keepdim=True)
        attributes: dict[str, Any] = {"epsilon": self.eps}
        y: Tensor = torch.onnx.ops.symbolic(
            "InstanceNormalization",
            (full - mean, self.ones, self.zeros),
            attributes,
            dtype=torch.float32,
            shape=x.shape,
        )
        share = y.square().mean((2, 3), keepdim=True)  # variance / (variance + eps)
        y = torch.where(share * self.eps <= (1 - share) * flat_below(mean, self.eps), 0.0, y)
        return (y * self.scale + self.shift if self.affine else y).to(x.dtype)


def _for_onnx(generator: nn.Module, compute: torch.dtype) -> nn.Module:
    """A copy whose convolutions compute in a type, and whose norms are one operator each."""
    found = copy.deepcopy(generator).to("cpu", compute).eval()
    for name, module in generator.named_modules():
        if isinstance(module, InstanceNorm):
            found.set_submodule(name, _OnnxNorm(module))
    return found


def as_half(generator: nn.Module) -> nn.Module:
    """A copy whose weights, and the results of whose layers, are rounded to float16, as a GPU has them that adds up in
    float32; what is too large for float16 becomes infinite. onnxruntime on the CPU rounds the weights alone.
    """
    found = copy.deepcopy(generator).half().float()
    for module in found.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | InstanceNorm):
            module.register_forward_hook(lambda _, given, result: result.half().float())
    return found


def _quantised(model: Any, description: PortableDescription, examples: Sequence[ImageArray]) -> Any:
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
            self._left = iter(examples)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._left, None)
            if image is None:
                return None
            batch = to_tensor(image)[None]
            return {_INPUT: (batch if description.pixels == "uint8" else batch / 255).numpy()}

    coarse = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(part in node.input[1] for part in (".down", ".block"))
    ]
    model.metadata_props.add(
        key="onnx.quant.pre_process", value="onnxruntime.quant"
    )  # so it is, for all it matters
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "int8.onnx")
        quantize_static(
            model,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=coarse,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantised = onnx.load(target)
    del quantised.metadata_props[:]
    return quantised


def _forget_origin(message: Any) -> None:
    """Takes out what the exporter noted of the code that each part came from, file names among it."""
    for field, value in message.ListFields():
        if field.name == "metadata_props":
            message.ClearField("metadata_props")
        elif field.name == "doc_string":
            message.ClearField("doc_string")
        elif field.message_type is not None:
            for part in _each(value):
                _forget_origin(part)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what exporter and quantiser say of their own insides, on every logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _short(error: BaseException) -> str:
    return reason(error)[:200]
