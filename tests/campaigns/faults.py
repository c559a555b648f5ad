"""Faults at the system calls that write (faults.c), for processes that run under `environment`."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

KILL = -1
"""Instead of an errno: the process is killed there, in the middle of what it writes."""

_SOURCE = Path(__file__).with_name("faults.c")


def environment(folder: Path) -> dict[str, str]:
    """What a process needs in its environment; the library is built into a folder, which must outlast the process."""
    library = folder / "faults.so"
    if not library.exists():
        compiler = shutil.which("cc")
        if compiler is None:
            raise SystemExit("the campaigns kills and disk need a C compiler, cc")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl", "-lpthread"], check=True
        )
    return {"LD_PRELOAD": str(library)}


def arm(root: Path, call: str, pattern: str, nth: int, error: int, lasts: bool = False) -> None:
    """Makes the nth such call from now fail with an errno, or kills the process there.

    call: "open" (for writing), "write", "sync", "truncate", "rename", "mkdir", "link", "symlink" or "unlink".
    pattern: of its path below the root, as fnmatch has them; * stands for any text, / too. lasts: every call under the
    root fails from then on, as on a disk that stays full.
    """
    top = root.resolve()
    ctypes.CDLL(None).faults_arm(
        os.fsencode(top), call.encode(), os.fsencode(f"{top}/{pattern}"), ctypes.c_long(nth), error, lasts
    )


def trace(root: Path, file: Path) -> None:
    """Has every call on a path under a root told to a file outside it, a line each: the call and the path."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    ctypes.CDLL(None).faults_trace(os.fsencode(root.resolve()), descriptor)
