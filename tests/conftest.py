"""What the tests share: one demo data set of tiny pictures, and the smallest settings that still train."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch

from gan_nst.data.demo import make_demo

TINY = [
    "device=cpu",
    "precision=float32",
    "data.load_size=36",
    "data.crop_size=32",
    "data.upscale=true",
    "method.generator.width=4",
    "method.generator.blocks=1",
    "method.generator.downsamplings=1",
    "method.discriminator.width=4",
    "method.discriminator.layers=2",
    "training.log_every=1",
    "training.checkpoint_every=2",
    "training.sample_every=4",
    "training.sample_count=2",
]


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny networks gain nothing from threads, and sums come out the same on every machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    """A folder of data sets that holds a demo `photo2cartoon` of 32-pixel pictures."""
    root = tmp_path_factory.mktemp("datasets")
    make_demo(root / "photo2cartoon", size=32, count=12, held_out=4)
    return root


@pytest.fixture
def tiny(datasets):
    """Overrides for a run of seconds on the demo pictures."""
    return [f"data.root={datasets}", *TINY]


@pytest.fixture
def in_project(monkeypatch, tmp_path):
    """A working folder with the project's experiments in it, so that runs land in it."""
    project = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    (tmp_path / "experiments").symlink_to(os.path.join(project, "experiments"))
    monkeypatch.chdir(tmp_path)
    return tmp_path
