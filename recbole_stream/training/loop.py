"""The training loop of every stage.

A stage is an objective (a batch in, losses and named scalars out) and a schedule.
Progress bar, warm-up, weight averaging, early stopping, best checkpoint, resume,
mixed precision and logging exist here, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from recbole_stream.data.samples import Batch, Samples
from recbole_stream.model.memory import keep_freed_memory
from recbole_stream.training.checkpoint import load_checkpoint, save_checkpoint
from recbole_stream.training.schedule import Schedule, WeightAverage, learning_rate_factor

__all__ = ["Objective", "StageResult", "TrainingDiverged", "autocast", "train_stage"]


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

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """One loss for each optimiser step on this batch, with scalars to log."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beyond the model."""
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


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager:
    """Mixed precision: ``bfloat16`` products over float32 weights, or plain ``float32``."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")


def train_stage(
    model: nn.Module,
    objective: Objective,
    schedule: Schedule,
    samples: Samples,
    evaluate: Callable[[], dict[str, float]],
    metric: str,
    *,
    precision: str = "float32",
    writer: SummaryWriter | None = None,
    resume_file: Path | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
    evaluate_first: bool = False,
    show_progress: bool = True,
) -> StageResult:
    """Train one stage and leave the model with the weights of its best epoch.

    Args:
        model: its parameters with ``requires_grad`` are trained.
        objective: the stage.
        schedule: epochs, rates, patience.
        samples: the training split, on the model's device.
        evaluate: metrics of the model on the validation split.
        metric: which of them chooses the best epoch; larger is better.
        precision: ``float32`` or ``bfloat16``.
        writer: TensorBoard.
        resume_file: progress is kept here after each epoch and taken up from here.
        on_epoch: called with the epoch and its validation metric, e.g. by a tuner that may stop the run.
        evaluate_first: let the model as it enters the stage compete for the best epoch.
        show_progress: progress bars.

    Raises:
        TrainingDiverged: the loss is no longer a number.
    """
    keep_freed_memory()
    logger, device = getLogger(), next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    steps = schedule.steps_per_epoch(len(samples))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(schedule, steps))
    average = WeightAverage(parameters, schedule.ema)
    result, best, first, waited = StageResult(objective.name, {}), None, 0, 0

    state = load_checkpoint(resume_file) if resume_file else None
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        average.load_state_dict(state["average"])
        objective.load_state_dict(state["objective"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"])
        result, best, first, waited = state["result"], state["best"], state["epoch"] + 1, state["waited"]
        logger.info(f"{objective.name}: taken up again after epoch {state['epoch']}.")
    elif evaluate_first:
        result.valid = evaluate()
        best = _weights(model)
        logger.info(f"{objective.name} enters with valid {metric} {result.valid[metric]:.4f}.")

    began = time.perf_counter() - result.seconds
    for epoch in range(first, schedule.epochs):
        if waited > schedule.patience or 0 < schedule.max_seconds < result.seconds:
            break
        scalars = objective.prepare(epoch)
        scalars |= _train_epoch(
            model, objective, schedule, samples, optimizer, scheduler, average, epoch, precision, show_progress
        )
        if not scalars["loss"] == scalars["loss"]:
            raise TrainingDiverged(
                f"The loss of {objective.name} became NaN in epoch {epoch}: lower its learning rate, "
                f"now {schedule.learning_rate}."
            )
        message = " ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        if (epoch + 1) % schedule.eval_step == 0 or epoch + 1 == schedule.epochs:
            with average.applied():
                valid = evaluate()
                if best is None or valid[metric] > result.valid[metric]:
                    result.valid, result.epoch, waited, best = valid, epoch, 0, _weights(model)
                else:
                    waited += 1
            scalars["valid"] = valid[metric]
            message += f" | valid {metric} {valid[metric]:.4f} (best {result.valid[metric]:.4f})"
        result.seconds, result.epochs = time.perf_counter() - began, epoch + 1
        result.curves.append(scalars)
        logger.info(f"{objective.name} epoch {epoch} [{result.seconds:.0f}s] {message}")
        if writer is not None:
            for name, value in scalars.items():
                writer.add_scalar(f"{objective.name}/{name}", value, epoch)
        if resume_file:
            save_checkpoint(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "average": average.state_dict(),
                    "objective": objective.state_dict(),
                    "rng": torch.get_rng_state(),
                    "cuda_rng": torch.cuda.get_rng_state() if device.type == "cuda" else None,
                    "result": result,
                    "best": best,
                    "epoch": epoch,
                    "waited": waited,
                },
                resume_file,
            )
        if on_epoch is not None and "valid" in scalars:
            on_epoch(epoch, valid[metric])
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    return result


def _train_epoch(
    model: nn.Module,
    objective: Objective,
    schedule: Schedule,
    samples: Samples,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    average: WeightAverage,
    epoch: int,
    precision: str,
    show_progress: bool,
) -> dict[str, float]:
    """One pass; returns the mean of each scalar over the optimiser steps."""
    device = next(model.parameters()).device
    processes, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    model.train()
    rows = samples.shuffled(schedule.batch_size, schedule.seed + epoch)[: schedule.batches_per_epoch(len(samples))]
    sums: dict[str, Tensor] = {}
    steps = 0
    for chosen in tqdm(rows, desc=f"{objective.name} {epoch:>3}", ncols=100, disable=not show_progress, leave=False):
        # several processes share each batch, so that they take the steps that one would take
        own = chosen[rank::processes] if len(chosen) >= processes else chosen
        losses = objective.losses(samples.batch(own))
        while True:
            with autocast(device, precision):
                step = next(losses, None)
            if step is None:
                break
            loss, scalars = step
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if processes > 1:
                _average_gradients(parameters, len(own))
            norm = nn.utils.clip_grad_norm_(parameters, schedule.max_grad_norm)
            optimizer.step()
            scheduler.step()
            average.update()
            # sums stay on the device: reading them here would make every step wait for it
            for name, value in {"loss": loss, **scalars, "gradient_norm": norm}.items():
                sums[name] = sums.get(name, 0) + value.detach()
            steps += 1
    return {name: float(value) / steps for name, value in sums.items()}


def _average_gradients(parameters: list[nn.Parameter], samples: int) -> None:
    """The gradient of the whole batch's mean from each process's own mean over ``samples``."""
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    weighted = torch.cat([flat * samples, flat.new_tensor([samples])])
    dist.all_reduce(weighted)
    mean = weighted[:-1] / weighted[-1]
    for parameter, part in zip(parameters, mean.split([p.numel() for p in parameters])):
        if parameter.grad is not None:
            parameter.grad.copy_(part.view_as(parameter))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights that later steps leave alone."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
