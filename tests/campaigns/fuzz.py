"""Fuzzes the readers of untrusted files: an input must be read, or refused in one line that names its file.

Inputs are read in forked children, one batch per child, so that one that crashes, hangs or takes too much memory is
reported and the rest continue. Failing inputs are kept; `python tests/campaigns/fuzz.py READER FILE` reads one again.
"""

import hashlib
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from gan_nst.core.errors import GanNstError, one_line

_BATCH = 500  # inputs per child
_LONGEST = 30  # seconds of wall-clock time per input, after which it is killed
_SLOW = 10  # seconds of CPU time per input
_LARGEST = 2**30  # bytes of memory that an input may take
_KEPT = Path(tempfile.gettempdir(), "gan_nst-fuzz")


def campaign(plan, tally):
    for number, reader in enumerate(_readers(plan.folder)):
        began, before = time.monotonic(), tally.injected
        for what, problem in _fuzz(
            reader, 5_000 if plan.long else 200, plan.seed + 1000 * number, plan.folder
        ):
            tally.count(what, problem)
        print(
            f"fuzz {reader.name}: {tally.injected - before} in {time.monotonic() - began:.0f} s", flush=True
        )


def _readers(folder):
    from readers import readers

    return readers(folder)


def _fuzz(reader, count: int, first: int, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yields (what, problem) for `count` inputs of a reader; `first` is the seed of the first batch, counting up."""
    from children import in_child

    file, outcomes, left = reader.folder / reader.file, folder / "outcomes", count
    for number in range(first, first + count):  # a batch has at least one input
        if left <= 0:
            return
        outcomes.write_text("")
        ending = in_child(_batch, reader, min(_BATCH, left), number, outcomes, seconds=_LONGEST * 20)
        results = [json.loads(line) for line in outcomes.read_text().splitlines()]
        if (died := ending.problem) is not None:
            results.append([died, _keep(file)])
        for problem, kept in results:
            left -= 1
            yield f"{reader.name} {kept or ''} (batch {number})", problem


def _batch(reader, count: int, number: int, outcomes: Path) -> None:
    """Reads `count` inputs and writes a line for each; ends early at one that takes too much memory."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * _LARGEST,) * 2)
    file, start = reader.folder / reader.file, _peak()

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.inputs)
    def try_one(content: bytes) -> None:
        file.write_bytes(content)
        signal.alarm(_LONGEST)
        problem = problem_of(reader, file)
        signal.alarm(0)
        too_large = _peak() - start > _LARGEST
        if too_large:
            problem = f"took {(_peak() - start) / 2**30:.1f} GiB"
        log.write(json.dumps([problem, problem and _keep(file)]) + "\n")
        log.flush()
        if too_large:
            raise SystemExit

    with open(outcomes, "w") as log:
        try:
            try_one()
        except SystemExit:
            return


def problem_of(reader, file: Path) -> str | None:
    """Describes what is wrong with how a reader handled a file; None if it read it or refused it properly."""
    began, problem = time.process_time(), None
    try:
        reader.read(file)
    except GanNstError as error:
        message = str(error)
        if not isinstance(error, reader.refusals):
            problem = f"refused by {type(error).__name__}: {message}"
        elif message != one_line(message) or len(message) > 2000:
            problem = f"refused, but not in one line: {message[:200]!r}"
        elif reader.names and str(reader.folder) not in message:
            problem = f"refused without the file's name: {message}"
        elif "MemoryError" in message:
            problem = f"took all memory: {message}"
    except Exception as error:
        problem = f"{type(error).__name__}: {one_line(str(error))[:200]}"
    if problem is None and (took := time.process_time() - began) > _SLOW:
        problem = f"took {took:.0f} s"
    return problem


def _keep(file: Path) -> str:
    """Copies an input to where it is kept, and returns that path."""
    _KEPT.mkdir(exist_ok=True)
    content = file.read_bytes()
    kept = _KEPT / f"{hashlib.sha256(content).hexdigest()[:12]}{file.suffix}"
    kept.write_bytes(content)
    return str(kept)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _again(name: str, kept: str) -> None:
    """Reads a kept input and prints its problem; errors other than refusals also show their tracebacks."""
    with tempfile.TemporaryDirectory() as folder:
        reader = next(reader for reader in _readers(Path(folder)) if reader.name == name)
        file = reader.folder / reader.file
        file.write_bytes(Path(kept).read_bytes())
        print(problem_of(reader, file) or "no problem")
        reader.read(file)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parent), str(here.parent.parent)]
    _again(*sys.argv[1:])
