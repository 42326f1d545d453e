"""How long a stage trains, how fast, and with which averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["LearningRate", "Schedule", "WeightAverage"]


@dataclass(frozen=True)
class Schedule:
    """Numbers of one stage.

    Attributes:
        epochs: at most this many.
        learning_rate: of AdamW, after the warm-up.
        batch_size: samples (Stage 3: histories) a batch.
        weight_decay: of AdamW.
        warmup_steps: the rate rises linearly over so many optimiser steps, then falls as a cosine to 0.
        patience: the stage ends when more than this many validations in a row brought no new best (as in RecBole).
        eval_step: epochs between validations.
        max_grad_norm: gradients are scaled down to this length.
        ema: decay of the averaged weights that are validated and kept; 0 keeps the trained ones.
        samples_per_epoch: so many random samples an epoch, rounded up to whole batches; 0 is all.
        updates_per_batch: optimiser steps a batch.
        max_seconds: once this time has passed, the stage ends after the next validation; 0 is no limit.
        seed: of the run; with the stage's name, all that the stage draws at random follows from it.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 256
    weight_decay: float = 0.0
    warmup_steps: int = 0
    patience: int = 10
    eval_step: int = 1
    max_grad_norm: float = 1.0
    ema: float = 0.0
    samples_per_epoch: int = 0
    updates_per_batch: int = 1
    max_seconds: float = 0.0
    seed: int = 0

    def batches_per_epoch(self, samples: int) -> int:
        if self.samples_per_epoch:
            samples = min(samples, self.samples_per_epoch)
        return math.ceil(samples / self.batch_size)

    def steps_per_epoch(self, samples: int) -> int:
        """Optimiser steps an epoch over so many samples."""
        return self.batches_per_epoch(samples) * self.updates_per_batch


class LearningRate:
    """Factor of the learning rate in each optimiser step, from 0 to 1: a linear warm-up, then a cosine down to 0.

    Attributes:
        total: number of optimiser steps after which the factor is 0.
    """

    def __init__(self, schedule: Schedule, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.total = max(1, schedule.epochs * steps_per_epoch)
        self.warmup = min(schedule.warmup_steps, self.total // 2)

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))))

    def end_in_time(self, schedule: Schedule, epochs: int, seconds: float) -> None:
        """Shorten the schedule so that the rate reaches 0 in the last epoch that ``max_seconds`` allows.

        A training that is stopped while its rate is still high gives a worse model than one whose rate had fallen.

        Args:
            schedule: of the stage.
            epochs: epochs that are done.
            seconds: time they took together; all later epochs are assumed to take as long each.
        """
        fitting = math.ceil(schedule.max_seconds * epochs / (seconds * schedule.eval_step)) * schedule.eval_step
        self.total = min(schedule.epochs, fitting) * self.steps_per_epoch


class WeightAverage:
    """Exponential moving average of the trained weights."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.steps = parameters, decay, 0
        self.values = [p.detach().clone() for p in parameters] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after an optimiser step."""
        if self.decay:
            self.steps += 1
            # the first steps count little: with the full decay the random start would stay in the average for long
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside this block."""
        trained = [p.detach().clone() for p in self.parameters] if self.decay else []
        if self.decay:
            torch._foreach_copy_(self.parameters, self.values)
        try:
            yield
        finally:
            if self.decay:
                torch._foreach_copy_(self.parameters, trained)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for value, saved in zip(self.values, state["values"]):
            value.copy_(saved)
