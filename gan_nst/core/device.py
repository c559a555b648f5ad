"""The device: which one, its precision and layout, its memory, and the processes that share a job."""

import contextlib
import errno
import os
import platform
import re
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import is_torchelastic_launched
from torch.distributed.rendezvous import rendezvous

from gan_nst.core.errors import SettingsError
from gan_nst.core.version import __version__


def choose_device(name: str) -> torch.device:
    """Returns the device for "auto", "cpu", "cuda", "cuda:1" or "mps". Raises SettingsError if it is not available."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise SettingsError(f"device: expected auto, cpu, cuda, cuda:1 or mps, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device: {name} is not available ({torch.cuda.device_count()} CUDA devices found)"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("device: mps is not available")
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """Resolves "auto" for a device: bfloat16 if the processor computes it natively, else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = device.type == "cpu" and any(
            capabilities.get(n) for n in ("avx512_bf16", "amx_bf16", "bf16")
        )
    return "bfloat16" if native else "float32"


def memory_format(device: torch.device) -> torch.memory_format:
    """Returns the layout in which convolutions are fastest: channels last on the CPU and on CUDA."""
    return torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format


def tune_convolutions(device: torch.device) -> None:
    """Lets cuDNN choose its algorithms by trial, which pays off where images of the same size recur."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Returns a context in which networks compute in bfloat16, or one that changes nothing."""
    if precision != "bfloat16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def full_precision(x: Tensor) -> Tensor:
    """Returns half-precision tensors as float32, others unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def describe_machine(device: torch.device) -> dict[str, str]:
    """Returns what results and their times depend on besides the settings: versions, device, processor and system."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.M)
    return {
        "gan_nst": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores",
        "system": platform.system(),
    }


def peak_memory(device: torch.device) -> int:
    """Returns the peak memory so far, in bytes: of the device for CUDA, else of the process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else process_peak_memory()


def process_peak_memory() -> int:
    """Returns this process's peak memory so far, in bytes.

    On Linux not `ru_maxrss`, which a process inherits from the one that started it.
    """
    peak = read_proc("status", "VmHWM")
    if peak is not None:
        return peak
    import resource  # exists on Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_proc(file: str, field: str) -> int | None:
    """Returns a field of this process's file in Linux's /proc in bytes, or None where there is none."""
    try:
        text = Path("/proc/self", file).read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.M)
    return None if found is None else int(found[1]) * 1024


# How torch, its libraries and Python report it; errors of loader processes arrive as text.
_OUT_OF_MEMORY = re.compile(
    "out of memory|not enough memory|can't allocate memory|cannot allocate memory|bad_alloc|alloc_failed|MemoryError"
    "|unable to allocate shared memory|unable to write to file </torch_",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: the host's, a GPU's or shared memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


def rank_and_count() -> tuple[int, int]:
    """Returns this process's rank and the number of processes, as torchrun sets them. Raises SettingsError if the
    environment makes no sense.
    """
    rank, count = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and count.isdecimal() and int(rank) < int(count)):
        raise SettingsError(
            f"RANK={rank} WORLD_SIZE={count}: expected a rank from 0 to WORLD_SIZE - 1; set both or neither"
        )
    return int(rank), int(count)


def local_rank() -> int:
    """Returns this process's rank on its machine, which is the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def device_for_rank(device: str) -> str:
    """Returns the device for this process: each of several processes on a machine uses another GPU."""
    if rank_and_count()[1] > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{local_rank() % torch.cuda.device_count()}"
    return device


def wait_for_all() -> None:
    """Waits until all of torchrun's processes have called it.

    torchrun ends the others as soon as one exits with a nonzero code, as it does after one broken image.
    """
    if rank_and_count()[1] == 1 or not is_torchelastic_launched():
        return
    store, _, count = next(iter(rendezvous("env://")))
    store.add("finished", 1)
    while store.add("finished", 0) < count:
        time.sleep(0.2)
