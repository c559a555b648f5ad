"""A run's settings: all sections together, from a YAML file and overrides, or from a run that is resumed."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, SerializeAsAny, create_model

from gan_nst.core.device import choose_device, choose_precision
from gan_nst.core.errors import CheckpointError, SettingsError, format_value
from gan_nst.core.settings import Section, merge, read_overrides, read_yaml, setting_paths, validate
from gan_nst.core.threads import cpus
from gan_nst.data.domains import DataSettings
from gan_nst.evaluation.features import best_available, score_key
from gan_nst.evaluation.settings import EvaluationSettings
from gan_nst.methods import base
from gan_nst.training.settings import TrainingSettings

log = logging.getLogger(__name__)


class RunSettings(Section):
    """Everything a run is determined by."""

    seed: int = Field(
        0, ge=0, lt=2**62, description="of the weights, the order of the images and their augmentation"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where it is native"
    )
    compile: Literal["auto", "never", "always"] = Field(
        "auto",
        description="of the networks, by torch's compiler; auto: on a GPU, where there is one and the run is long",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="on the CPU; auto: one for small networks, else as many as OMP_NUM_THREADS or the machine has",
    )
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    method: SerializeAsAny[base.MethodSettings] = Field(description="the method's own settings")

    @property
    def method_name(self) -> str:
        """The name of the method, which every method's settings begin with."""
        return str(self.method.name)  # type: ignore[attr-defined]


# What may change when a run is resumed: none of it changes what is learned.
RESUMABLE = {
    "device",
    "compile",
    "threads",
    "data.root",
    "data.a",
    "data.b",
    "data.test_a",
    "data.test_b",
    "data.workers",
    "data.timeout",
    "data.cache",
    "training.activation_checkpointing",
    "training.on_nonfinite",  # until a value is not finite, which no run has learned from
    "training.stop_at",
    "training.log_every",
    "training.sample_every",
    "training.sample_count",
    "training.checkpoint_every",
    "training.checkpoints_kept",
    *(f"evaluation.{name}" for name in EvaluationSettings.model_fields),
}


def settings_model(method: type[base.Method]) -> type[RunSettings]:
    """RunSettings with the method's own section."""
    return create_model("RunSettings", __base__=RunSettings, method=(method.Settings, method.Settings()))


def load_settings(path: Path, overrides: Sequence[str]) -> tuple[RunSettings, torch.device, bool]:
    """The settings of a YAML file under overrides, the device, and whether the file's `on_cpu` block was
    used.

    Later wins: defaults, the file, its `on_cpu` block where the device is the CPU, the overrides. Raises
    SettingsError.
    """
    plain = read_yaml(path)
    on_cpu = plain.pop("on_cpu", None) or {}
    if not isinstance(on_cpu, dict):
        raise SettingsError(f"{path}: on_cpu: expected a group of settings")
    name = _method_name(plain, overrides)
    model = settings_model(base.find(name))
    over = read_overrides(model, list(overrides))
    for layers in ([plain], [plain, on_cpu]):  # mistakes in the block are reported on every machine
        validate(model, _stack(layers), where=str(path))
    device = choose_device(str(_stack([plain, over]).get("device", "auto")))
    small = device.type == "cpu" and bool(on_cpu)
    return validate(model, _stack([plain, *([on_cpu] if small else []), over])), device, small


def resume_settings(saved: Mapping[str, Any], overrides: Sequence[str], where: Path) -> RunSettings:
    """A run's saved settings under overrides that do not change what it learns. where: their file.

    Raises CheckpointError for saved settings that are invalid, and SettingsError for overrides that would.
    """
    try:
        method = base.find(_method_name(saved, ()))
        model = settings_model(method)
        before = validate(model, _stack([saved]))
    except SettingsError as error:
        raise CheckpointError(
            f"{where}: the settings in its checkpoint are not valid here: {error}"
        ) from None
    resumable = RESUMABLE | {f"method.{name}" for name in method.resumable}
    over = read_overrides(model, list(overrides))
    after = validate(model, _stack([saved, over]))
    refused = []
    for path, _ in setting_paths(model):
        old, new = _value(before, path), _value(after, path)
        if old == new or isinstance(new, Section) or path in resumable:
            continue
        if path == "training.steps" and new is not None and old is not None and new > old:
            log.warning(
                f"training.steps {old} -> {new}: schedules now follow {new} steps, so the learning rate at a step, "
                "and a warm-up if there is one, differ from before"
            )
            continue
        refused.append(f"{path} ({old} in the run, {new} given)")
    if refused:
        raise SettingsError(
            f"--resume cannot change {', '.join(refused)}, as that would change what is learned; start a new run"
        )
    return after


def resolve(settings: RunSettings, device: torch.device, steps_per_epoch: int) -> RunSettings:
    """The settings with every `auto` and the planned length resolved, as a run saves them."""
    training, data = settings.training, settings.data
    steps = training.steps
    if steps is None:
        assert training.epochs is not None
        steps = max(1, round(training.epochs * steps_per_epoch))
    workers = data.workers
    if workers == "auto":
        workers = 0 if device.type == "cpu" else max(0, min(4, cpus() - 1))
    return settings.model_copy(
        update={
            "precision": choose_precision(settings.precision, device),
            "training": training.model_copy(update={"steps": steps, "epochs": None}),
            "data": data.model_copy(update={"workers": workers}),
            "method": base.find(settings.method_name).resolve(settings.method),
        }
    )


def resolve_evaluation(
    settings: RunSettings, device: torch.device, paired: bool, translations: Collection[str]
) -> RunSettings:
    """The settings with the evaluation's `auto` resolved, by what is available on this machine and whether the
    validation images are paired. Raises SettingsError for a score that will not be computed.
    """
    evaluation = settings.evaluation
    features = evaluation.features
    if features == "auto":
        here = best_available(evaluation.weights)
        # On the CPU, Inception would take longer than the small trainings there.
        affordable = here == "inception" and device.type != "cpu"
        asked_for = evaluation.weights is not None
        features = here if affordable or asked_for else "none" if paired else "random"
    keys = [] if features == "none" else [score_key(features, "frechet"), score_key(features, "kernel")]
    keys += ["error"] if paired else []
    known = [f"{name}/{score}" for name in translations for score in keys]
    score = evaluation.score
    if score == "auto":
        score = known[0] if known else "none"
    if score not in [*known, "none"]:
        raise SettingsError(
            f"evaluation.score: expected auto or one of {', '.join(known) or 'none'}, got {score!r}"
        )
    export = evaluation.export
    if export == "auto":
        export = "last" if score == "none" or score.endswith("_random") else "best"
    resolved = evaluation.model_copy(update={"features": features, "score": score, "export": export})
    return settings.model_copy(update={"evaluation": resolved})


def find_config(domain: str, method: str) -> Path:
    """`experiments/<domain>/<method>.yaml`, or the default one of the method. Raises SettingsError without
    either.
    """
    for folder in (domain, "default"):
        path = Path("experiments", folder, f"{method}.yaml")
        if path.is_file():
            return path
    base.find(method)  # has its own message for a misspelt method
    raise SettingsError(
        f"experiments/{domain}/{method}.yaml: no such file, nor experiments/default/{method}.yaml"
    )


def _method_name(plain: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    given = [text.partition("=")[2] for text in overrides if text.startswith("method.name=")]
    section = plain.get("method")
    return given[-1] if given else section.get("name") if isinstance(section, dict) else None


def _stack(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The layers merged; of `steps` and `epochs` the later layer's wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        training = layer.get("training")
        if isinstance(training, Mapping):
            steps, epochs = training.get("steps"), training.get("epochs")
            if steps is not None and epochs is not None:
                given = f"training.steps={format_value(steps)} and training.epochs={format_value(epochs)}"
                raise SettingsError(f"{given}: give one of them")
            if steps is not None:
                layer = merge(layer, {"training": {"epochs": None}})
            elif epochs is not None:
                layer = merge(layer, {"training": {"steps": None}})
        merged = merge(merged, layer)
    return merged


def _value(settings: Section, path: str) -> Any:
    value: Any = settings
    for key in path.split("."):
        value = getattr(value, key, None)
    return value
