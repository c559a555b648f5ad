"""The description of the machine that produced the results."""

import json
import os

import torch

from gan_nst.core.device import describe_machine


def test_the_machine_is_described_in_plain_text():
    found = describe_machine(torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == "cpu"
    assert found["torch"] == torch.__version__
    assert found["processor"].endswith(f", {os.cpu_count()} cores")
