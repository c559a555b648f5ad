"""The training loop, written once for every method."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_nst.core.device import autocast, memory_format, peak_memory
from gan_nst.core.errors import CheckpointError, DataError, Interrupted, shorten
from gan_nst.core.terminal import StopRequest, stop_on_signals
from gan_nst.methods.base import Batch, Method, Update
from gan_nst.training import checkpoint, distributed
from gan_nst.training.compilation import Forecast, compile_networks
from gan_nst.training.guard import Guard, ImagesOf, NonFinite
from gan_nst.training.monitor import Monitor
from gan_nst.training.optimizers import Ema, make_optimizer, restore_optimizer
from gan_nst.training.settings import TrainingSettings

log = logging.getLogger(__name__)


class Means:
    """Sums values by name; a step adds them together, in one tensor, so that nothing waits for the device."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}  # the last place of each counts

    def add(self, names: tuple[str, ...], values: Tensor, skipped: Tensor | None = None) -> None:
        """Adds as many values as there are names; where `skipped` is 1.0 none of them."""
        counted = torch.cat([values, values.new_ones(1)])
        if skipped is not None:
            counted = torch.where(skipped > 0, torch.zeros_like(counted), counted)
        before = self._sums.get(names)
        self._sums[names] = counted if before is None else before + counted

    def take(self) -> dict[str, float]:
        """The mean of each since they were last taken; it waits for the device."""
        pooled: dict[str, tuple[float, float]] = {}
        for names, sums in self._sums.items():
            *totals, added = sums.tolist()
            # One name may stand beside others in a warm-up than after it.
            for name, total in zip(names, totals, strict=True):
                before, counted = pooled.get(name, (0.0, 0.0))
                pooled[name] = (before + total, counted + added)
        self._sums = {}
        return {name: total / count for name, (total, count) in pooled.items() if count}


def gradient_shares(
    method: Method, step: int, batch: Batch, precision: str, device: torch.device
) -> dict[str, float]:
    """For every role that moves the generators, "gradient_share/<role>/<term>": the norm of that term's gradient over
    the sum of all terms' norms.

    It costs one forward pass and a backward pass a term, on a copy of the method, so that nothing of a run is
    touched: neither gradients nor replay buffers nor random states.
    """
    trial = copy.deepcopy(method)
    generators = set(trial.generators.parameters())
    roles = trial.roles()
    shares: dict[str, float] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for update in trial.updates(step):
            networks = roles[update.role].networks
            parameters = list(networks.parameters())
            if generators.isdisjoint(parameters):
                continue
            networks.requires_grad_(True)
            with autocast(precision, device):
                losses = update.losses(dict(batch))
            norms = dict.fromkeys(losses, 0.0)
            for name, loss in losses.items():
                if not loss.requires_grad:  # a constant moves nothing
                    continue
                gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
                norms[name] = torch.nn.utils.get_total_norm([g for g in gradients if g is not None]).item()
            networks.requires_grad_(False)
            total = sum(norms.values())
            if not math.isfinite(total):
                continue
            shares |= {
                f"gradient_share/{update.role}/{name}": norm / total if total > 0 else 0.0
                for name, norm in norms.items()
            }
    return shares


BatchesFrom = Callable[[int], Iterator[list[Batch]]]
"""Endlessly, the micro-batches of a step and of the steps after it."""


@dataclass(frozen=True)
class IntervalResult:
    """What an action at an interval found: scalars to log with the step, and a name, "best" for example, under which
    the step's checkpoint shall be kept beside the numbered ones.
    """

    scalars: Mapping[str, float] = field(default_factory=dict)
    keep_as: str | None = None


@dataclass(frozen=True)
class IntervalAction:
    """Something that happens inside the loop but belongs elsewhere: `action(step)` every so many steps.

    at_end: also at the last planned step. Every process has the same intervals; rank 0 alone has actions.
    """

    every: int
    action: Callable[[int], IntervalResult | None] | None
    at_end: bool = False


class Trainer:
    """Runs a method's updates, step after step, and keeps what makes a run resumable.

    header: plain data that every checkpoint carries beside the state: method, settings, translations, data.
    compiled: whether the networks are compiled, at the first step. images_of: names a step's images, should a
    value not be finite.
    """

    def __init__(
        self,
        method: Method,
        settings: TrainingSettings,
        batches: BatchesFrom,
        *,
        device: torch.device,
        precision: str,
        checkpoints: Path,
        header: dict[str, Any],
        compiled: bool = False,
        images_of: ImagesOf | None = None,
    ) -> None:
        self.method = method.to(device).to(memory_format=memory_format(device))
        self.settings = settings
        self.device = device
        self.precision = precision
        self.step = 0
        self.monitor: Monitor | None = None
        self.forecast: Forecast | None = None
        self.at_interval: Sequence[IntervalAction] = ()
        # Plain data of whoever acts at an interval; every checkpoint carries it.
        self.notes: dict[str, Any] = {}
        self.roles = method.roles()
        self.optimizers = {name: make_optimizer(role) for name, role in self.roles.items()}
        self.ema = Ema(method.generators, settings.ema)
        self.guard = Guard(device, lasting=settings.on_nonfinite == "stop")
        self.nonfinite = NonFinite(self.guard, settings, checkpoints, images_of, precision)
        # Running statistics and the like, which a forward pass moves.
        self._buffers = [buffer for role in self.roles.values() for buffer in role.networks.buffers()]
        self.means = Means()  # of "<role>/<term>" and "gradient_norm/<role>", since the last log
        self._batches = batches
        self._checkpoints = checkpoints
        self.header = header
        self._batch: Batch = {}
        self._logged = (0, time.perf_counter())
        method.requires_grad_(False)
        if settings.activation_checkpointing:
            for generator in method.generators.values():
                generator.activation_checkpointing = True  # type: ignore[assignment]  # a module to mypy
        if compiled:
            compile_networks(method)

    def run(self, until: int) -> None:
        """Trains up to step `until`, saving at the very start, on the way and at the end.

        Raises Interrupted after SIGINT or SIGTERM, once the step is finished and saved; DataError when there are no
        more images to be had, likewise saved; and TrainingError when a loss or gradient is not finite and
        `training.on_nonfinite` says stop, or too many are not.
        """
        self._logged = (self.step, time.perf_counter())
        if self.step >= until:
            return
        if self.step == 0:  # so that a run can be resumed wherever it is killed, and a full disk is told now
            self.save()
        with stop_on_signals() as request:
            try:
                for micro_batches in self._batches(self.step):
                    self.train_step(micro_batches)
                    self.step += 1
                    if self._after_step(until, self._stopping(request)):
                        return
            except DataError as error:  # it comes between two steps: what was trained is whole
                if distributed.world_size() > 1:  # the others do not know, and would not save with this one
                    raise
                self.save()
                raise DataError(f"{error}; step {self.step} is saved, {self._how_to_go_on()}") from None

    def _after_step(self, until: int, stopping: int | None) -> bool:
        """Tells, logs and saves what is due after a step; whether it was the last.

        stopping: the signal that ends the run here. Raises Interrupted then.
        """
        if self.forecast is not None and (told := self.forecast.after(self.step)):
            log.info(told)
        last = self.step >= until or stopping is not None
        noted = self._act()
        if last or noted.scalars or self._is_due(self.settings.log_every):
            self._log(noted.scalars)
        elif self.monitor is not None:
            self.monitor.advance(self.step)
        if last or noted.keep_as or self._is_due(self.settings.checkpoint_every):
            self.save(noted.keep_as)
        if stopping is not None:
            raise Interrupted(f"stopped at step {self.step} and saved; {self._how_to_go_on()}", stopping)
        return last

    def _how_to_go_on(self) -> str:
        return f"go on with: gan-nst train --resume {self._checkpoints.parent}"

    def train_step(self, micro_batches: Sequence[Batch]) -> None:
        """One step: every update of the method, then the moving average.

        From an update whose losses or gradient are not finite on, none of the step changes anything.
        """
        self.guard.begin()
        for update in self.method.updates(self.step):
            self._apply(update, micro_batches)
        self.ema.update(self.step, self.guard.closed)
        self._batch = micro_batches[-1]

    def gradient_shares(self) -> dict[str, float]:
        """Each generator loss's share of the gradient, on the images of the last step."""
        return gradient_shares(self.method, self.step, self._batch, self.precision, self.device)

    def save(self, keep_as: str | None = None) -> None:
        """Writes a checkpoint; none is written of a run that is no longer finite.

        keep_as: a name under which it is kept for good, beside the newest ones.
        """
        self.nonfinite.raise_if_stopped()
        states = distributed.gather(_random_state(self.device))
        if distributed.rank() != 0:
            return
        payload = {
            **self.header,
            "step": self.step,
            "state": self.method.state_dict(),
            "ema": self.ema.networks.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "random": states,
            "notes": self.notes,
        }
        checkpoint.save(self._checkpoints, payload, self.settings.checkpoints_kept, keep_as)

    def restore(self, payload: dict[str, Any]) -> None:
        """Goes back to a checkpoint's state. Raises CheckpointError when it is of other networks, or none."""
        try:
            self.method.load_state_dict(payload["state"])
            self.method.to(self.device)
            self.ema.networks.load_state_dict(payload["ema"])
            for name, optimizer in self.optimizers.items():
                restore_optimizer(optimizer, payload["optimizers"][name])
            states = payload["random"]
            if distributed.rank() < len(states):
                _set_random_state(states[distributed.rank()], self.device)
        except Exception as error:  # torch raises whatever an odd state makes it stumble over
            raise CheckpointError(
                f"{self._checkpoints}: the checkpoint does not fit the settings: {shorten(str(error))}"
            ) from None
        self.step = payload["step"]
        self.notes = dict(payload.get("notes", {}))

    def _act(self) -> IntervalResult:
        """Does what is due at this step, all of it together; the time it takes is not counted as training."""
        due = [
            interval
            for interval in self.at_interval
            if self._is_due(interval.every) or (interval.at_end and self.step == self.settings.steps)
        ]
        if not due:
            return IntervalResult()
        self.nonfinite.raise_if_stopped()
        began = time.perf_counter()
        found = [
            noted for interval in due if interval.action is not None and (noted := interval.action(self.step))
        ]
        scalars = {name: value for noted in found for name, value in noted.scalars.items()}
        keep_as = next((noted.keep_as for noted in found if noted.keep_as), None)
        self._logged = (self._logged[0], self._logged[1] + time.perf_counter() - began)
        return IntervalResult(scalars, distributed.broadcast(keep_as))

    def _apply(self, update: Update, micro_batches: Sequence[Batch]) -> None:
        role, optimizer = self.roles[update.role], self.optimizers[update.role]
        before = [buffer.clone() for buffer in self._buffers]
        parameters = list(role.networks.parameters())
        role.networks.requires_grad_(True)
        optimizer.zero_grad()
        names: tuple[str, ...] = ()
        means: list[Tensor] = []
        for batch in micro_batches:
            with autocast(self.precision, self.device):
                losses = update.losses(batch)
            names = tuple(f"{update.role}/{name}" for name in losses)
            terms = torch.stack(list(losses.values())) / len(micro_batches)
            terms.sum().backward()
            means.append(terms.detach())
        role.networks.requires_grad_(False)
        distributed.average_gradients(parameters)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        names = (*names, f"gradient_norm/{update.role}")
        values = torch.cat([torch.stack(means).sum(0), norm.reshape(1).to(means[0].dtype)])
        self.guard.check(self.step, names, values)
        self.guard.take_back(self._buffers, before)
        if self.settings.gradient_clip is not None:
            torch._foreach_mul_(gradients, (self.settings.gradient_clip / (norm + 1e-6)).clamp(max=1.0))
        for group in optimizer.param_groups:
            group["lr"] = role.learning_rate(self.step)
        optimizer.found_inf = self.guard.closed  # type: ignore[attr-defined]  # a fused step is skipped where this is 1
        optimizer.step()
        if update.after is not None:
            update.after()
        self.means.add(names, values, self.guard.closed)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0

    def _stopping(self, request: StopRequest) -> int | None:
        """The signal that asked any of the processes to stop."""
        return next((number for number in distributed.gather(request.signal) if number is not None), None)

    def _log(self, noted: Mapping[str, float]) -> None:
        """The means since the last time, and what else was noted; after the forecast of the first steps the one
        place in the loop that waits for the device.
        """
        scalars = self.nonfinite.report(self.step - self._logged[0]) | self.means.take()
        if self.monitor is None:
            self._logged = (self.step, time.perf_counter())
            return
        for name, role in self.roles.items():
            scalars[f"learning_rate/{name}"] = role.learning_rate(self.step - 1)
        step, since = self._logged
        self._logged = (self.step, time.perf_counter())
        images = self.settings.batch_size * self.settings.accumulation * distributed.world_size()
        scalars["speed/images_per_second"] = (self.step - step) * images / max(self._logged[1] - since, 1e-9)
        scalars["speed/steps_per_second"] = (self.step - step) / max(self._logged[1] - since, 1e-9)
        scalars["memory/peak_mib"] = peak_memory(self.device) / 2**20
        self.monitor.log(self.step, scalars | dict(noted))


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
