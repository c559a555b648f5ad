"""Work that two processes of one group do together."""

import os

import torch
import torch.multiprocessing as mp


def in_two_processes(folder, work, *arguments):
    """What `work(rank, *arguments)` returns in each of two processes of a group, in any order. folder: to meet in."""
    context = mp.get_context("spawn")
    results, all_told = context.SimpleQueue(), context.Event()
    given = (work, str(folder / "meet"), arguments, results, all_told)
    processes = mp.spawn(_one_of_two, given, nprocs=2, join=False)
    found = results.get(), results.get()
    all_told.set()
    processes.join()
    return found


def _one_of_two(rank, work, meeting, arguments, results, all_told):
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    results.put(work(rank, *arguments))
    all_told.wait()
    os._exit(0)  # gloo aborts a process at times that takes its group down
