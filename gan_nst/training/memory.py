"""How much memory a training has needed."""

import torch


def peak_memory(device: torch.device) -> int:
    """Bytes, at most so far: the device's for CUDA, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # only there where processes are a Unix's
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
