"""Injects faults into system calls that write (faults.c), in processes that run with `environment`."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

KILL = -1
"""In place of an errno: kills the process at that call, halfway through a write."""

_SOURCE = Path(__file__).with_name("faults.c")


def environment(folder: Path) -> dict[str, str]:
    """Returns the variables a process needs; builds the library in `folder`, which must outlive the process."""
    library = folder / "faults.so"
    if not library.exists():
        compiler = shutil.which("cc")
        if compiler is None:
            raise SystemExit("the campaigns kills and disk need a C compiler (cc)")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl", "-lpthread"], check=True
        )
    return {"LD_PRELOAD": str(library)}


def arm(root: Path, call: str, pattern: str, nth: int, error: int, lasts: bool = False) -> None:
    """Makes the nth such call from now fail with an errno, or kills the process at it.

    call: "open" (for writing), "write", "sync", "truncate", "rename", "mkdir", "link", "symlink" or "unlink".
    pattern: an fnmatch pattern for the path below the root; * also matches /. lasts: every later call below the root
    fails as well, as on a disk that remains full.
    """
    top = root.resolve()
    ctypes.CDLL(None).faults_arm(
        os.fsencode(top), call.encode(), os.fsencode(f"{top}/{pattern}"), ctypes.c_long(nth), error, lasts
    )


def trace(root: Path, file: Path) -> None:
    """Logs every call on a path below a root to a file outside it: one line per call, with its name and path."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    ctypes.CDLL(None).faults_trace(os.fsencode(root.resolve()), descriptor)
