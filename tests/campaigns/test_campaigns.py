"""The short form of every campaign: every injected fault must be survived. `make campaign` runs the long form."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
NAMES = ["kills", "disk", "images", "fuzz", "hostile"]


@pytest.mark.timeout(1200)  # a minute on an otherwise idle machine
@pytest.mark.parametrize("name", NAMES)
def test_every_fault_of_a_short_campaign_is_survived(name):
    if name in ("kills", "disk") and not shutil.which("cc"):
        pytest.skip("injecting faults into system calls needs a C compiler")
    result = subprocess.run(
        [sys.executable, RUN, "--short", name], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr + result.stdout
    survived, injected = result.stdout.strip().splitlines()[-1].removeprefix(f"{name} ").split("/")
    assert survived == injected != "0"
