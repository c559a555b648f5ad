"""`gan-nst train`: from two folders of pictures to a run with a translator in it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_nst.commands.data import draw_if_missing
from gan_nst.commands.finish import finish
from gan_nst.commands.runs import find_run, new_run
from gan_nst.commands.settings import RunSettings, find_config, load_settings, resolve, resume_settings
from gan_nst.commands.translate import load_weights
from gan_nst.config import dump_yaml
from gan_nst.data.cache import Pictures, open_pictures
from gan_nst.data.fixed import fixed_pictures
from gan_nst.data.folders import DOMAINS, DataSet, fingerprint, locate
from gan_nst.data.loader import Batches, Samples
from gan_nst.data.sampling import mix
from gan_nst.errors import CheckpointError, SettingsError
from gan_nst.images import write_picture
from gan_nst.methods import base
from gan_nst.precision import choose_device
from gan_nst.training import checkpoint, distributed
from gan_nst.training.monitor import Monitor
from gan_nst.training.samples import sample_grid
from gan_nst.training.trainer import AtInterval, Trainer

log = logging.getLogger(__name__)


def train(
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    domain: str | None = None,
    method: str | None = None,
    out: Path | str | None = None,
    resume: Path | str | None = None,
    dry_run: bool = False,
) -> Path | None:
    """Trains, or goes on training, and returns the run folder; None after a dry run.

    config: a YAML file; or give `domain` and `method`, for `experiments/<domain>/<method>.yaml` or the
    default one.
    overrides: `section.key=value` texts. out: the run folder, instead of `runs/<domain>/<method>/<time>`.
    resume: a run to go on with; its settings hold. dry_run: says what would be trained, and trains nothing.
    Raises GanNstError, one line, for every mistake in what was given.
    """
    if resume is not None and (config or domain or method or out):
        raise SettingsError(
            "--resume takes its settings from the run; give it no config, --domain, --method or --out"
        )
    if resume is not None:
        start = _go_on(Path(resume), overrides)
    else:
        start = _begin(Path(config) if config else None, list(overrides), domain, method)
    with distributed.session(start.device.type):
        return _train(start, Path(out) if out else None, dry_run)


@dataclass(frozen=True)
class _Start:
    """Where a session of training begins."""

    settings: RunSettings
    device: torch.device
    run: Path | None = None
    payload: dict[str, Any] | None = None


def _begin(config: Path | None, overrides: list[str], domain: str | None, method: str | None) -> _Start:
    if config is None:
        if domain is None:
            raise SettingsError("nothing to train: give a settings file, --domain NAME, or --resume RUN")
        config = find_config(domain, method or "cyclegan")
        overrides = [f"data.domain={domain}", *overrides]
    elif method is not None or domain is not None:
        raise SettingsError("--domain and --method choose a settings file; give either them or the file")
    settings, device, small = load_settings(config, overrides)
    if small:
        log.info(
            f"no GPU: the small job of {config}'s on_cpu block ({settings.data.crop_size}-pixel crops, small networks)"
        )
    return _Start(settings, device)


def _go_on(path: Path, overrides: Sequence[str]) -> _Start:
    run = find_run(path)
    file, payload = checkpoint.load_newest(run / "checkpoints")
    before, settings = resume_settings(payload["settings"], overrides)
    log.info(f"going on from {file}, step {payload['step']}")
    old, new = before.training.steps, settings.training.steps
    if new != old:
        log.warning(
            f"training.steps {old} -> {new}: schedules now follow {new} steps, "
            "so the learning rate at a step is no longer what it was"
        )
    return _Start(settings, choose_device(settings.device), run, payload)


def _train(start: _Start, out: Path | None, dry_run: bool) -> Path | None:
    settings, device = start.settings, start.device
    if device.type == "cuda" and distributed.processes() > 1:
        device = torch.device("cuda", distributed.local_rank())
        torch.cuda.set_device(device)
    if distributed.rank() != 0:
        logging.getLogger("gan_nst").setLevel(logging.WARNING)
    if distributed.rank() == 0:
        draw_if_missing(settings.data)
    distributed.gather(None)  # the others wait
    data_set = locate(settings.data)
    data_set, pictures = _open(data_set, settings)
    pictures_a_step = settings.training.batch_size * settings.training.accumulation * distributed.processes()
    steps_per_epoch = -(-max(len(pictures[d]) for d in DOMAINS) // pictures_a_step)
    settings = resolve(settings, device, steps_per_epoch)
    steps = settings.training.steps
    assert steps is not None
    until = min(steps, settings.training.stop_at or steps)
    torch.manual_seed(settings.seed)
    plan = base.Plan(steps, steps_per_epoch, settings.seed)
    method = base.find(settings.method_name)(settings.method, plan)
    _check_sizes(method, settings)
    log.info(
        f"{len(pictures['a'])} pictures of a, {len(pictures['b'])} of b; {steps} steps in "
        f"{settings.precision} on {device}" + (f", to step {until}" if until < steps else "")
    )
    if dry_run:
        log.info(
            dump_yaml(settings.model_dump(mode="json")) + f"dry run: nothing was trained; {_sizes(method)}"
        )
        return None
    if start.payload is None and settings.training.init_from is not None:
        _init_generators(method, settings.training.init_from)
    run = start.run or distributed.same_everywhere(
        new_run(settings.data.domain, settings.method_name, out) if distributed.rank() == 0 else None
    )
    trainer = _trainer(method, settings, pictures, device, run, data_set)
    torch.manual_seed(mix(settings.seed, "training", distributed.rank()))
    if start.payload is not None:
        _same_data(start.payload, data_set)
        trainer.restore(start.payload)
    if distributed.rank() != 0:
        trainer.run(until)
        return run
    _write_settings(run, settings)
    monitor = Monitor(run, trainer.step, until)
    monitor.text("settings", dump_yaml(settings.model_dump(mode="json")))
    trainer.monitor = monitor
    watched = (
        data_set.validation
        if all(folder.files for folder in data_set.validation.values())
        else data_set.training
    )
    samples = fixed_pictures(watched, settings.training.sample_count, settings.data)
    trainer.at_interval = [
        AtInterval(settings.training.sample_every, partial(_draw_samples, trainer, samples, run))
    ]
    try:
        trainer.run(until)
    finally:
        monitor.close()
    finish(run, trainer.ema.networks, method.translations(), settings, data_set, pictures, device)
    return run


def _open(data_set: DataSet, settings: RunSettings) -> tuple[DataSet, dict[str, Pictures]]:
    """The training pictures by domain, and the data set without the files that cannot be used."""
    pictures, training, validation = {}, {}, {}
    for d in DOMAINS:
        pictures[d], training[d] = open_pictures(data_set.training[d], settings.data, f"domain {d}")
        validation[d] = data_set.validation[d]
        if validation[d].files:
            _, validation[d] = open_pictures(validation[d], settings.data, f"domain {d}, validation")
    return replace(data_set, training=training, validation=validation), pictures


def _check_sizes(method: base.Method, settings: RunSettings) -> None:
    """Raises SettingsError when the generators cannot return a crop at its own size."""
    for generator in method.generators.values():
        multiple = getattr(generator, "multiple", 1)
        if settings.data.crop_size % multiple:
            raise SettingsError(
                f"data.crop_size: {settings.data.crop_size} is not a multiple of {multiple}, which the generator's "
                "down-samplings need"
            )


def _trainer(
    method: base.Method,
    settings: RunSettings,
    pictures: dict[str, Pictures],
    device: torch.device,
    run: Path,
    data_set: DataSet,
) -> Trainer:
    workers = settings.data.workers
    assert isinstance(workers, int)
    samples = Samples(
        {(d, "picture"): pictures[d] for d in DOMAINS}, method.streams, settings.data, settings.seed
    )
    batches = Batches(
        samples,
        settings.training.batch_size,
        settings.training.accumulation,
        workers=workers,
        rank=distributed.rank(),
        processes=distributed.processes(),
        device=device,
    )
    header = {
        "method": settings.method_name,
        "settings": settings.model_dump(mode="json"),
        "translations": {
            name: {"generator": t.generator, "network": method.generators[t.generator].spec.model_dump()}  # type: ignore[union-attr,operator]
            for name, t in method.translations().items()
        },
        "data": fingerprint(data_set),
    }
    return Trainer(
        method,
        settings.training,
        batches,
        device=device,
        precision=settings.precision,
        checkpoints=run / "checkpoints",
        header=header,
    )


def _init_generators(method: base.Method, source: Path) -> None:
    """Copies the trained generators that `source` has; raises CheckpointError when none fits."""
    copied = []
    for name, translation in method.translations().items():
        weights = load_weights(source, name)
        if weights is None:
            continue
        try:
            method.generators[translation.generator].load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{source}: its generator does not fit method.generator ({reason[:200]})"
            ) from None
        copied.append(name)
    if not copied:
        raise CheckpointError(f"{source}: has no generator for {' or '.join(method.translations())}")
    log.info(f"generators {', '.join(copied)} start from {source}")


def _same_data(payload: dict[str, Any], data_set: DataSet) -> None:
    if payload["data"] != fingerprint(data_set):
        log.warning(
            "the training pictures are not those the run began with; it goes on, but not as it would have"
        )


def _draw_samples(trainer: Trainer, pictures: dict[str, Tensor], run: Path, step: int) -> None:
    grid = sample_grid(trainer.ema.networks, trainer.method.translations(), pictures, trainer.device)
    write_picture(grid, run / "samples" / f"step-{step:06d}.png")
    if trainer.monitor is not None:
        trainer.monitor.picture(step, "samples", grid)


def _write_settings(run: Path, settings: RunSettings) -> None:
    (run / "settings.yaml").write_text(dump_yaml(settings.model_dump(mode="json")), encoding="utf-8")


def _sizes(method: base.Method) -> str:
    counts = {
        name: sum(p.numel() for p in role.networks.parameters()) for name, role in method.roles().items()
    }
    return ", ".join(f"{name} {count / 1e6:.2f} M parameters" for name, count in counts.items())
