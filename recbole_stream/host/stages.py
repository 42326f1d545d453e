"""The stages of STREAMRec, each from the configuration: what it optimises, and on which schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from recbole_stream.data.samples import Samples
from recbole_stream.training.finetune import Finetune, FinetuneOptions
from recbole_stream.training.fit_views import Match
from recbole_stream.training.loop import Objective
from recbole_stream.training.reinforce import Reinforce, ReinforceOptions
from recbole_stream.training.schedule import Schedule

__all__ = ["BUILDERS", "Plan"]


class StageTrainer(Protocol):
    """What a stage needs to know of the trainer that runs it; see ``GenerativeTrainer``."""

    config: Any
    model: Any
    precision: str
    stages: list
    final_weights: dict[str, Tensor]

    def schedule(self, epochs: str, learning_rate: str, patience: str, **changes: Any) -> Schedule: ...


@dataclass(frozen=True)
class Plan:
    """A stage to come.

    Attributes:
        number: of the stage among all that the model has, from 0. Its random numbers and its progress file depend on it,
            and so not on which other stages are trained.
        objective: makes what the stage optimises; called when the stages before it have ended.
        schedule: its epochs, rates and patience.
        evaluate_first: whether the model as it enters the stage competes for the stage's best epoch.
    """

    number: int
    objective: Callable[[], Objective]
    schedule: Schedule
    evaluate_first: bool = False


def pretrain(trainer: StageTrainer, number: int, samples: Samples) -> Plan:
    """Stage 1 (Eq. 9-11)."""
    schedule = trainer.schedule("pretrain_epochs", "pretrain_learning_rate", "pretrain_patience")
    return Plan(number, trainer.model.first_objective, schedule)


def finetune(trainer: StageTrainer, number: int, samples: Samples) -> Plan:
    """Stage 2 (Eq. 12-19)."""
    config, network = trainer.config, trainer.model.network

    def objective() -> Objective:
        network.freeze_reference(one_decoder=not config["pretrain_similar"])
        if config["finetune_init"] == "direct":
            network.start_from_direct()
        options = FinetuneOptions(
            steps=config["reasoning_steps"],
            round_epochs=config["collect_epochs"],
            rounds=config["collect_rounds"],
            dpo_weight=config["dpo_weight"],
            quant_weight=config["quant_weight"],
            state_weight=config["state_weight"],
            dpo_beta=config["dpo_beta"],
            quant_beta=config["quant_beta"],
            state_similarity=config["state_similarity"],
            state_temperature=config["state_temperature"],
            straight_through=config["straight_through"],
            label_smoothing=config["label_smoothing"],
        )
        return Finetune(
            network,
            samples,
            trainer.model.similar,
            options,
            config["train_batch_size"],
            trainer.precision,
            config["show_progress"],
        )

    return Plan(number, objective, trainer.schedule("finetune_epochs", "finetune_learning_rate", "finetune_patience"))


def reinforce(trainer: StageTrainer, number: int, samples: Samples) -> Plan:
    """Stage 3 (Eq. 20-27)."""
    config = trainer.config

    def objective() -> Objective:
        options = ReinforceOptions(
            group=config["group_size"],
            updates=config["reinforce_updates"],
            clip=config["reinforce_clip"],
            kl_weight=config["kl_weight"],
            importance_sampling=config["importance_sampling"],
            normalise=config["reward_normalisation"],
            weights=config["reward_weights"],
            positions=config["reinforce_positions"],
        )
        return Reinforce(trainer.model.network, trainer.model.trie, trainer.model.similar, options)

    schedule = trainer.schedule(
        "reinforce_epochs",
        "reinforce_learning_rate",
        "reinforce_patience",
        batch_size=config["reinforce_batch_size"],
        samples_per_epoch=config["reinforce_samples"],
        updates_per_batch=config["reinforce_updates"],
        warmup_steps=0,
        ema=0.0,
    )
    return Plan(number, objective, schedule, evaluate_first=True)


def match(trainer: StageTrainer, number: int, samples: Samples) -> Plan:
    """The matching tower of the deliberation."""

    def objective() -> Objective:
        if trainer.stages:
            trainer.model.load_state_dict(trainer.final_weights)  # the stage that generates best so far
        return Match(trainer.model.network)

    schedule = trainer.schedule("matching_epochs", "matching_learning_rate", "matching_patience", ema=0.0)
    return Plan(number, objective, schedule)


# name in the key ``stages`` -> the plan, given the trainer, the stage's number and the training samples
BUILDERS: dict[str, Callable[[StageTrainer, int, Samples], Plan]] = {
    "pretrain": pretrain,
    "finetune": finetune,
    "reinforce": reinforce,
    "match": match,
}
