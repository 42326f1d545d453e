"""The part of a sweep that knows Ray: which trial comes next, which is stopped, and where they run."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

# to be set before Ray starts: our own lines are the output, our own files the record
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial that fails at once reports nothing

import numpy as np  # noqa: E402
import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.exceptions import RayActorError  # noqa: E402
from ray.tune.experiment import Trial as RayTrial  # noqa: E402
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from recbole_stream.cluster import STARTS  # noqa: E402
from recbole_stream.host.tuning.space import (  # noqa: E402
    Domain,
    Trial,
    best_trial,
    read_trial,
    sample,
    short,
    write_trial,
)
from recbole_stream.host.tuning.trial import Sweep, read_sweep, run_trial, sentence  # noqa: E402
from recbole_stream.seeds import mix  # noqa: E402

__all__ = ["run_trials"]

REDUCTION = 3  # ASHA keeps one of so many at each rung


def run_trials(sweep: Sweep) -> None:
    """Run all trials that have not ended yet; their folders hold what came of them. :func:`cluster.connect` comes first."""
    known = sweep.read_trials()
    search = _Search(sweep, known)
    tuner = tune.Tuner(
        tune.with_resources(_trainable, {"cpu": sweep.cpus, "gpu": sweep.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=search, scheduler=_scheduler(sweep, known), num_samples=len(search.waiting)
        ),
        run_config=tune.RunConfig(
            # Ray's own record, which nothing reads
            storage_path=str(sweep.folder / "ray"),
            name=datetime.now().strftime("%Y%m%d-%H%M%S"),
            failure_config=tune.FailureConfig(max_failures=STARTS - 1),
            callbacks=[_Progress(sweep)],
            verbose=0,
        ),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # even at its quietest, Tune prints a banner
        tuner.fit()


def _trainable(config: dict[str, Any]) -> None:
    node = ray.get_runtime_context().get_node_id()[:8]
    run_trial(read_sweep(Path(config["sweep"])), config["trial"], node, tune.report)


class _Search(Searcher):
    """Chooses the parameters of each trial, writes them into its folder, and learns from trials that have ended.

    Attributes:
        waiting: numbers of the trials to run: first those that were interrupted.
    """

    def __init__(self, sweep: Sweep, known: list[Trial]) -> None:
        super().__init__()
        self.sweep, self.space, self.numbers = sweep, sweep.domains(), {}
        self.known = {trial.number: trial for trial in known}
        open_ones = [trial.number for trial in known if trial.state in ("planned", "running")]
        self.waiting = open_ones + [n for n in range(1, sweep.trials + 1) if n not in self.known]
        self.advisor = _hyperopt(sweep, self.space, known) if sweep.search == "hyperopt" else None
        for trial in known if self.advisor else ():
            self.advisor.suggest(str(trial.number))  # its own parameters, given as a point to start from
            if trial.number not in open_ones:
                self._teach(trial)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if not self.waiting:
            return Searcher.FINISHED
        number = self.numbers[trial_id] = self.waiting.pop(0)
        if number not in self.known:
            if self.advisor:
                parameters = _plain(self.advisor.suggest(str(number)), self.space)
            else:
                parameters = sample(self.space, self.sweep.seed, number)
            write_trial(self.sweep.trial_folder(number), Trial(number, parameters))
        return {"sweep": str(self.sweep.folder), "trial": number}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        if self.advisor:
            self._teach(read_trial(self.sweep.trial_folder(self.numbers[trial_id])))

    def _teach(self, trial: Trial) -> None:
        best = trial.best(self.sweep.bigger)
        if trial.state == "failed" or best is None:
            self.advisor.on_trial_complete(str(trial.number), error=True)
        else:
            self.advisor.on_trial_complete(str(trial.number), {"valid": best["valid"]})

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trials' folders are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


def _hyperopt(sweep: Sweep, space: Mapping[str, Domain], known: list[Trial]) -> Searcher:
    """TPE, which will first suggest what is known already."""
    from ray.tune.search.hyperopt import HyperOptSearch

    domains = {
        key: tune.choice(list(domain.arguments))
        if domain.kind == "choice"
        else tune.randint(domain.arguments[0], domain.arguments[1] + 1)  # Ray leaves the upper end out
        if domain.kind == "randint"
        else getattr(tune, domain.kind)(*domain.arguments)
        for key, domain in space.items()
    }
    return HyperOptSearch(
        HyperOptSearch.convert_search_space(domains),
        metric="valid",
        mode="max" if sweep.bigger else "min",
        points_to_evaluate=[trial.parameters for trial in known] or None,
        n_initial_points=min(20, max(4, sweep.trials // 4)),  # drawn at random before the model has a say
        random_state_seed=mix(sweep.seed, len(known)),  # with the same seed it would draw known points again
    )


def _plain(parameters: Mapping[str, Any], space: Mapping[str, Domain]) -> dict[str, Any]:
    """NumPy's numbers as Python's, which JSON and YAML know; steps without the dust of their products, as in ``sample``."""
    plain = {}
    for key, domain in space.items():  # in the order of the file; hyperopt sorts
        value = parameters[key].item() if isinstance(parameters[key], np.generic) else parameters[key]
        plain[key] = round(value, 12) if domain.kind == "quniform" else value
    return plain


def _scheduler(sweep: Sweep, known: list[Trial]) -> TrialScheduler:
    """ASHA with rungs at 1/9 and 1/3 of a trial's epochs, told what trials before an interruption reported."""
    grace = max(1, sweep.max_epochs // REDUCTION**2)
    if sweep.scheduler == "none" or sweep.max_epochs <= grace:
        return FIFOScheduler()
    asha = ASHAScheduler(
        time_attr="epoch",
        metric="valid",
        mode="max" if sweep.bigger else "min",
        max_t=sweep.max_epochs - 0.5,  # no rung at the last epoch: a trial that reaches it has finished
        grace_period=grace,
        reduction_factor=REDUCTION,
        stop_last_trials=False,
    )
    for trial in known:
        if trial.state not in ("finished", "stopped") or not trial.epochs:
            continue
        told = RayTrial("known", trial_id=f"known{trial.number}", stub=True)
        asha.on_trial_add(None, told)
        best = None
        for line in trial.epochs:
            best = line["valid"] if best is None else (max if sweep.bigger else min)(best, line["valid"])
            asha.on_trial_result(None, told, {"epoch": line["epoch"], "valid": best})
        asha.on_trial_remove(None, told)
    return asha


class _Progress(tune.Callback):
    """A line for each trial that ends, and the last word in its record."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    def on_trial_complete(self, iteration: int, trials: list, trial: RayTrial, **info) -> None:
        record = self._read(trial)
        if record.state == "running":
            record.state = "stopped"  # it did not end by itself
            write_trial(self.sweep.trial_folder(record.number), record)
        self._say(record)

    def on_trial_error(self, iteration: int, trials: list, trial: RayTrial, **info) -> None:
        record, fault = self._read(trial), trial.get_error()
        record.state = "failed"
        if isinstance(fault, RayActorError):
            record.error = f"its worker was lost {STARTS} times ({type(fault).__name__})."
        else:
            record.error = sentence(fault).splitlines()[-1][-300:]
        write_trial(self.sweep.trial_folder(record.number), record)
        self._say(record)

    def on_trial_recover(self, iteration: int, trials: list, trial: RayTrial, **info) -> None:
        _print(f"trial {trial.config['trial']} lost its worker and starts again")

    def _read(self, trial: RayTrial) -> Trial:
        return read_trial(self.sweep.trial_folder(trial.config["trial"]))

    def _say(self, trial: Trial) -> None:
        sweep, best = self.sweep, trial.best(self.sweep.bigger)
        line = f"trial {trial.number} of {sweep.trials} {trial.state}"
        if trial.error:
            line += f": {trial.error}"
        elif best:
            last = trial.epochs[-1]
            line += f": {sweep.metric} {best['valid']:.4f}, {last['epoch']} epochs, {last['seconds']:.0f} s"
        line += f" ({', '.join(f'{key} {short(value)}' for key, value in trial.parameters.items())})"
        winner = best_trial(sweep.read_trials(), sweep.bigger)
        if winner:
            line += f"; best {winner.best(sweep.bigger)['valid']:.4f}, trial {winner.number}"
        _print(line)


def _print(line: str) -> None:
    print(line, file=sys.__stdout__, flush=True)
