"""Checkpoints with mutations."""

import io
from pathlib import Path

import torch
from fuzz_mutations import changed_archive, changed_bytes, changed_data
from hypothesis import strategies as st

from gan_nst.methods import base
from gan_nst.runs.settings import load_settings
from gan_nst.training.trainer import Trainer

_CONFIG = """
method: {name: cyclegan, generator: {width: 2, blocks: 1, downsamplings: 1}, discriminator: {width: 2, layers: 1}}
training: {steps: 10}
data: {load_size: 16, crop_size: 16, cache: never}
evaluation: {features: none, score: none, export: last}
precision: float32
"""


def make_trainer(folder: Path, config: str = _CONFIG) -> tuple[Trainer, dict]:
    """A trainer of tiny networks after two steps, and the contents of its checkpoint."""
    folder.mkdir()
    (folder / "tiny.yaml").write_text(config)
    settings, device, _ = load_settings(folder / "tiny.yaml", ["device=cpu"])
    torch.manual_seed(0)
    method = base.find(settings.method_name)(settings.method, base.Plan(10, 5))
    translations = {
        name: {
            "generator": t.generator,
            "source": t.source,
            "target": t.target,
            "network": method.generators[t.generator].spec.model_dump(),
        }
        for name, t in method.translations().items()
    }
    header = {
        "method": settings.method_name,
        "settings": settings.model_dump(mode="json"),
        "translations": translations,
        "data": "0123456789abcdef",
    }
    trainer = Trainer(
        method,
        settings.training,
        lambda step: iter(()),
        device=device,
        precision="float32",
        checkpoints=folder,
        header=header,
    )
    trainer.notes = {"best": {"step": 1, "score": "ab/error", "value": 0.5, "by": "4, 4 images"}}
    trainer.example = [{name: torch.rand(1, 3, 16, 16) for name in method.streams}]
    for trainer.step in range(2):
        trainer.train_step([dict(trainer.example[0])])
    trainer.step = 2
    trainer.save()
    return trainer, torch.load(next(folder.glob("step-*.pt")), weights_only=True)


_tensors = st.sampled_from(
    [
        *(
            torch.zeros(3),
            torch.zeros(()),
            torch.zeros(0),
            torch.zeros(2, 3, 7, 7),
            torch.ones(5056, dtype=torch.uint8),
        ),
        *(
            torch.full((2, 3, 7, 7), float("nan")),
            torch.zeros(2, 3, 7, 7, dtype=torch.int64),
            torch.zeros(2).to_sparse(),
        ),
        *(
            torch.zeros(1).expand(2, 3, 7, 7),
            torch.zeros(2, 3, 7, 7, dtype=torch.complex64),
            torch.zeros(2, device="meta"),
        ),
        *(
            torch.zeros(1).expand(10**9),
            torch.zeros(2, 3, 7, 7, dtype=torch.float16),
            torch.zeros(2, dtype=torch.bool),
        ),
    ]
)
_values = st.one_of(
    st.sampled_from(
        [None, True, -1, 0, 10**30, 2**63, 1.5, float("nan"), "x", "", "\ud800", "a\nb", b"x", [], {}, ()]
    ),
    st.sampled_from(
        [
            1024,
            100,
            5,
            "reflect",
            "resnet",
            "patchgan",
            "cartoon",
            "ba",
            ["x"],
            {"x": 1},
            {1: {}},
            [{}],
            set(),
        ]
    ),
    _tensors,
)


def _saved(payload: object) -> bytes:
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


def checkpoints(payload: dict) -> st.SearchStrategy[bytes]:
    """Mutations of the checkpoint with this payload."""
    file = _saved(payload)
    return st.one_of(
        changed_data(payload, _values).map(_saved),
        changed_data(payload, _values).map(_saved),
        changed_archive(file, "data.pkl"),
        changed_bytes(file),
        st.binary(max_size=200),
    )
