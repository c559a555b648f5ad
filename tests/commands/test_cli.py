"""The command line where its own output fails."""

import os
import subprocess
import sys

from helpers_runs import ENVIRONMENT


def test_a_reader_that_has_gone_ends_it_quietly_with_the_shells_exit_code():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "gan_nst", "data", "get"]
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
