"""`gan-nst train`: from two folders of pictures to a run with a translator in it."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_nst.commands.finish import finish, forget
from gan_nst.commands.shortage import dispensable, explained
from gan_nst.commands.validate import Validation, can_validate
from gan_nst.commands.watch import Watch
from gan_nst.core.best_effort import BestEffort
from gan_nst.core.device import choose_device, tune
from gan_nst.core.errors import SettingsError
from gan_nst.core.processes import local_rank
from gan_nst.core.settings import dump_yaml, merge
from gan_nst.data.fixed import fixed_pictures
from gan_nst.data.sampling import mix
from gan_nst.images.files import write_picture
from gan_nst.runs.folder import find_run, new_run, refuse_used, training_in, write_whole
from gan_nst.runs.prepare import Prepared, prepare
from gan_nst.runs.settings import RunSettings, find_config, load_settings, resume_settings
from gan_nst.training import checkpoint, distributed
from gan_nst.training.forecast import Forecast
from gan_nst.training.monitor import Monitor
from gan_nst.training.samples import sample_grid
from gan_nst.training.trainer import AtInterval, Noted, Trainer

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

    config: a YAML file; or give `domain` and `method`, for `experiments/<domain>/<method>.yaml` or the default one.
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
        size = settings.data.crop_size
        log.info(f"on the CPU: the small job of {config}'s on_cpu block ({size}-pixel crops, small networks)")
    return _Start(settings, device)


def _go_on(path: Path, overrides: Sequence[str]) -> _Start:
    run = find_run(path)
    file, payload = checkpoint.load_newest(run / "checkpoints")
    # stop_at ended the session that it was given to, and no other.
    saved = merge(payload["settings"], {"training": {"stop_at": None}})
    before, settings = resume_settings(saved, overrides, file)
    log.info(f"going on from {file}, step {payload['step']}")
    old, new = before.training.steps, settings.training.steps
    if new != old:
        log.warning(
            f"training.steps {old} -> {new}: schedules now follow {new} steps, "
            "so at a step the learning rate, and a warm-up if there is one, are no longer what they were"
        )
    return _Start(settings, choose_device(settings.device), run, payload)


def _train(start: _Start, out: Path | None, dry_run: bool) -> Path | None:
    device = start.device
    if device.type == "cuda" and distributed.processes() > 1:
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    tune(device)
    if distributed.rank() != 0:
        logging.getLogger("gan_nst").setLevel(logging.WARNING)
    prepared = prepare(start.settings, device, start.payload)
    settings = prepared.settings
    if dry_run:
        _rehearse(prepared, start.payload["step"] if start.payload else 0)
        return None
    run = start.run or distributed.same_everywhere(
        new_run(settings.data.domain, settings.method_name, out) if distributed.rank() == 0 else None
    )
    with training_in(run) if distributed.rank() == 0 else contextlib.nullcontext():
        if start.run is None and distributed.rank() == 0:
            refuse_used(run)  # by a run that began and ended since
        _train_in(run, prepared, start.payload)
    return run


def _train_in(run: Path, prepared: Prepared, payload: dict[str, Any] | None) -> None:
    """Trains in a run's folder, from its beginning or from a checkpoint."""
    settings = prepared.settings
    trainer = _trainer(prepared, run, compiled=settings.compile == "always")
    if settings.compile == "always":
        log.info("the networks are compiled at the first step, which takes a minute or two")
    torch.manual_seed(mix(settings.seed, "training", distributed.rank()))
    with explained(trainer, settings, run):
        if payload is not None:
            trainer.restore(payload)
        trainer.at_interval = _intervals(trainer, prepared, run)
        if distributed.rank() != 0:
            trainer.run(prepared.until)
            return
        _run(trainer, prepared, run)
        finish(run, prepared)
    if trainer.step < (settings.training.steps or 0):
        log.info(
            f"stopped at {trainer.step} of {settings.training.steps}; go on with: gan-nst train --resume {run}"
        )


def _trainer(prepared: Prepared, run: Path, compiled: bool) -> Trainer:
    return Trainer(
        prepared.method,
        prepared.settings.training,
        prepared.batches,
        device=prepared.device,
        precision=prepared.settings.precision,
        checkpoints=run / "checkpoints",
        header=prepared.header,
        compiled=compiled,
        pictures_of=prepared.batches.files,
    )


def _rehearse(prepared: Prepared, first: int) -> None:
    """Says what would be trained, and what some steps, which are taken and thrown away, tell of the whole."""
    settings = prepared.settings
    trainer = _trainer(prepared, Path(), compiled=False)
    trainer.step = max((settings.training.steps or 1) - 1, 0)  # any warm-up is over by then
    forecast, told = Forecast(prepared.device, first, prepared.until), None
    with explained(trainer, settings):
        for step, micro_batches in enumerate(prepared.batches(first), first + 1):
            if told or step > prepared.until:
                break
            trainer.train_step(micro_batches)
            told = forecast.after(step)
    log.info(f"{dump_yaml(settings.model_dump(mode='json'))}dry run: no run was made; {_sizes(prepared)}")
    if told:
        log.info(told + (", before the networks are compiled" if settings.compile == "always" else ""))
    elif first >= prepared.until:
        log.info(f"nothing is left to do: the run is at step {first} of {prepared.until}")


def _run(trainer: Trainer, prepared: Prepared, run: Path) -> None:
    """Trains under a monitor."""
    settings = prepared.settings
    plain = dump_yaml(settings.model_dump(mode="json"))
    write_whole(run / "settings.yaml", plain)
    if trainer.step < prepared.until:
        forget(run, prepared.method.translations())
    monitor = Monitor(run, trainer.step, prepared.until)
    monitor.text("settings", plain)
    trainer.monitor = monitor
    trainer.forecast = Forecast(trainer.device, trainer.step, prepared.until, prepared.growth)
    try:
        trainer.run(prepared.until)
    finally:
        monitor.close()


def _intervals(trainer: Trainer, prepared: Prepared, run: Path) -> list[AtInterval]:
    """What happens in the loop beside training: validation, sample grids of validation or else training pictures, and
    looks at the curves.

    Rank 0 alone does it; the others need to know when.
    """
    settings, data_set = prepared.settings, prepared.data_set
    validates = can_validate(prepared)
    draw = validate = watch = None
    if distributed.rank() == 0:
        watched = (
            data_set.validation if all(f.files for f in data_set.validation.values()) else data_set.training
        )
        count = min(settings.training.sample_count, *(len(folder.files) for folder in watched.values()))
        samples = {domain: fixed_pictures(folder, count, settings.data) for domain, folder in watched.items()}
        draw = partial(_draw_samples, trainer, samples, run, BestEffort(run / "samples"))
        validate = partial(_validate, Validation(trainer, prepared)) if validates else None
        watch = Watch(run)
    every = settings.training.sample_every
    intervals = [AtInterval(every, draw), AtInterval(every, watch)]
    if validates:
        intervals.append(AtInterval(settings.evaluation.every, validate, at_end=True))
    return intervals


def _draw_samples(
    trainer: Trainer, pictures: dict[str, Tensor], run: Path, effort: BestEffort, step: int
) -> None:
    with dispensable(f"step {step}: no sample grid"):
        grid = sample_grid(trainer.ema.networks, trainer.method.translations(), pictures, trainer.device)
        with effort.attempt():
            write_picture(grid, run / "samples" / f"step-{step:06d}.png")
        if trainer.monitor is not None:
            trainer.monitor.picture(step, "samples", grid, step // trainer.settings.sample_every)


def _validate(validation: Validation, step: int) -> Noted | None:
    with dispensable(f"step {step}: no validation"):
        return validation(step)
    return None


def _sizes(prepared: Prepared) -> str:
    roles = prepared.method.roles()
    counts = {name: sum(p.numel() for p in role.networks.parameters()) for name, role in roles.items()}
    return ", ".join(f"{name} {count / 1e6:.2f} M parameters" for name, count in counts.items())
