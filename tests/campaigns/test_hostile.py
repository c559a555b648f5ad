"""The pickles of the hostile campaign run where a loader is careless; else refusing them would prove nothing."""

import contextlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from hostile_files import HARMLESS, LOADERS, form, pickles


def bitten(folder):
    """By name whether a careless loader of its form ran the code of a pickle."""
    found = {}
    canary = folder / "canary"
    for name, content in pickles(canary).items():
        canary.unlink(missing_ok=True)
        path = folder / "x"
        path.write_bytes(content)
        with contextlib.suppress(Exception):  # what comes after the code
            LOADERS[form(name)](path)
        found[name] = canary.exists()
    return found


def test_a_careless_loader_runs_every_pickle_but_the_harmless(tmp_path):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        found = child.submit(bitten, tmp_path).result()
    assert {name for name in found if not found[name]} == set(HARMLESS)
    assert {form(name) for name in found} == LOADERS.keys()
