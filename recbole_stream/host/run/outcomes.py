"""What a training led to, in one form for our models and RecBole's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole.trainer import Trainer

from recbole_stream.host.trainer import GenerativeTrainer, STREAMRecTrainer

__all__ = ["Outcome", "Watch", "outcomes_of"]


@dataclass
class Outcome:
    """A stage of a training, or all of it where there are no stages.

    Attributes:
        stage: its name; empty for all models but STREAMRec.
        valid: metrics of its best epoch on the validation split.
        epoch: its best epoch, from 0; -1 is the model as it entered the stage.
        seconds: wall time of the stage alone, validation included.
        curves: one dict of scalars for each epoch.
        file: RecBole checkpoint of its best epoch.
        final: whether it is the one that the run keeps.
    """

    stage: str
    valid: Mapping[str, float]
    epoch: int
    seconds: float
    curves: list[dict[str, float]]
    file: str
    final: bool

    def record(self) -> dict[str, Any]:
        """What the run's curves hold."""
        return {name: getattr(self, name) for name in ("stage", "valid", "epoch", "seconds", "curves")}


class Watch:
    """A ``callback_fn`` of RecBole's ``fit`` that notes what each validation gave, and when.

    Attributes:
        epochs: epoch -> (validation metric, seconds since the watch was made).
    """

    def __init__(self) -> None:
        self.epochs: dict[int, tuple[float, float]] = {}
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the watch was made."""
        return time.perf_counter() - self._began

    def __call__(self, epoch: int, valid: float) -> None:
        self.epochs[epoch] = float(valid), self.seconds

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs: its time goes on from there."""
        return {"epochs": self.epochs, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo :meth:`state_dict`."""
        self.epochs, self._began = state["epochs"], time.perf_counter() - state["seconds"]


def outcomes_of(trainer: Trainer, watch: Watch) -> list[Outcome]:
    """The stages of a training that has just ended.

    Args:
        trainer: after its ``fit``.
        watch: made right before ``fit`` and given to it as ``callback_fn``.
    """
    if isinstance(trainer, GenerativeTrainer):
        before = [0.0, *(stage.seconds for stage in trainer.stages)]
        return [
            Outcome(
                stage=stage.result.name if isinstance(trainer, STREAMRecTrainer) else "",
                valid=stage.result.valid,
                epoch=stage.result.epoch,
                seconds=stage.seconds - earlier,
                curves=stage.result.curves,
                file=stage.file,
                final=stage is trainer.final,
            )
            for stage, earlier in zip(trainer.stages, before)
        ]
    curves = [
        {"loss": float(loss), **dict(zip(("valid", "seconds"), watch.epochs.get(epoch, ())))}
        for epoch, loss in trainer.train_loss_dict.items()
    ]
    better = max if trainer.valid_metric_bigger else min
    best = better(watch.epochs, key=lambda epoch: watch.epochs[epoch][0])
    return [Outcome("", trainer.best_valid_result, best, watch.seconds, curves, trainer.saved_model_file, True)]
