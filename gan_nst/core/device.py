"""Several processes that share one job and never speak until its end, as torchrun starts them."""

import contextlib
import errno
import os
import re
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import is_torchelastic_launched
from torch.distributed.rendezvous import rendezvous

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


def tune_convolutions(device: torch.device) -> None:
    """Lets CUDA's convolutions be chosen by trial: worth its time where images of one size come again and again."""
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


def peak_memory(device: torch.device) -> int:
    """Bytes, at most so far: the device's for CUDA, else the process's."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process_peak_memory()


def process_peak_memory() -> int:
    """Bytes that this process held at most so far.

    Linux's `ru_maxrss` will not do: a process inherits it from the one that started it.
    """
    here = read_proc("status", "VmHWM")
    if here is not None:
        return here
    import resource  # only there where processes are a Unix's

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


# In what torch, its libraries, and Python's own say of it; a loader process's error comes as text.
_RAN_OUT = re.compile(
    "out of memory|not enough memory|can't allocate memory|cannot allocate memory|bad_alloc|alloc_failed|MemoryError"
    "|unable to allocate shared memory|unable to write to file </torch_",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: of the host, of a GPU, or what the host shares among processes."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_RAN_OUT.search(str(error)))


def read_proc(file: str, field: str, process: int | None = None) -> int | None:
    """A field of Linux's account of a process, this one or another, in bytes; None where there is none."""
    try:
        found = re.search(
            rf"^{field}:\s+(\d+) kB", Path("/proc", str(process or "self"), file).read_text(), re.M
        )
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def rank_and_count() -> tuple[int, int]:
    """This process's number, from 0, and how many there are. Raises SettingsError for an environment that makes no
    sense.
    """
    number, count = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise SettingsError(
            f"RANK={number} WORLD_SIZE={count}: the environment must count processes from 0; set both, or neither"
        )
    return int(number), int(count)


def local_rank() -> int:
    """This process's number on its machine: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def device_for_rank(device: str) -> str:
    """The device for this process: of several processes on a machine each takes another GPU."""
    if rank_and_count()[1] > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{local_rank() % torch.cuda.device_count()}"
    return device


def wait_for_all() -> None:
    """Returns when every process of torchrun's has come here.

    It ends all others as soon as one has ended with an exit code, which one broken image gives.
    """
    if rank_and_count()[1] == 1 or not is_torchelastic_launched():
        return
    store, _, count = next(iter(rendezvous("env://")))
    store.add("finished", 1)
    while store.add("finished", 0) < count:
        time.sleep(0.2)
