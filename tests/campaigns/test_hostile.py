"""Careless loaders execute the hostile campaign's pickles; otherwise refusing them would prove nothing."""

import contextlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from hostile_files import HARMLESS, LOADERS, pickle_format, pickles


def code_executed(folder):
    """For each pickle, by name, whether a careless loader of its format executed its code."""
    executed = {}
    canary = folder / "canary"
    for name, content in pickles(canary).items():
        canary.unlink(missing_ok=True)
        path = folder / "x"
        path.write_bytes(content)
        with contextlib.suppress(Exception):  # errors after the code has run
            LOADERS[pickle_format(name)](path)
        executed[name] = canary.exists()
    return executed


def test_careless_loaders_execute_every_pickle_except_the_harmless(tmp_path):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        executed = child.submit(code_executed, tmp_path).result()
    assert {name for name in executed if not executed[name]} == set(HARMLESS)
    assert {pickle_format(name) for name in executed} == LOADERS.keys()
