"""Runs work in two processes of one group."""

import os

import torch
import torch.multiprocessing as mp


def in_two_processes(folder, work, *arguments):
    """Returns the results of `work(rank, *arguments)` in two processes that meet in `folder`, in any order."""
    context = mp.get_context("spawn")
    results, all_received = context.SimpleQueue(), context.Event()
    given = (work, str(folder / "meet"), arguments, results, all_received)
    processes = mp.spawn(_one_of_two, given, nprocs=2, join=False)
    found = results.get(), results.get()
    all_received.set()
    processes.join()
    return found


def _one_of_two(rank, work, meeting, arguments, results, all_received):
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    results.put(work(rank, *arguments))
    all_received.wait()
    os._exit(0)  # gloo sometimes aborts a process that destroys its group
