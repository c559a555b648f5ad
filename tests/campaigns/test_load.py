"""Memory grows with the number of training files within the design's bound; the logs of a long run can be read."""

import json
import subprocess
import sys
from pathlib import Path

import load
import week

FEWER, MORE = 5_000, 25_000


def test_a_file_takes_few_bytes():
    measured = []
    for count in (FEWER, MORE):  # what does not grow with the files does not count
        done = subprocess.run(
            [sys.executable, Path(load.__file__), str(count)], capture_output=True, text=True, check=False
        )
        assert not done.stderr
        measured.append(json.loads(done.stdout.splitlines()[-2]))
    grown = {key: (measured[1][key] - measured[0][key]) / (2 * (MORE - FEWER)) for key in ("held", "peak")}
    assert 40 < grown["held"] < load.HELD
    assert grown["peak"] < load.PEAK


def test_what_a_run_logs_is_all_there():
    command = [sys.executable, Path(week.__file__), "400"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("400 lines: all there, quick\n"), done
    assert done.returncode == 0
