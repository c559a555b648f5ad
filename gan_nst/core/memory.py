"""How much memory this process has needed, and whether an error says that there was no more."""

import errno
import re
import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> int:
    """Bytes, at most so far: the device's for CUDA, else the process's."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_of_process()


def peak_of_process() -> int:
    """Bytes that this process held at most so far.

    Linux's `ru_maxrss` will not do: a process inherits it from the one that started it.
    """
    here = from_proc("status", "VmHWM")
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


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: of the host, of a GPU, or what the host shares among processes."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_RAN_OUT.search(str(error)))


def from_proc(file: str, field: str, process: int | None = None) -> int | None:
    """A field of Linux's account of a process, this one or another, in bytes; None where there is none."""
    try:
        found = re.search(
            rf"^{field}:\s+(\d+) kB", Path("/proc", str(process or "self"), file).read_text(), re.M
        )
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024
