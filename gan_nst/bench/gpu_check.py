"""The first measurements on a new GPU, within 15 minutes: `python -m gan_nst.bench.gpu_check OUT [part ...]`.

Parts, in this order: convolutions, eager, translate, generator, compiled. Each prints its figures in one line; a
failure ends only its own part. OUT gets found.json, and kernels.txt with the profiler's tables. Without a GPU the sizes
are tiny, to try the script itself.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_nst.bench.steps import cyclegan_job, interleaved, reference_step, trainer_step, wait_for
from gan_nst.core.device import tune_convolutions
from gan_nst.inference.exported import Description, TrainingScale
from gan_nst.inference.translator import Translator
from gan_nst.networks import build

TINY = not torch.cuda.is_available()
DEVICE = torch.device("cpu" if TINY else "cuda")
SIZE, WIDTH, BLOCKS = (32, 4, 1) if TINY else (256, 64, 9)
_GENERATOR_OPERATIONS = 6 * 49.55e9  # forward and backward of the full-size generator on one image


def main(out: Path, parts: list[str]) -> int:
    """Runs the parts, each after the other; returns how many failed."""
    tune_convolutions(DEVICE)
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    failures = 0
    for name in parts or PARTS:
        began, result = time.perf_counter(), dict[str, Any]()
        try:
            PARTS[name](out, result)
        except Exception:
            result["failed"] = traceback.format_exc()[-1500:]
            failures += 1
        result["took"] = round(time.perf_counter() - began, 1)
        found[name] = result
        (out / "found.json").write_text(json.dumps(found, indent=1))
        sys.stdout.write(f"{name} {json.dumps(result)}\n")
        sys.stdout.flush()
    return failures


def convolutions(out: Path, result: dict[str, Any]) -> None:
    """TFLOP/s of a large matrix product and of the convolutions that count, forward and both gradients, in bfloat16."""
    side = 64 if TINY else 8192
    x, y = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    result["matrix product"] = round(2 * side**3 / _seconds(partial(torch.matmul, x, y)) / 1e12, 1)
    layers = {
        "block": (256, 256, 3, 66),
        "stem": (3, 64, 7, 262),
        "stem, 8 in": (8, 64, 7, 262),
        "tail": (64, 3, 7, 262),
        "tail, 8 out": (64, 8, 7, 262),
    }
    for name, (inputs, outputs, kernel, side) in layers.items():
        for count in (1, 3, 16):
            for layout in (torch.channels_last, torch.contiguous_format):
                if TINY:
                    inputs, outputs, side = min(inputs, 8), min(outputs, 8), 18
                x, weight = (
                    torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)
                    .to(memory_format=layout)
                    .requires_grad_()
                    for shape in ((count, inputs, side, side), (outputs, inputs, kernel, kernel))
                )
                y = F.conv2d(x, weight)
                operations = 2 * y.numel() * inputs * kernel * kernel
                both = partial(torch.autograd.grad, y, (x, weight), torch.randn_like(y), retain_graph=True)
                seconds = [_seconds(partial(F.conv2d, x, weight)), _seconds(both) / 2]
                result[f"{name} n={count} {str(layout)[6:]}"] = [
                    round(operations / s / 1e12, 1) for s in seconds
                ]


def eager(out: Path, result: dict[str, Any]) -> None:
    """CycleGAN's step: the reference, the trainer's, and the trainer's at larger batches, as far as memory allows."""
    job = cyclegan_job(SIZE, WIDTH, BLOCKS, 1, DEVICE)
    result["reference"] = _measured(out, "reference", reference_step(job), job.operations(), 1)
    result["float32"] = _measured(out, "float32", trainer_step(job), job.operations(), 1)
    for batch in (1,) if TINY else (1, 2, 4, 8, 16, 32):
        job, name = cyclegan_job(SIZE, WIDTH, BLOCKS, batch, DEVICE, "bfloat16"), f"bfloat16 batch {batch}"
        try:
            result[name] = _measured(out, name, trainer_step(job), job.operations(), batch)
        except torch.OutOfMemoryError:
            break


def translate(out: Path, result: dict[str, Any]) -> None:
    """Images and frames a second, at a small and a large allowance of memory."""
    spec = {"name": "resnet", "width": WIDTH, "blocks": BLOCKS}
    scale = TrainingScale(load_size=SIZE, crop_size=SIZE)
    description = Description(network=spec, translation="ab", training_scale=scale, method="cyclegan")
    images = [np.zeros((SIZE, SIZE, 3), np.uint8)] * 32
    frames = [np.zeros((64, 96, 3) if TINY else (1080, 1920, 3), np.uint8)] * 2
    for name, memory in (("1.5 GiB", 3 * 2**29), ("40 GiB", 40 * 2**30)):
        translator = Translator(build(spec), description, str(DEVICE), "bfloat16", memory=memory)
        result[f"{SIZE} pixels, {name}, images/s"] = 32 / _seconds(partial(translator.translate, images), 3)
        result[f"1080p, {name}, frames/s"] = 2 / _seconds(partial(translator.translate, frames), 1)


def generator(out: Path, result: dict[str, Any]) -> None:
    """One generator's forward and backward: eager, compiled, and compiled with the padding kept channels-last."""
    for padded, count in ((False, 3), (True, 3), (True, 16)):
        torch._dynamo.reset()
        network = build({"name": "resnet", "width": WIDTH, "blocks": BLOCKS, "upsampling": "transposed"})
        network.to(DEVICE).to(memory_format=torch.channels_last)
        if padded:
            for module in network.modules():
                if isinstance(module, nn.Conv2d) and module.padding_mode == "reflect":
                    module._conv_forward = partial(_padded_channels_last, module)  # type: ignore[method-assign]
        count = 1 if TINY else count
        x = torch.randn(count, 3, SIZE, SIZE, device=DEVICE)
        operations = int(_GENERATOR_OPERATIONS * count)
        if not padded:
            name = f"eager, {count} images"
            result[name] = _measured(out, name, partial(_forward_backward, network, x), operations, count)
        compiled = torch.compile(network, dynamic=False)
        name = f"compiled, {count} images" + ", padded channels-last" * padded
        began = time.perf_counter()
        _forward_backward(compiled, x)
        wait_for(DEVICE)
        result[f"{name}: seconds to compile"] = time.perf_counter() - began
        result[name] = _measured(out, name, partial(_forward_backward, compiled, x), operations, count)


def compiled(out: Path, result: dict[str, Any]) -> None:
    """The trainer's step with compiled networks."""
    job = replace(cyclegan_job(SIZE, WIDTH, BLOCKS, 1, DEVICE, "bfloat16"), compiled=True)
    began = time.perf_counter()
    step = trainer_step(job)
    step()
    wait_for(DEVICE)
    result["seconds to the first step"] = time.perf_counter() - began
    result["bfloat16"] = _measured(out, "compiled step", step, job.operations(), 1)


PARTS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "convolutions": convolutions,
    "eager": eager,
    "translate": translate,
    "generator": generator,
    "compiled": compiled,
}


def _measured(
    out: Path, name: str, call: Callable[[], object], operations: int, images: int
) -> dict[str, Any]:
    """Time, rate, peak memory, kernels' seconds and launches of a call."""
    if not TINY:
        torch.cuda.reset_peak_memory_stats()
    seconds = _seconds(call)
    peak = None if TINY else torch.cuda.max_memory_allocated() / 2**20
    return {
        "milliseconds": 1e3 * seconds,
        "images_per_second": images / seconds,
        "tflops_per_second": operations / seconds / 1e12,
        "peak_mib": peak,
        **_kernels(out, name, call),
    }


def _kernels(out: Path, name: str, call: Callable[[], object], calls: int = 3) -> dict[str, float]:
    """Seconds of kernels and launches a call: what a CUDA graph would take at least."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([] if TINY else [ProfilerActivity.CUDA])
    with profile(activities=activities) as profiled:
        for _ in range(calls):
            call()
        wait_for(DEVICE)
    rows = profiled.key_averages()
    order = "self_cpu_time_total" if TINY else "self_device_time_total"
    with open(out / "kernels.txt", "a") as file:
        file.write(f"== {name}, {calls} calls\n{rows.table(sort_by=order, row_limit=40)}\n")
    on_device = [row for row in rows if str(row.device_type).endswith("CUDA")]
    return {
        "kernel_seconds": sum(row.self_device_time_total for row in on_device) / calls / 1e6,
        "launches": sum(row.count for row in on_device) / calls,
    }


def _seconds(call: Callable[[], object], calls: int = 10) -> float:
    return interleaved({"": call}, DEVICE, rounds=1 if TINY else 3, calls=1 if TINY else calls)[""]


def _forward_backward(network: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.autocast(DEVICE.type, torch.bfloat16):
        y = network(x)
    y.square().mean().backward()


def _padded_channels_last(module: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    padding = module._reversed_padding_repeated_twice
    x = F.pad(x, padding, mode="reflect").contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, bias, module.stride, 0, module.dilation, module.groups)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(PARTS):
        sys.exit(f"usage: python -m gan_nst.bench.gpu_check OUT [{'|'.join(PARTS)} ...]")
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
