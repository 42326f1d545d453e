"""RecBole's trainers of our models: the stages of a run inside one ``fit()``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from recbole.config import Config
from recbole.data.dataloader import AbstractDataLoader, FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from tqdm import tqdm

from recbole_stream.data.samples import Batch, Samples
from recbole_stream.errors import InputError
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.evaluation import hits_of, mean_ranks
from recbole_stream.host.keys import STAGES
from recbole_stream.host.models import TIGER, STREAMRec
from recbole_stream.host.run.resume import checkpoint_file, stage_progress
from recbole_stream.precision import automatic_precision
from recbole_stream.training.finetune import Finetune, FinetuneOptions
from recbole_stream.training.fit_views import Match, learn_to_deliberate
from recbole_stream.training.loop import Objective, StageContext, StageResult, train_stage
from recbole_stream.training.processes import all_reduce, broadcast, process_index, processes
from recbole_stream.training.reinforce import Reinforce, ReinforceOptions
from recbole_stream.training.schedule import Schedule

__all__ = ["STREAMRecTrainer", "Stage", "TIGERTrainer"]

_SCORES = 1 << 24  # scores [histories, items] that are held at once


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


@dataclass
class Stage:
    """A finished stage.

    Attributes:
        result: how it ended.
        file: RecBole checkpoint of its best epoch.
        seconds: wall time of training up to and including this stage.
    """

    result: StageResult
    file: str
    seconds: float


class GenerativeTrainer(Trainer):
    """Runs stages with the project's own loop and ranks without a dense [users, items] matrix.

    Attributes:
        stages (list[Stage]): the finished ones, in order.
        final (Stage): the one with the best validation metric; ``saved_model_file`` is its checkpoint.
    """

    saved_model_file: str  # RecBole's own

    def __init__(self, config: Config, model: TIGER | STREAMRec) -> None:
        super().__init__(config, model)
        self.stages: list[Stage] = []
        self._final_weights: dict[str, torch.Tensor] = {}
        self.precision = config["precision"]
        if self.precision == "auto":
            self.precision = automatic_precision(self.device)
        self.saved_model_file = checkpoint_file(config) or self.saved_model_file

    @property
    def final(self) -> Stage:
        # max takes the first of equals: the earlier stage, which costs less
        return max(self.stages, key=lambda stage: stage.result.valid[self.valid_metric])

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: AbstractDataLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float]]:
        """Train all stages; arguments and result as in RecBole's ``Trainer.fit``.

        The model ends with the weights of the best stage, and so does the checkpoint where ``saved``.
        """
        if valid_data is None:
            raise InputError("There is no validation data: set eval_args to split {LS: valid_and_test}.")
        self.eval_collector.data_collect(train_data)
        self.logger.disabled = not verbose
        samples = samples_of(train_data._dataset).to(self.device)
        try:
            for plan in self.plan(samples):
                self._stage(plan, samples, valid_data, show_progress, callback_fn)
            self.conclude(valid_data, show_progress)
        finally:
            self.logger.disabled = False
        final = self.final
        self.model.load_state_dict(self._final_weights)
        self.best_valid_score = final.result.valid[self.valid_metric]
        self.best_valid_result = final.result.valid
        self.saved_model_file = final.file
        self._add_hparam_to_tensorboard(self.best_valid_score)
        self.logger.info(f"the final checkpoint is {final.result.name}: {final.file}")
        return self.best_valid_score, self.best_valid_result

    def plan(self, samples: Samples) -> list[Plan]:
        """The stages on these training samples, in order."""
        raise NotImplementedError

    def conclude(self, valid_data: AbstractDataLoader, show_progress: bool) -> None:
        """What follows the stages; nothing unless a model has something to choose on the validation split."""

    def schedule(self, epochs: str, learning_rate: str, patience: str, **changes) -> Schedule:
        """A schedule from the configuration; the first three name the stage's own keys."""
        config = self.config
        values = {
            "epochs": config[epochs],
            "learning_rate": config[learning_rate],
            "patience": config[patience],
            "batch_size": config["train_batch_size"],
            "weight_decay": config["weight_decay"],
            "warmup_steps": config["warmup_steps"],
            "eval_step": config["eval_step"],
            "max_grad_norm": config["max_grad_norm"],
            "ema": config["ema"],
            "max_seconds": config["max_train_seconds"] or 0,
            "seed": config["seed"],
        }
        return Schedule(**(values | changes))

    def _stage(
        self,
        plan: Plan,
        samples: Samples,
        valid_data: AbstractDataLoader,
        show_progress: bool,
        callback_fn: Callable[[int, float], None] | None,
    ) -> None:
        self.model.objective = objective = plan.objective()
        context = StageContext(
            lambda: self.evaluate(valid_data, load_best_model=False, show_progress=show_progress),
            self.valid_metric,
            precision=self.precision,
            writer=self.tensorboard,
            progress=stage_progress(self.config, plan.number, self.model.fingerprint),
            on_epoch=callback_fn,
            show_progress=show_progress,
        )
        self._finish(train_stage(self.model.network, objective, plan.schedule, samples, context, plan.evaluate_first))

    def _finish(self, result: StageResult) -> None:
        """Keep the checkpoint of a stage, and its weights where it is the best so far."""
        seconds = result.seconds + (self.stages[-1].seconds if self.stages else 0.0)
        stage = Stage(result, self.saved_model_file.replace(".pth", f"-{result.name}.pth"), seconds)
        self.best_valid_score = result.valid[self.valid_metric]
        self._save_checkpoint(result.epoch, verbose=False, saved_model_file=stage.file)
        self.stages.append(stage)
        if self.final is stage:
            self._final_weights = {name: value.clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: AbstractDataLoader,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float] | None:
        """As RecBole's ``Trainer.evaluate``, without its matrix of all users and items.

        Several processes share the users, of whom each counts exactly once. Metrics of lists are of those that the
        model recommends; a metric that needs a full ranking, which is GAUC, is of the exact scores of all items.
        """
        if not isinstance(eval_data, FullSortEvalDataLoader):
            return super().evaluate(eval_data, load_best_model, model_file, show_progress)
        if load_best_model:
            broadcast(lambda: None)  # all wait until the first process has written the file
            checkpoint = torch.load(model_file or self.saved_model_file, map_location=self.device, weights_only=False)
            self.model.load_state_dict(checkpoint["state_dict"])
        samples, struct = samples_of(eval_data._dataset).to(self.device), self.eval_collector.data_struct
        lists = self._lists(samples, show_progress)
        if self.eval_collector.register.need("rec.items"):
            struct.update_tensor("rec.items", lists)
        if self.eval_collector.register.need("rec.meanrank"):
            struct.update_tensor("rec.meanrank", self._mean_ranks(samples, show_progress))
        return self._measure(hits_of(lists, samples.targets))

    def _needs_more_than_hits(self, eval_data: AbstractDataLoader) -> bool:
        """Whether some metric needs more than the places of the targets in the lists."""
        more = any(map(self.eval_collector.register.need, ("rec.items", "rec.meanrank")))
        return more or not isinstance(eval_data, FullSortEvalDataLoader)

    def _lists(self, samples: Samples, show_progress: bool, known: torch.Tensor | None = None) -> torch.Tensor:
        """The items that are recommended to each user, best first, [U, k]; 0 where there is none, and to users ``known``."""
        self.model.eval()
        top, unknown = max(self.config["topk"]), torch.ones(len(samples), dtype=torch.bool)
        lists = samples.targets.new_zeros(len(samples), top)
        if known is not None:
            unknown[known] = False
        for batch in self._shared(samples, self.test_batch_size, unknown.nonzero()[:, 0], show_progress):
            items = self.model.rank(batch.histories, top)[0][:, :top]
            lists[batch.rows, : items.shape[1]] = items
        return all_reduce(lists)

    def _mean_ranks(self, samples: Samples, show_progress: bool) -> torch.Tensor:
        """See :func:`mean_ranks`, by exact scores of all items, [U, 3]."""
        ranks = torch.zeros(len(samples), 3, dtype=torch.float64, device=self.device)
        size = max(1, min(self.test_batch_size, _SCORES // self.model.n_items))
        for batch in self._shared(samples, size, torch.arange(len(samples)), show_progress):
            histories = Interaction({self.model.ITEM_SEQ: batch.histories})
            ranks[batch.rows] = mean_ranks(self.model.full_sort_predict(histories), batch.targets)
        return all_reduce(ranks)

    def _shared(self, samples: Samples, size: int, rows: torch.Tensor, show_progress: bool) -> Iterable[Batch]:
        """Batches of some samples, those of this one of several processes."""
        batches = samples.ordered(size, rows)[process_index() :: processes()]
        return tqdm(batches, desc="rank", ncols=100, disable=not show_progress, leave=False)

    def _measure(self, hits: torch.Tensor) -> dict[str, float]:
        """RecBole's metrics of hits [U, k + 1], see :func:`hits_of`, and of what its collector holds besides."""
        self.eval_collector.data_struct.update_tensor("rec.topk", hits)
        return self.evaluator.evaluate(self.eval_collector.get_data_struct())


class TIGERTrainer(GenerativeTrainer):
    """One stage: cross-entropy over the target's tokens."""

    def plan(self, samples: Samples) -> list[Plan]:
        return [Plan(0, self.model.first_objective, self.schedule("epochs", "learning_rate", "stopping_step"))]


class STREAMRecTrainer(GenerativeTrainer):
    """Pretraining, fine-tuning on collected reasoning, GRPO, the matching tower."""

    def plan(self, samples: Samples) -> list[Plan]:
        build = {
            "pretrain": self._pretrain,
            "finetune": self._finetune,
            "reinforce": self._reinforce,
            "match": self._match,
        }
        return [build[stage](STAGES.index(stage), samples) for stage in self.model.stages]

    def _pretrain(self, number: int, samples: Samples) -> Plan:
        """Stage 1 (Eq. 9-11)."""
        schedule = self.schedule("pretrain_epochs", "pretrain_learning_rate", "pretrain_patience")
        return Plan(number, self.model.first_objective, schedule)

    def _finetune(self, number: int, samples: Samples) -> Plan:
        """Stage 2 (Eq. 12-19)."""
        config, network = self.config, self.model.network

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
                state_temperature=config["state_temperature"],
                straight_through=config["straight_through"],
                label_smoothing=config["label_smoothing"],
            )
            return Finetune(
                network,
                samples,
                self.model.similar,
                options,
                config["train_batch_size"],
                self.precision,
                config["show_progress"],
            )

        return Plan(number, objective, self.schedule("finetune_epochs", "finetune_learning_rate", "finetune_patience"))

    def _reinforce(self, number: int, samples: Samples) -> Plan:
        """Stage 3 (Eq. 20-27)."""
        config = self.config

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
            return Reinforce(self.model.network, self.model.trie, self.model.similar, options)

        schedule = self.schedule(
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

    def _match(self, number: int, samples: Samples) -> Plan:
        """The matching tower of the deliberation."""

        def objective() -> Objective:
            if self.stages:
                self.model.load_state_dict(self._final_weights)  # the stage that generates best so far
            return Match(self.model.network)

        schedule = self.schedule("matching_epochs", "matching_learning_rate", "matching_patience", ema=0.0)
        return Plan(number, objective, schedule)

    def conclude(self, valid_data: AbstractDataLoader, show_progress: bool) -> None:
        """Learn to deliberate, on the validation split.

        The weights and the verifier are fitted on validation users, and would look too good on these same users. The
        validation metric therefore ranks each user by what was fitted on the others (except where a metric needs more
        than the targets' places).
        """
        slow = self.model.network.deliberation
        if slow is None:
            return
        began = time.perf_counter()
        self.model.eval()
        model, samples = self.model, samples_of(valid_data._dataset).to(self.device)
        some = torch.randperm(len(samples), generator=torch.Generator().manual_seed(self.config["seed"]))
        learnt = learn_to_deliberate(
            model.network, samples, some[: self.config["weigh_users"]], model.trie, model.beams, model.candidates,
            self.config["seed"], bool(self.config["leave_out_seen"]), show_progress,
        )  # fmt: skip
        self.logger.info(f"deliberation: {learnt.message}")
        if self._needs_more_than_hits(valid_data):
            valid = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
        else:
            hits = hits_of(self._lists(samples, show_progress, learnt.rows), samples.targets)
            held_out = torch.from_numpy(learnt.ranks)[:, None] == torch.arange(1, hits.shape[1])
            hits[learnt.rows.to(hits.device), :-1] = held_out.to(hits)
            valid = self._measure(hits)
        self.logger.info(f"Deliberation | valid {self.valid_metric} {valid[self.valid_metric]:.4f}")
        self._finish(StageResult("Deliberation", valid, seconds=time.perf_counter() - began))
