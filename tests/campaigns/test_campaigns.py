"""The short form of every campaign: nothing injected may break anything. `make campaign` is the long form."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
NAMES = ["kills", "disk", "images", "fuzz", "hostile"]


@pytest.mark.timeout(1200)  # a minute where nothing else runs
@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_short_campaign_survives(name):
    if name in ("kills", "disk") and not shutil.which("cc"):
        pytest.skip("faults at system calls need a C compiler")
    result = subprocess.run(
        [sys.executable, RUN, "--short", name], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr + result.stdout
    survived, injected = result.stdout.strip().splitlines()[-1].removeprefix(f"{name} ").split("/")
    assert survived == injected != "0"
