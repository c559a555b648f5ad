"""Shared by all tests: a demo data set of tiny images, and the smallest settings that train."""
# ruff: noqa: E402 (the environment must be set before the modules that read it are imported)

import atexit
import logging
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# `make test ARGS=...` passes its variables on to every make that a test starts.
for _name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "DOMAIN", "METHOD", "RUN"):
    os.environ.pop(_name, None)

# No test may depend on weights that happen to be on the machine, or write into its caches. This is not a fixture
# because helpers_runs.py copies the environment when it is imported. Matplotlib keeps its cache, which takes seconds to
# build. Another variable passes the folder of real weights to pytest's workers, which inherit the environment.
if "GAN_NST_WEIGHTS" in os.environ:
    os.environ["GAN_NST_TEST_WEIGHTS"] = os.environ.pop("GAN_NST_WEIGHTS")
_WEIGHTS, _DATA = os.environ.get("GAN_NST_TEST_WEIGHTS"), os.environ.get("GAN_NST_TEST_DATA")
_usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
_empty = tempfile.mkdtemp(prefix="gan_nst-tests-")
atexit.register(shutil.rmtree, _empty, ignore_errors=True)
os.environ.setdefault("MPLCONFIGDIR", os.path.join(_usual, "matplotlib"))
os.environ["XDG_CACHE_HOME"] = os.path.join(_empty, "cache")
os.environ["TORCH_HOME"] = os.path.join(_empty, "torch")

import budget
import pytest
import torch
from helpers_runs import TINY

from gan_nst.cli import main
from gan_nst.data.demo import make_demo


def pytest_configure(config):
    budget.register(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Escapes bytes of file names in captured text, which xdist could not send to the controlling process."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny networks gain nothing from threads, and one thread makes sums equal on every machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    """A folder of data sets with a demo `photo2cartoon` of 32-pixel images."""
    root = tmp_path_factory.mktemp("datasets")
    make_demo(root / "photo2cartoon", size=32, count=12, held_out=4)
    return root


@pytest.fixture
def tiny(datasets):
    """Overrides for a run on the demo images that takes seconds."""
    return [f"data.root={datasets}", *TINY]


@pytest.fixture(scope="session")
def pretrained_weights():
    """The folder of real weights named by GAN_NST_WEIGHTS; tests that need it are skipped without it."""
    if not _WEIGHTS:
        pytest.skip("GAN_NST_WEIGHTS is not set to a folder of real weights")
    return Path(_WEIGHTS)


@pytest.fixture(scope="session")
def test_data():
    """The folder of real data sets named by GAN_NST_TEST_DATA; tests that need it are skipped without it."""
    if not _DATA:
        pytest.skip("GAN_NST_TEST_DATA is not set to a folder of real data sets")
    return Path(_DATA)


@pytest.fixture
def in_project(monkeypatch, tmp_path):
    """Changes to a working folder with the project's experiments, in which runs are created."""
    project = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    (tmp_path / "experiments").symlink_to(os.path.join(project, "experiments"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _remove_handlers():
    """The command line's log handlers write to the streams of one test, which are closed after it."""
    yield
    logging.getLogger("gan_nst").handlers.clear()


@pytest.fixture
def gan_nst(capfd, in_project):
    """Runs the command line in this process; returns the exit code, standard output and standard error."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
