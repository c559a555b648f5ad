"""The loader's processes, watched: that one died, stalls or leaks is noticed in time and told with its pictures."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gan_nst.core.errors import DataError, SettingsError
from gan_nst.core.memory import from_proc

log = logging.getLogger(__name__)

_LEAK = 1 << 30  # bytes of its own by which a process may grow after its first batches
_LOOKED_EVERY = 60.0  # seconds
_PATIENCE = 5.0  # seconds for a killed process to end; one that waits for its disk may not
_SHOWN = 4  # pictures named in a message


class Died(Exception):
    """A loader process died; the message says how, and at which pictures."""


class Drawn(Protocol):
    """Samples by their draw, and the files that each is made of."""

    def __getitem__(self, draw: int) -> dict[str, Tensor]: ...

    def files(self, draw: int) -> dict[str, Path]: ...


class Loading:
    """Batches of samples, made in `workers` processes, or here where that is 0.

    draws: of each batch. timeout: seconds that a batch may take; 0: any. `close` ends the processes, whatever they do.
    """

    def __init__(
        self, samples: Drawn, draws: Iterator[list[int]], workers: int, *, pin_memory: bool, timeout: float
    ) -> None:
        self._samples, self._workers, self._timeout = samples, workers, timeout
        self._noted = _Noted(samples, workers)
        loader = DataLoader(
            self._noted,
            batch_sampler=draws,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=self._noted.begin,
            timeout=timeout if workers else 0,
            generator=torch.Generator(),  # each start draws a seed; from the global one, resume would not be exact
        )
        before = set(multiprocessing.active_children())
        self._iterator: Iterator[dict[str, Tensor]] | None = iter(loader)
        self._processes = [child for child in multiprocessing.active_children() if child not in before]
        _let_deaths_wait()
        self._taken, self._looked, self._held = 0, 0.0, dict[int, int]()

    def batch(self) -> dict[str, Tensor]:
        """The next batch. Raises Died, and DataError or SettingsError for what cannot be loaded or does not come."""
        assert self._iterator is not None
        failure: Exception
        try:
            for process in self._processes:  # while nobody waited for a batch
                if not process.is_alive():
                    raise Died(self._how(process.exitcode, process.pid))
            with _deaths_told(), self._told_late():
                batch = next(self._iterator)
            self._taken += 1
            return batch
        except (DataError, SettingsError) as error:
            # A worker's error arrives with its traceback; its last line is the message.
            message = str(error).strip().splitlines()[-1]
            failure = type(error)(message.removeprefix(f"gan_nst.core.errors.{type(error).__name__}: "))
            error.__traceback__ = None  # its frames would keep the loader, whose processes then end late
        except RuntimeError as error:
            if "DataLoader timed out" in str(error):
                failure = DataError(
                    f"no batch came for {self._timeout:g} s (data.timeout), and the loader processes are at "
                    f"{self._pictures() or 'no picture'}; see whether their disk answers, and resume"
                )
                self._kill_the_busy()
            elif "DataLoader worker (pid" in str(error):
                failure = Died(self._how_any())
            else:
                raise
            error.__traceback__ = None
        raise failure

    def leak(self) -> str | None:
        """What to say of a process that has come to hold more and more; None as long as none has."""
        now = time.monotonic()
        if self._taken < 2 * self._workers or now < self._looked + _LOOKED_EVERY:
            return None
        self._looked = now
        held = {
            p.pid: from_proc("status", "RssAnon", p.pid) or 0 for p in self._processes if p.pid is not None
        }
        self._held = self._held or held
        for pid, size in held.items():
            if size > self._held[pid] + _LEAK:
                grown = f"{self._held[pid] / 2**20:.0f} to {size / 2**20:.0f} MiB"
                return f"a loader process grew from {grown}: an augmentation may leak"
        return None

    def close(self) -> None:
        """Ends the processes: torch asks them to, and those that do not answer are killed."""
        self._iterator = None
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join(_PATIENCE)

    def _pictures(self, pid: int | None = None) -> str:
        """What the processes, or that one, are at."""
        draws = [draw for process, draw in self._noted.at() if pid in (None, process)]
        files = [str(file) for draw in draws for file in dict.fromkeys(self._samples.files(draw).values())]
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        return ", ".join(files[:_SHOWN]) + more

    def _how_any(self) -> str:
        """How the process died of which torch tells."""
        for _ in range(100):  # its end may be told before it can be waited for
            for process in self._processes:
                if not process.is_alive():
                    return self._how(process.exitcode, process.pid)
            time.sleep(0.01)
        return "it is gone"

    def _how(self, code: int | None, pid: int | None) -> str:
        how = f"exit code {code}"
        with contextlib.suppress(ValueError, TypeError):
            how = f"killed by {signal.Signals(-(code or 0)).name}"
        pictures = self._pictures(pid)
        return f"{how} at {pictures}" if pictures else how

    def _kill_the_busy(self) -> None:
        """Kills the processes within a sample; whoever is not is left to torch, as it may hold a lock."""
        for pid, _ in self._noted.at():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def _told_late(self) -> Iterator[None]:
        """Without processes nothing can end a batch that does not come; a warning says what it waits for."""
        if self._workers or not self._timeout:
            yield
            return
        timer = threading.Timer(self._timeout, self._warn)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _warn(self) -> None:
        log.warning(f"no batch came for {self._timeout:g} s (data.timeout); it waits for {self._pictures()}")


class _Noted(Dataset[dict[str, Tensor]]):
    """Samples, and which of them each process is at."""

    def __init__(self, samples: Drawn, workers: int) -> None:
        self._samples = samples
        self._pids: Sequence[int] = RawArray("q", max(1, workers))
        self._draws: Any = RawArray("q", [-1] * max(1, workers))

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        told = get_worker_info()
        worker = 0 if told is None else told.id
        self._draws[worker] = draw
        sample = self._samples[draw]
        self._draws[worker] = -1
        return sample

    def begin(self, worker: int) -> None:
        """What a process begins with. Ctrl-C and a supervisor's SIGTERM reach every process of a group; the main one
        alone decides when to stop.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._pids[worker] = os.getpid()  # type: ignore[index]

    def at(self) -> list[tuple[int, int]]:
        """(process, draw) of those within a sample."""
        return [(pid, draw) for pid, draw in zip(self._pids, self._draws, strict=True) if draw >= 0]


class _Deaths:
    """Torch's handler of SIGCHLD raises wherever the main process is, in the middle of a step too, which then cannot
    be gone on with. This one calls it only while a batch is waited for; `Loading.batch` looks for other deaths itself.
    """

    waited_for = False

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _Deaths.waited_for:
            self._handler(number, frame)


def _let_deaths_wait() -> None:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler) and not isinstance(handler, _Deaths):
        signal.signal(signal.SIGCHLD, _Deaths(handler))


@contextlib.contextmanager
def _deaths_told() -> Iterator[None]:
    _Deaths.waited_for = True
    try:
        yield
    finally:
        _Deaths.waited_for = False
