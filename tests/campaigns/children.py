"""Runs work in forked processes that inherit torch; if they crash, hang or are killed, the campaign continues."""

import contextlib
import os
import pickle
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ending:
    """How a child ended. value: what its function returned. error: the traceback of what it raised. signal: the one
    that killed it, because it ran out of time (`timed_out`) or otherwise. output: its standard output and error.
    """

    value: Any = None
    error: str | None = None
    signal: int | None = None
    timed_out: bool = False
    output: str = ""

    @property
    def problem(self) -> str | None:
        """Why the function did not return, in one line; None if it did."""
        if self.timed_out:
            return "hung"
        if self.signal is not None:
            return f"died of {signal.Signals(self.signal).name}"
        return None if self.error is None else self.error.strip().splitlines()[-1]


class Child:
    """A function running in a forked process that leads its own process group."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, cwd: Path | None = None) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by wait)
        self._reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        os.setsid()
        os.close(self._reader)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(self._output.fileno(), stream)
        try:
            if cwd is not None:
                os.chdir(cwd)
            result = (function(*arguments), None)
        except BaseException:
            result = (None, traceback.format_exc())
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)

    def kill(self) -> None:
        """Kills it and every process it started, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def ended(self) -> bool:
        """Returns whether it has exited or its function has returned."""
        return bool(select.select([self._reader], [], [], 0)[0])

    def wait(self, seconds: float) -> Ending:
        """Waits for the end and returns it; kills the process if it takes longer than `seconds`."""
        deadline, received = time.monotonic() + seconds, b""
        timed_out = False
        while True:
            if not select.select([self._reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                timed_out = True
                break
            if not (part := os.read(self._reader, 1 << 16)):
                break
            received += part
        os.close(self._reader)
        if timed_out:
            self.kill()
        _, status = os.waitpid(self.pid, 0)
        self.kill()  # processes it left running
        self._output.seek(0)
        output = self._output.read().decode(errors="replace")
        self._output.close()
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        value, error = pickle.loads(received) if received and killed is None else (None, None)
        return Ending(value, error, killed, timed_out, output)


def in_child(function: Callable[..., Any], *arguments: Any, seconds: float = 60) -> Ending:
    """Runs a function in a forked process, kills it after `seconds`, and returns how it ended."""
    return Child(function, *arguments).wait(seconds)


def command(*arguments: object) -> int:
    """Runs `gan-nst ARGUMENTS` in this process, which should be a child, and returns the exit code."""
    from gan_nst.cli import main

    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse's
        return int(error.code or 0)
