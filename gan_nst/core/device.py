"""Where and in which floating-point format things are computed."""

import contextlib

import torch
from torch import Tensor

from gan_nst.core.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda", "cuda:1" or "mps" means here. Raises SettingsError when it is
    not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device: expected auto, cpu, cuda, cuda:1 or mps, got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device: {name} is not on this machine ({torch.cuda.device_count()} CUDA devices found)"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("device: mps is not on this machine")
    if device.type not in ("cpu", "cuda", "mps"):
        raise SettingsError(f"device: expected auto, cpu, cuda, cuda:1 or mps, got {name!r}")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """What "auto" means on a device: bfloat16 where the processor computes it natively, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    if device.type == "cpu":
        able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return (
            "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16") else "float32"
        )
    return "float32"


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout in which convolutions are fastest: a pixel's channels side by side, on the CPU and on CUDA."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


def tune(device: torch.device) -> None:
    """Lets CUDA's convolutions be chosen by trial: worth its time where pictures of one size come again and again."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context in which networks compute in bfloat16, or one that changes nothing."""
    if precision != "bfloat16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def full_precision(x: Tensor) -> Tensor:
    """Half-precision tensors as float32; others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
