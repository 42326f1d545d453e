"""The training loop of every stage.

A stage is an objective (a batch in, losses and named scalars out) and a schedule.
Progress bar, warm-up, weight averaging, early stopping, best checkpoint, resume,
mixed precision and logging exist here, once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from recbole_stream.data.samples import Batch, Samples
from recbole_stream.model.allocator import keep_freed_memory
from recbole_stream.seeds import mix
from recbole_stream.training.checkpoint import Progress
from recbole_stream.training.processes import all_reduce, broadcast, process_index, processes, seed_draws
from recbole_stream.training.schedule import LearningRate, Schedule, WeightAverage

__all__ = ["Objective", "StageContext", "StageResult", "TrainingDiverged", "autocast", "train_stage"]


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number."""


class Objective:
    """What a stage optimises.

    Attributes:
        name: of the stage, as it appears in logs and tables.
    """

    name: str

    def prepare(self, epoch: int) -> dict[str, float]:
        """Called before each epoch; returns scalars to log."""
        return {}

    def groups(self, parameters: list[nn.Parameter], learning_rate: float) -> list[dict[str, Any]]:
        """The optimiser's groups of parameters; those with another rate than the schedule's name it as ``lr``."""
        return [{"params": parameters}]

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """One loss for each optimiser step on this batch, with scalars to log."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beyond the model, also between two batches: what :meth:`prepare` made is a part."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state_dict`."""


@dataclass
class StageResult:
    """How a stage ended.

    Attributes:
        name: the objective's.
        valid: metrics of the best epoch on the validation split.
        epoch: the best epoch, from 0; -1 is the model as it entered the stage.
        epochs: epochs that were run.
        seconds: wall time, validation included.
        curves: one dict of scalars for each epoch.
    """

    name: str
    valid: dict[str, float]
    epoch: int = -1
    epochs: int = 0
    seconds: float = 0.0
    curves: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class StageContext:
    """What a stage needs beside its objective, schedule and samples; most of it is the same for all stages of a run.

    Attributes:
        evaluate: metrics of the model on the validation split.
        metric: which of them chooses the best epoch.
        bigger: whether more of it is better.
        precision: ``float32`` or ``bfloat16``.
        record: called after each epoch with its number and its scalars, whose ``valid`` is there where it was validated.
        progress: saved after each epoch and, where it is due, between batches; a stage that finds one resumes from it.
        on_epoch: called with the epoch and its validation metric, e.g. by a tuner that may stop the run.
        show_progress: progress bars.
    """

    evaluate: Callable[[], dict[str, float]]
    metric: str
    bigger: bool = True
    precision: str = "float32"
    record: Callable[[int, dict[str, float]], None] | None = None
    progress: Progress | None = None
    on_epoch: Callable[[int, float], None] | None = None
    show_progress: bool = True

    def improves(self, valid: dict[str, float], best: dict[str, float]) -> bool:
        """Whether some metrics are better than the best so far."""
        new, old = valid[self.metric], best[self.metric]
        return new > old if self.bigger else new < old


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager:
    """Mixed precision: ``bfloat16`` products over float32 weights, or plain ``float32``."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")


def train_stage(
    model: nn.Module,
    objective: Objective,
    schedule: Schedule,
    samples: Samples,
    context: StageContext,
    evaluate_first: bool = False,
) -> StageResult:
    """Train one stage and leave the model with the weights of its best epoch.

    Args:
        model: its parameters with ``requires_grad`` are trained.
        objective: the stage.
        schedule: epochs, rates, patience.
        samples: the training split, on the model's device.
        context: how it is validated, saved and logged.
        evaluate_first: let the model as it enters the stage compete for the best epoch.

    Raises:
        TrainingDiverged: the loss is no longer a number.
    """
    keep_freed_memory()
    metric = context.metric
    logger, parameters = getLogger(), [p for p in model.parameters() if p.requires_grad]
    rates = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
    optimizer = torch.optim.AdamW(objective.groups(parameters, schedule.learning_rate), **rates, fused=True)
    steps = schedule.steps_per_epoch(len(samples))
    rate = LearningRate(schedule, steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)  # its state includes that of `rate`
    average = WeightAverage(parameters, schedule.ema)
    run = _Run(model, objective, optimizer, scheduler, average, schedule.seed, context)
    result = run.result

    state = context.progress.load() if context.progress else None
    if state is not None:
        run.load_state_dict(state)
        result = run.result
        logger.info(f"{objective.name}: resumed after {run.epoch} epochs and {run.batch} batches.")
    elif evaluate_first:
        result.valid = context.evaluate()
        run.best = _weights(model)
        logger.info(f"{objective.name} enters with valid {metric} {result.valid[metric]:.4f}.")

    run.began = time.perf_counter() - result.seconds
    while run.epoch < schedule.epochs:
        epoch = run.epoch
        if run.scalars is None:  # the epoch has not begun; a resumed run may stand in the middle of one
            # the time limit ends a stage right after a validation only: weights that none has seen are not kept
            late = 0 < schedule.max_seconds < result.seconds and epoch % schedule.eval_step == 0
            if late or run.waited > schedule.patience:
                break
            if schedule.max_seconds and epoch:
                rate.end_in_time(schedule, epoch, result.seconds)
            run.scalars = objective.prepare(epoch)
        scalars = run.scalars | _train_epoch(run, schedule, samples, context.show_progress)
        if math.isnan(scalars["loss"]):
            raise TrainingDiverged(
                f"The loss of {objective.name} became NaN in epoch {epoch}: lower its learning rate, "
                f"now {schedule.learning_rate}."
            )
        message = " ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        if (epoch + 1) % schedule.eval_step == 0 or epoch + 1 == schedule.epochs:
            with run.average.applied():
                valid = context.evaluate()
                if run.best is None or context.improves(valid, result.valid):
                    result.valid, result.epoch, run.waited, run.best = valid, epoch, 0, _weights(model)
                else:
                    run.waited += 1
            scalars["valid"] = valid[metric]
            message += f" | valid {metric} {valid[metric]:.4f} (best {result.valid[metric]:.4f})"
        result.epochs = epoch + 1
        result.curves.append(scalars)
        run.begin(epoch + 1)
        run.save()
        logger.info(f"{objective.name} epoch {epoch} [{result.seconds:.0f}s] {message}")
        if context.record is not None:
            context.record(epoch, scalars)
        if context.on_epoch is not None and "valid" in scalars:
            context.on_epoch(epoch, valid[metric])
    if run.best is not None:
        model.load_state_dict(run.best)
    model.eval()
    return result


class _Run:
    """Everything that changes while a stage trains: the progress file holds this and nothing else.

    Attributes:
        result: the stage's result so far.
        best: the model's weights after the best epoch; None before the first validation.
        waited: validations since the best epoch.
        epoch: the current epoch, or the next one where none has begun.
        batch: batches of that epoch that are done.
        scalars: what the objective's preparation of that epoch gave; None where the epoch has not begun.
        steps, sums: optimiser steps in that epoch, and the sum of each scalar over them.
        began: when the stage started, on the clock of ``time.perf_counter``; after a resume, the time at which it
            would have started without the interruption.
        draws: a generator that all processes share, see :func:`seed_draws`.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        average: WeightAverage,
        seed: int,
        context: StageContext,
    ) -> None:
        self.model, self.objective = model, objective
        self.precision, self.progress = context.precision, context.progress
        self.optimizer, self.scheduler, self.average = optimizer, scheduler, average
        self.draws = seed_draws(seed, objective.name)
        self.result, self.waited = StageResult(objective.name, {}), 0
        self.best: dict[str, Tensor] | None = None
        self.began = time.perf_counter()
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Reset what is counted within one epoch."""
        self.epoch, self.batch, self.steps, self.sums = epoch, 0, 0, {}
        self.scalars: dict[str, Any] | None = None

    def save(self) -> None:
        """Store the seconds used so far, the same number in all processes, and write the progress file."""
        self.result.seconds = broadcast(lambda: time.perf_counter() - self.began)
        if self.progress is not None:
            self.progress.save(self.state_dict())

    _PARTS = ("model", "optimizer", "scheduler", "average", "objective")
    _VALUES = ("result", "best", "waited", "epoch", "batch", "steps", "sums", "scalars")

    def state_dict(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self._VALUES}
        values["draws"] = self.draws.get_state()
        return values | {name: getattr(self, name).state_dict() for name in self._PARTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self._PARTS:
            getattr(self, name).load_state_dict(state[name])
        for name in self._VALUES:
            setattr(self, name, state[name])
        self.draws.set_state(state["draws"])
        device = next(self.model.parameters()).device
        self.sums = {name: value.to(device) for name, value in self.sums.items()}


def _train_epoch(run: _Run, schedule: Schedule, samples: Samples, show_progress: bool) -> dict[str, float]:
    """The rest of an epoch; returns the mean of each scalar over all its optimiser steps."""
    device = next(run.model.parameters()).device
    count, number = processes(), process_index()
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    run.model.train()
    seed = mix(schedule.seed, run.objective.name, "order", run.epoch)
    rows = samples.shuffled(schedule.batch_size, seed)[: schedule.batches_per_epoch(len(samples))]
    description = f"{run.objective.name} {run.epoch:>3}"
    bar = tqdm(desc=description, total=len(rows), initial=run.batch, ncols=100, disable=not show_progress, leave=False)
    with bar:
        for chosen in rows[run.batch :]:
            # the processes divide each batch among them: the number of steps does not depend on how many they are
            part = slice(number, None, count) if len(chosen) >= count else slice(None)
            batch = samples.batch(chosen, part, run.draws)
            share = len(batch.rows) / len(chosen) if batch.shared else 1 / count
            losses = run.objective.losses(batch)
            while True:
                with autocast(device, run.precision):
                    step = next(losses, None)
                if step is None:
                    break
                loss, scalars = step
                run.optimizer.zero_grad(set_to_none=True)
                (share * loss).backward()
                if count > 1:
                    _all_reduce_gradients(parameters)
                norm = nn.utils.clip_grad_norm_(parameters, schedule.max_grad_norm)
                run.optimizer.step()
                run.scheduler.step()
                run.average.update()
                # the sums stay on the device: reading them here would make the CPU wait for it in every step
                for name, value in {"loss": loss, **scalars, "gradient_norm": norm}.items():
                    run.sums[name] = run.sums.get(name, 0) + share * value.detach()
                run.steps += 1
            run.batch += 1
            bar.update()
            if run.progress is not None and run.progress.due():
                run.save()
    sums = all_reduce(torch.stack([value.to(device).double() for value in run.sums.values()]))
    return {name: value / run.steps for name, value in zip(run.sums, sums.tolist())}


def _all_reduce_gradients(parameters: list[nn.Parameter]) -> None:
    """Sum the gradients of all processes in place; each was already weighted by its process's share of the batch."""
    flat = all_reduce(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]))
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters])):
        if parameter.grad is not None:
            parameter.grad.copy_(part.view_as(parameter))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights, which later optimiser steps do not change."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
