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
from gan_nst.core.terminal import stop_on_signals
from gan_nst.methods.base import Batch, Method, Update
from gan_nst.training import checkpoint, distributed
from gan_nst.training.compilation import Forecast, compile_networks
from gan_nst.training.guard import Guard, ImagesOf
from gan_nst.training.monitor import Monitor
from gan_nst.training.optimizers import Ema, make_optimizer, restore_optimizer
from gan_nst.training.settings import TrainingSettings

log = logging.getLogger(__name__)


BatchesFrom = Callable[[int], Iterator[list[Batch]]]
"""Yields the micro-batches of a step and of all steps after it."""


@dataclass(frozen=True)
class IntervalResult:
    """The result of an action: scalars to log with the step, and a name, "best" for example, under which the step's
    checkpoint is also kept.
    """

    scalars: Mapping[str, float] = field(default_factory=dict)
    keep_as: str | None = None


@dataclass(frozen=True)
class IntervalAction:
    """Something that happens inside the loop but is defined elsewhere: `action(step)` every so many steps.

    at_end: also at the last planned step. All processes have the same intervals, but only rank 0 has actions.
    """

    every: int
    action: Callable[[int], IntervalResult | None] | None
    at_end: bool = False


class Trainer:
    """Runs a method's updates, step after step, and saves what makes a run resumable.

    header: plain data in every checkpoint: method, settings, translations, data. compiled: whether the networks are
    compiled, at the first step. images_of: finds a step's images, to report them if a value is not finite.
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
        self.interval_actions: Sequence[IntervalAction] = ()
        self.notes: dict[str, Any] = {}  # plain data that interval actions keep in checkpoints
        self.roles = method.roles()
        self.optimizers = {name: make_optimizer(role) for name, role in self.roles.items()}
        self.ema = Ema(method.generators, settings.ema)
        # Images are finite; weights or gradients grew.
        remedies = ["a lower learning rate"]
        remedies += [] if settings.gradient_clip is not None else ["training.gradient_clip=1"]
        remedies += [] if precision == "float32" else ["precision=float32"]
        self.guard = Guard(device, settings.on_nonfinite == "stop", checkpoints, images_of, remedies)
        # Running statistics, for example, which a forward pass changes.
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
        """Trains up to step `until`, and saves at step 0, on the way and at the end.

        Raises Interrupted after SIGINT or SIGTERM, and DataError if images can no longer be read, both after the step
        is finished and saved. Raises TrainingError if a loss or gradient is not finite and `training.on_nonfinite` is
        stop, or if too many are not.
        """
        self._logged = (self.step, time.perf_counter())
        if self.step >= until:
            return
        if self.step == 0:  # a run that is killed at any time can be resumed, and a full disk is noticed now
            self.save()
        with stop_on_signals() as received:
            try:
                for micro_batches in self._batches(self.step):
                    self.train_step(micro_batches)
                    self.step += 1
                    if self._after_step(until, self._stopping(received)):
                        return
            except DataError as error:  # raised between two steps
                if distributed.world_size() > 1:  # saving needs the other processes, which do not know of it
                    raise
                self.save()
                raise DataError(f"{error}; step {self.step} is saved, {self._how_to_resume()}") from None

    def _after_step(self, until: int, stopping: int | None) -> bool:
        """Acts, logs and saves as far as it is due after a step. Returns whether it was the last.

        stopping: the signal that stops the run here, with Interrupted.
        """
        if self.forecast is not None and (line := self.forecast.after(self.step)):
            log.info(line)
        last = self.step >= until or stopping is not None
        result = self._act()
        if last or result.scalars or self._is_due(self.settings.log_every):
            self._log(result.scalars)
        elif self.monitor is not None:
            self.monitor.advance(self.step)
        if last or result.keep_as or self._is_due(self.settings.checkpoint_every):
            self.save(result.keep_as)
        if stopping is not None:
            raise Interrupted(f"stopped at step {self.step} and saved; {self._how_to_resume()}", stopping)
        return last

    def _how_to_resume(self) -> str:
        return f"resume with: gan-nst train --resume {self._checkpoints.parent}"

    def train_step(self, micro_batches: Sequence[Batch]) -> None:
        """Takes one step: every update of the method, then the moving average.

        From the first update whose losses or gradient are not finite, nothing of the step has any effect.
        """
        self.guard.begin()
        for update in self.method.updates(self.step):
            self._apply(update, micro_batches)
        self.ema.update(self.step, self.guard.closed)
        self._batch = micro_batches[-1]

    def gradient_shares(self) -> dict[str, float]:
        """Returns each generator loss's share of the gradient, on the images of the last step."""
        return gradient_shares(self.method, self.step, self._batch, self.precision, self.device)

    def save(self, keep_as: str | None = None) -> None:
        """Writes a checkpoint. Raises TrainingError instead if the run stops for a value that is not finite.

        keep_as: a name under which it is also kept.
        """
        self.guard.raise_if_stopped()
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
        """Returns to a checkpoint's state. Raises CheckpointError if it does not fit the networks."""
        try:
            self.method.load_state_dict(payload["state"])
            self.method.to(self.device)
            self.ema.networks.load_state_dict(payload["ema"])
            for name, optimizer in self.optimizers.items():
                restore_optimizer(optimizer, payload["optimizers"][name])
            states = payload["random"]
            if distributed.rank() < len(states):
                _set_random_state(states[distributed.rank()], self.device)
        except Exception as error:  # a malformed state can make torch raise anything
            raise CheckpointError(
                f"{self._checkpoints}: the checkpoint does not fit the settings: {shorten(str(error))}"
            ) from None
        self.step = payload["step"]
        self.notes = dict(payload.get("notes", {}))

    def _act(self) -> IntervalResult:
        """Runs the actions that are due and combines their results. Their time does not count as training."""
        due = [
            interval
            for interval in self.interval_actions
            if self._is_due(interval.every) or (interval.at_end and self.step == self.settings.steps)
        ]
        if not due:
            return IntervalResult()
        self.guard.raise_if_stopped()
        began = time.perf_counter()
        results = [
            result
            for interval in due
            if interval.action is not None and (result := interval.action(self.step))
        ]
        scalars = {name: value for result in results for name, value in result.scalars.items()}
        keep_as = next((result.keep_as for result in results if result.keep_as), None)
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
        self.guard.undo(self._buffers, before)
        if self.settings.gradient_clip is not None:
            torch._foreach_mul_(gradients, (self.settings.gradient_clip / (norm + 1e-6)).clamp(max=1.0))
        for group in optimizer.param_groups:
            group["lr"] = role.learning_rate(self.step)
        optimizer.found_inf = self.guard.closed  # type: ignore[attr-defined]  # 1 skips a fused step
        optimizer.step()
        if update.after is not None:
            update.after()
        self.means.add(names, values, self.guard.closed)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0

    def _stopping(self, received: list[int]) -> int | None:
        """Returns the signal that asked any of the processes to stop."""
        return next((number for numbers in distributed.gather(received) for number in numbers), None)

    def _log(self, more: Mapping[str, float]) -> None:
        """Logs the means since the last time, and more scalars. After the forecast of the first steps, this is the only
        place in the loop that waits for the device.
        """
        scalars = self.guard.report(self.step - self._logged[0]) | self.means.take()
        step, since = self._logged
        self._logged = (self.step, time.perf_counter())
        if self.monitor is None:
            return
        for name, role in self.roles.items():
            scalars[f"learning_rate/{name}"] = role.learning_rate(self.step - 1)
        images = self.settings.batch_size * self.settings.accumulation * distributed.world_size()
        speed = (self.step - step) / max(self._logged[1] - since, 1e-9)
        scalars["speed/images_per_second"] = speed * images
        scalars["speed/steps_per_second"] = speed
        scalars["memory/peak_mib"] = peak_memory(self.device) / 2**20
        self.monitor.log(self.step, scalars | dict(more))


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class Means:
    """Averages values by name. A step's values are added as one tensor, so that nothing waits for the device."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}  # the last element of each is the count

    def add(self, names: tuple[str, ...], values: Tensor, skipped: Tensor) -> None:
        """Adds as many values as there are names, or none if `skipped` is 1.0."""
        counted = torch.cat([values, values.new_ones(1)])
        counted = torch.where(skipped > 0, torch.zeros_like(counted), counted)
        before = self._sums.get(names)
        self._sums[names] = counted if before is None else before + counted

    def take(self) -> dict[str, float]:
        """Returns the mean of each value since the last call. Waits for the device."""
        pooled: dict[str, tuple[float, float]] = {}
        for names, sums in self._sums.items():
            *totals, added = sums.tolist()
            # A warm-up's updates may log a name together with other names than later updates do.
            for name, total in zip(names, totals, strict=True):
                before, counted = pooled.get(name, (0.0, 0.0))
                pooled[name] = (before + total, counted + added)
        self._sums = {}
        return {name: total / count for name, (total, count) in pooled.items() if count}


def gradient_shares(
    method: Method, step: int, batch: Batch, precision: str, device: torch.device
) -> dict[str, float]:
    """Returns "gradient_share/<role>/<term>" for every role that moves the generators: the norm of that term's gradient
    over the sum of all terms' norms.

    It takes a forward pass, and a backward pass for every term, on a copy of the method: gradients, replay buffers
    and random states of the run do not change.
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
