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
from recbole_stream.host.models import StagedRecommender, learn_pointer
from recbole_stream.host.run.resume import checkpoint_file, stage_progress
from recbole_stream.host.stages import BUILDERS, Plan
from recbole_stream.host.start import Start, find_start
from recbole_stream.precision import automatic_precision
from recbole_stream.training.fit_views import Learnt, learn_to_deliberate
from recbole_stream.training.loop import StageContext, StageResult, train_stage
from recbole_stream.training.processes import all_reduce, broadcast, process_index, processes
from recbole_stream.training.schedule import Schedule

__all__ = ["STREAMRecTrainer", "Stage", "TIGERTrainer"]

_SCORES = 1 << 24  # scores [histories, items] that are held at once


@dataclass
class Stage:
    """A finished stage.

    Attributes:
        result: how it ended.
        file: RecBole checkpoint of its best epoch; None where ``fit`` was not to save any.
        seconds: wall time of training up to and including this stage.
    """

    result: StageResult
    file: str | None
    seconds: float


class GenerativeTrainer(Trainer):
    """Runs stages with the project's own loop and ranks without a dense [users, items] matrix.

    Attributes:
        stages (list[Stage]): the finished ones, in order.
        final (Stage): the one with the best validation metric; ``saved_model_file`` is its checkpoint.
        final_weights (dict): the model's state after it; empty before the first stage has ended.
    """

    saved_model_file: str  # RecBole's own

    def __init__(self, config: Config, model: StagedRecommender) -> None:
        super().__init__(config, model)
        self.stages: list[Stage] = []
        self.final_weights: dict[str, torch.Tensor] = {}
        self._saves, self._validated, self._last_valid = True, 0, {}
        self.fingerprint = model.fingerprint  # of all that the stages start from
        self.precision = config["precision"]
        if self.precision == "auto":
            self.precision = automatic_precision(self.device)
        self.saved_model_file = checkpoint_file(config) or self.saved_model_file

    @property
    def final(self) -> Stage:
        # the first of equals: the earlier stage, which costs less
        better = max if self.valid_metric_bigger else min
        return better(self.stages, key=lambda stage: stage.result.valid[self.valid_metric])

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

        The model ends with the weights of the best stage, and so does the checkpoint where ``saved``. Epochs count on from
        stage to stage, in ``callback_fn``, ``train_loss_dict`` and the records of Weights & Biases.

        Raises:
            InputError: there is no validation data.
        """
        if valid_data is None:
            raise InputError("There is no validation data: set eval_args to split {LS: valid_and_test}.")
        self.eval_collector.data_collect(train_data)
        self.logger.disabled, self._saves = not verbose, saved
        samples = self.training_samples(samples_of(train_data._dataset)).to(self.device)
        try:
            for plan in self.plan(samples):
                self._stage(plan, samples, valid_data, show_progress, callback_fn)
            self.conclude(samples, valid_data, show_progress)
        finally:
            self.logger.disabled = False
        final = self.final
        self.model.load_state_dict(self.final_weights)
        self.best_valid_score = final.result.valid[self.valid_metric]
        self.best_valid_result = final.result.valid
        self.saved_model_file = final.file or self.saved_model_file
        self._add_hparam_to_tensorboard(self.best_valid_score)
        self.logger.info(f"the final stage is {final.result.name}" + (f": {final.file}" if saved else ""))
        return self.best_valid_score, self.best_valid_result

    def training_samples(self, samples: Samples) -> Samples:
        """What the stages are trained on, of all samples of the training split."""
        return samples

    def plan(self, samples: Samples) -> list[Plan]:
        """The stages on these training samples, in order."""
        raise NotImplementedError

    def conclude(self, samples: Samples, valid_data: AbstractDataLoader, show_progress: bool) -> None:
        """What follows the stages, which were trained on ``samples``; nothing unless a model has something to choose."""

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
        context = self._context(objective.name, plan, valid_data, show_progress, callback_fn)
        self._end(train_stage(self.model.network, objective, plan.schedule, samples, context, plan.evaluate_first))

    def _context(
        self,
        name: str,
        plan: Plan,
        valid_data: AbstractDataLoader,
        show_progress: bool,
        callback_fn: Callable[[int, float], None] | None,
    ) -> StageContext:
        """What the loop of a stage of this name asks of the trainer; epochs count on from the stages before."""
        before = len(self.train_loss_dict)

        def validate() -> dict[str, float]:
            self._last_valid = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
            return self._last_valid

        return StageContext(
            validate,
            self.valid_metric,
            self.valid_metric_bigger,
            precision=self.precision,
            record=lambda epoch, scalars: self._record(name, epoch, before + epoch, scalars),
            progress=stage_progress(self.config, plan.number, self.fingerprint),
            on_epoch=callback_fn and (lambda epoch, valid: callback_fn(before + epoch, valid)),
            show_progress=show_progress,
        )

    def _end(self, result: StageResult) -> None:
        """Note the losses of a stage, and keep it."""
        before = len(self.train_loss_dict)
        self.train_loss_dict |= {before + epoch: scalars["loss"] for epoch, scalars in enumerate(result.curves)}
        self._finish(result)

    def _record(self, stage: str, epoch: int, number: int, scalars: dict[str, float]) -> None:
        """Log an epoch as RecBole does, with TensorBoard and Weights & Biases; the latter under its number in all stages."""
        for name, value in scalars.items():
            self.tensorboard.add_scalar(f"{stage}/{name}", value, epoch)
        own = {f"{stage}/{name}": value for name, value in scalars.items() if name != "loss"}
        train = {"epoch": number, "train_loss": scalars["loss"], "train_step": number}
        self.wandblogger.log_metrics(train | own, head="train")
        if "valid" in scalars:
            self._record_valid(self._last_valid)

    def _record_valid(self, valid: dict[str, float]) -> None:
        self.wandblogger.log_metrics({**valid, "valid_step": self._validated}, head="valid")
        self._validated += 1

    def _finish(self, result: StageResult) -> None:
        """Save the checkpoint of a stage, and keep its weights where it is the best so far."""
        seconds = result.seconds + (self.stages[-1].seconds if self.stages else 0.0)
        file = self.saved_model_file.replace(".pth", f"-{result.name}.pth") if self._saves else None
        stage = Stage(result, file, seconds)
        self.best_valid_score = result.valid[self.valid_metric]
        if file is not None:
            self._save_checkpoint(result.epoch, verbose=False, saved_model_file=file)
        self.stages.append(stage)
        if self.final is stage:
            self.final_weights = {name: value.clone() for name, value in self.model.state_dict().items()}

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
            self.model.load_other_parameter(checkpoint.get("other_parameter"))
        metrics = self._metrics(samples_of(eval_data._dataset).to(self.device), show_progress)
        self.wandblogger.log_eval_metrics(metrics, head="eval")
        return metrics

    def resume_checkpoint(self, resume_file: str) -> None:
        """Refuse what RecBole's trainers do: a checkpoint holds the best epoch of a stage, not how far training came.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{resume_file} holds no progress of {self.config['model']}: set resume_dir to a folder that keeps it, or go "
            "on with a run by run_recbole.py --resume=FOLDER."
        )

    def _metrics(self, samples: Samples, show_progress: bool, learnt: Learnt | None = None) -> dict[str, float]:
        """RecBole's metrics; users of ``learnt`` have the places that it gives their targets.

        Metrics of lists and scores alone are of the model as it is for these users too.
        """
        need, struct = self.eval_collector.register.need, self.eval_collector.data_struct
        known = None if learnt is None or need("rec.items") else learnt.rows
        lists = self._lists(samples, show_progress, known)
        hits = hits_of(lists, samples.targets)
        if learnt is not None:
            held_out = torch.from_numpy(learnt.ranks)[:, None] == torch.arange(1, hits.shape[1])
            hits[learnt.rows.to(hits.device), :-1] = held_out.to(hits)
        struct.update_tensor("rec.topk", hits)
        if need("rec.items"):
            struct.update_tensor("rec.items", lists)
        if need("rec.meanrank"):
            struct.update_tensor("rec.meanrank", self._mean_ranks(samples, show_progress))
        return self.evaluator.evaluate(self.eval_collector.get_data_struct())

    def _lists(self, samples: Samples, show_progress: bool, known: torch.Tensor | None = None) -> torch.Tensor:
        """The items that are recommended to each user, best first, [U, k]; 0 where there is none, and to users ``known``."""
        self.model.eval()
        top, unknown = max(self.config["topk"]), torch.ones(len(samples), dtype=torch.bool)
        lists = samples.targets.new_zeros(len(samples), top)
        if known is not None:
            unknown[known] = False
        for batch in self._shared(samples, self.test_batch_size, unknown.nonzero()[:, 0], show_progress):
            items = self.model.rank_batch(batch, top)[0][:, :top]
            lists[batch.rows, : items.shape[1]] = items
        return all_reduce(lists)

    def _mean_ranks(self, samples: Samples, show_progress: bool) -> torch.Tensor:
        """See :func:`mean_ranks`, by exact scores of all items, [U, 3]."""
        ranks = torch.zeros(len(samples), 3, dtype=torch.float64, device=self.device)
        size = max(1, min(self.test_batch_size, _SCORES // self.model.n_items))
        for batch in self._shared(samples, size, torch.arange(len(samples)), show_progress):
            histories = Interaction({self.model.ITEM_SEQ: batch.histories})
            scores = self.model.full_sort_predict(histories)
            if batch.seen is not None:
                scores[batch.seen.index()] = -torch.inf
            ranks[batch.rows] = mean_ranks(scores, batch.targets)
        return all_reduce(ranks)

    def _shared(self, samples: Samples, size: int, rows: torch.Tensor, show_progress: bool) -> Iterable[Batch]:
        """Batches of some samples, those of this one of several processes."""
        batches = samples.ordered(size, rows)[process_index() :: processes()]
        return tqdm(batches, desc="rank", ncols=100, disable=not show_progress, leave=False)


class TIGERTrainer(GenerativeTrainer):
    """One stage: cross-entropy over the target's tokens."""

    def plan(self, samples: Samples) -> list[Plan]:
        return [Plan(0, self.model.first_objective, self.schedule("epochs", "learning_rate", "stopping_step"))]


class STREAMRecTrainer(GenerativeTrainer):
    """Pretraining, fine-tuning on collected reasoning, GRPO, the matching tower.

    Attributes:
        conclusion: name of the last stage, in which views are weighed.
    """

    conclusion = "Deliberation"

    def plan(self, samples: Samples) -> list[Plan]:
        start = find_start(self.config)
        if start is not None:
            self._start(start)
        return [BUILDERS[stage](self, STAGES.index(stage), samples) for stage in self.model.stages]

    def _start(self, start: Start) -> None:
        """Take over a stage of another run: it is the first one here, with the seconds that it took there."""
        own = {name: value for name, value in self.model.state_dict().items() if "network.deliberation." in name}
        self.model.load_state_dict(own | start.weights())
        # where it was frozen, as after Stage 1, the checkpoint does not say so
        if start.row.stage != "PT":
            self.model.network.reference.requires_grad_(False).eval()
        self.fingerprint += f" from {start.digest}"
        self.logger.info(f"{start.row.stage} is that of {start.file}, trained in {start.row.train_seconds:.0f}s.")
        self._finish(StageResult(start.row.stage, start.row.valid, seconds=start.row.train_seconds))

    def conclude(self, samples: Samples, valid_data: AbstractDataLoader, show_progress: bool) -> None:
        """Learn to deliberate: the pointer on the training samples, the rest on the validation split.

        The weights and the verifier are fitted on validation users, and would look too good on these same users. The
        places of the targets, of which the validation metrics follow, are therefore by what was fitted on the others;
        those of sampled negatives, GAUC and metrics of items alone are not.
        """
        slow = self.model.network.deliberation
        if slow is None:
            return
        began = time.perf_counter()
        self.model.eval()
        model, config = self.model, self.config
        if slow.pointer is not None:
            self.logger.info(f"pointer: {learn_pointer(model, config, samples, show_progress)}")
        samples = samples_of(valid_data._dataset).to(self.device)
        some = torch.randperm(len(samples), generator=torch.Generator().manual_seed(config["seed"]))
        learnt = learn_to_deliberate(
            model.network, samples, some[: config["weigh_users"]], model.trie, model.beams, model.candidates,
            config["seed"], show_progress,
        )  # fmt: skip
        self.logger.info(f"{self.conclusion.lower()}: {learnt.message}")
        if isinstance(valid_data, FullSortEvalDataLoader):
            valid = self._metrics(samples, show_progress, learnt)
        else:
            valid = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
        self.logger.info(f"{self.conclusion} | valid {self.valid_metric} {valid[self.valid_metric]:.4f}")
        self._record_valid(valid)
        self._finish(StageResult(self.conclusion, valid, seconds=time.perf_counter() - began))
