"""GRPO of a language model by TRL, validated after each epoch, which goes on where it was killed."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from recbole_stream.training.loop import StageContext, StageResult
from recbole_stream.training.schedule import Schedule

__all__ = ["GRPOOptions", "train_policy"]

_SHOWN = {"loss": "loss", "reward": "reward", "kl": "kl", "completions/mean_length": "length"}


@dataclass(frozen=True)
class GRPOOptions:
    """What TRL needs beside a schedule.

    Attributes:
        group: completions of a prompt.
        micro_batch: completions in one backward pass; it divides ``group`` times the prompts of a step.
        tokens: of a completion, at most.
        temperature, top_p: of sampling.
        kl_weight: of the divergence from the model that training began with.
    """

    group: int
    micro_batch: int
    tokens: int
    temperature: float
    top_p: float
    kl_weight: float


def train_policy(
    policy: nn.Module,
    tokenizer: Any,
    prompts: Callable[[Sequence[int]], list],
    targets: Sequence[int],
    reward: Callable[..., list[float]],
    options: GRPOOptions,
    schedule: Schedule,
    context: StageContext,
    folder: Path | None,
) -> StageResult:
    """Train a language model and leave it with the weights of its best epoch; the model as it enters competes.

    Args:
        policy, tokenizer: of :func:`load_policy`; the policy is on its device.
        prompts: numbers of samples -> their prompts, as :func:`as_input` gives them.
        targets: of all samples [N], items from 0.
        reward: of :func:`reward_function`.
        options: of GRPO.
        schedule: epochs, samples an epoch, prompts a step (its batch), rate, patience, limit.
        context: how it is validated, saved and logged.
        folder: where TRL keeps its checkpoints; None keeps them only while it trains.
    """
    steps = schedule.batches_per_epoch(len(targets))
    draw = torch.Generator().manual_seed(schedule.seed)
    rows = torch.randperm(len(targets), generator=draw)[: schedule.epochs * steps * schedule.batch_size].tolist()
    course = _Course(policy, schedule, steps, context)
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        kept = course.resume(place)
        if kept is None:
            shutil.rmtree(place, ignore_errors=True)  # of another run, or half-written in a first epoch
        if not course.ended:
            disable_progress_bars()  # of preparing the data set, which takes no time
            trainer = GRPOTrainer(
                model=policy,
                reward_funcs=reward,
                args=_arguments(policy, options, schedule, steps, context.precision, place),
                train_dataset=Dataset.from_dict({"prompt": prompts(rows), "target": [targets[row] for row in rows]}),
                processing_class=tokenizer,
                callbacks=[course],
            )
            for callback in (PrinterCallback, ProgressCallback):
                trainer.remove_callback(callback)
            trainer.train(resume_from_checkpoint=None if kept is None else str(kept))
    policy.load_state_dict(course.best)
    policy.eval()
    return course.result


def _arguments(
    policy: nn.Module, options: GRPOOptions, schedule: Schedule, steps: int, precision: str, place: Path
) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(place),
        max_steps=schedule.epochs * steps,
        save_strategy="steps",
        save_steps=steps,
        save_total_limit=2,  # a kill while the new one is written leaves the one before
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=policy.device.type == "cpu",
        bf16=precision == "bfloat16",
        seed=schedule.seed,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        warmup_steps=schedule.warmup_steps,
        lr_scheduler_type="constant_with_warmup",
        max_grad_norm=schedule.max_grad_norm,
        per_device_train_batch_size=options.micro_batch,
        gradient_accumulation_steps=schedule.batch_size * options.group // options.micro_batch,
        num_generations=options.group,
        max_completion_length=options.tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        beta=options.kl_weight,
        loss_type="grpo",  # the mean over a completion's tokens, then over completions, as in the paper
    )


class _Course(TrainerCallback):
    """Validates after each of TRL's checkpoints, keeps the best weights, and ends training early.

    Attributes:
        result: of the training so far.
        best: weights of the best epoch so far; None before the first validation.
        waited: validations since then.
        ended: whether nothing is left to train.
    """

    _KEPT = ("result", "best", "waited", "ended")

    def __init__(self, policy: nn.Module, schedule: Schedule, steps: int, context: StageContext) -> None:
        self.policy, self.schedule, self.steps, self.context = policy, schedule, steps, context
        self.result, self.waited, self.ended = StageResult("GRPO", {}), 0, False
        self.best: dict[str, Tensor] | None = None
        self._logs: list[dict[str, float]] = []  # of TRL, since the last validation
        self._bar = tqdm(disable=True)
        self._began = time.perf_counter()

    def resume(self, place: Path) -> Path | None:
        """Go on from the last validation, and name TRL's checkpoint of it; None where training begins anew."""
        state = self.context.progress.load() if self.context.progress else None
        if state is None:
            return None
        kept = place / f"checkpoint-{state['result'].epochs * self.steps}"
        if state["result"].epochs and not kept.is_dir():
            getLogger().warning(f"There is no {kept}: GRPO begins anew.")
            return None
        for name in self._KEPT:
            setattr(self, name, state[name])
        self._began = time.perf_counter() - self.result.seconds
        getLogger().info(f"GRPO: resumed after {self.result.epochs} epochs.")
        return kept if self.result.epochs else None

    def on_train_begin(self, args, state, control, **kwargs):
        total, done = state.max_steps, state.global_step
        self._bar = tqdm(desc="GRPO", total=total, initial=done, ncols=100, disable=not self.context.show_progress)
        if self.best is None:
            self._validate(-1)
            self._save()

    def on_step_end(self, args, state, control, **kwargs):
        self._bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self._logs.append({short: float(logs[name]) for name, short in _SHOWN.items() if name in logs})

    def on_save(self, args, state, control, **kwargs):
        epoch, result = state.global_step // self.steps - 1, self.result
        valid = self._validate(epoch)
        scalars = {"loss": math.nan} | _means(self._logs) | {"valid": valid}
        self._logs = []
        result.epochs = epoch + 1
        result.curves.append(scalars)
        late = 0 < self.schedule.max_seconds < time.perf_counter() - self._began
        self.ended = late or self.waited > self.schedule.patience or state.global_step >= state.max_steps
        self._save()
        if self.context.record is not None:
            self.context.record(epoch, scalars)
        if self.context.on_epoch is not None:
            self.context.on_epoch(epoch, valid)
        control.should_training_stop = control.should_training_stop or self.ended

    def on_train_end(self, args, state, control, **kwargs):
        self._bar.close()

    def _validate(self, epoch: int) -> float:
        """The metric that chooses; the weights are kept where it is the best."""
        training = self.policy.training
        valid = self.context.evaluate()
        self.policy.train(training)
        metric, result = self.context.metric, self.result
        if self.best is None or self.context.improves(valid, result.valid):
            self.best = {name: value.detach().cpu().clone() for name, value in self.policy.state_dict().items()}
            result.valid, result.epoch, self.waited = valid, epoch, 0
        else:
            self.waited += 1
        getLogger().info(f"GRPO epoch {epoch} | valid {metric} {valid[metric]:.4f} (best {result.valid[metric]:.4f})")
        return valid[metric]

    def _save(self) -> None:
        self.result.seconds = time.perf_counter() - self._began
        if self.context.progress is not None:
            self.context.progress.save({name: getattr(self, name) for name in self._KEPT})


def _means(logs: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each number over the steps that have it."""
    names = dict.fromkeys(name for log in logs for name in log)
    values = {name: [log[name] for log in logs if name in log] for name in names}
    return {name: sum(some) / len(some) for name, some in values.items()}
