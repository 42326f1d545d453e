"""A sweep's settings on disk, and one trial of it: what a worker process runs, wherever it is.

A worker is told a folder and a number; everything else it reads from files. So a trial can be started again, in
another process or on another machine that sees the same folder, and goes on from its own progress files.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from recbole_stream.errors import InputError
from recbole_stream.files import remove_halves, write_text
from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.run.job import configure, train_job
from recbole_stream.host.run.log import log_of_its_own
from recbole_stream.host.tuning.space import (
    EPOCHS_FILE,
    TRIAL_FILE,
    Domain,
    Trial,
    parse_space,
    read_trial,
    write_trial,
)

__all__ = ["SWEEP_FILE", "Sweep", "read_sweep", "run_trial", "sentence"]

SWEEP_FILE = "sweep.json"


@dataclass
class Sweep:
    """The settings of a sweep.

    Attributes:
        folder: absolute, the same on every machine.
        command: as it was typed.
        model, dataset: names.
        keys: what every trial's configuration contains; its paths are absolute.
        space: as in the YAML file.
        trials: how many.
        seed: of the search.
        search: ``random`` or ``hyperopt``.
        scheduler: ``asha`` or ``none``.
        cpus, gpus: of one trial.
        metric: the validation metric that selects, in RecBole's spelling of results ("ndcg@10").
        bigger: whether more of it is better.
        max_epochs: a trial's, all stages together.
    """

    folder: Path
    command: list[str]
    model: str
    dataset: str
    keys: dict[str, Any]
    space: dict[str, Any]
    trials: int
    seed: int
    search: str
    scheduler: str
    cpus: float
    gpus: float
    metric: str
    bigger: bool
    max_epochs: int

    def domains(self) -> dict[str, Domain]:
        return parse_space(self.space, self.folder / SWEEP_FILE)

    def trial_folder(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:03d}"

    def read_trials(self) -> list[Trial]:
        """Those that have been chosen so far, by number."""
        return [read_trial(file.parent) for file in sorted(self.folder.glob(f"trials/*/{TRIAL_FILE}"))]

    def write(self) -> None:
        record = {key: value for key, value in asdict(self).items() if key != "folder"}
        write_text(self.folder / SWEEP_FILE, json.dumps(record, indent=1) + "\n")


def read_sweep(folder: Path) -> Sweep:
    """The sweep of a folder.

    Raises:
        InputError: there is none.
    """
    try:
        return Sweep(folder=folder.resolve(), **json.loads((folder / SWEEP_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no sweep to go on with: it has no {SWEEP_FILE}.") from None
    except (ValueError, TypeError) as fault:
        raise InputError(f"{folder / SWEEP_FILE} is not the record of a sweep ({fault}): start another one.") from fault


def run_trial(sweep: Sweep, number: int, node: str, report: Callable[[dict[str, float]], None]) -> None:
    """Train one trial; its folder keeps everything it writes.

    A fault of the trial is recorded and ends it, not the sweep: the function returns.

    Args:
        sweep: its settings.
        number: of the trial, whose ``trial.json`` holds the parameters.
        node: where this is, for the record.
        report: called once for each validation with ``epoch`` and ``valid``, the best of the metric so far. A trial
            that is resumed first repeats what it had reported.
    """
    folder = sweep.trial_folder(number)
    # a worker that lost touch with the sweep may still be at it: two would write the same files
    with FileLock(folder / ".lock"), log_of_its_own():
        remove_halves(folder)
        trial = read_trial(folder)
        history = _History(folder, trial, sweep.bigger, report)
        if trial.state == "finished":  # by that worker
            history.take_up()
            return
        trial.state, trial.nodes = "running", [*trial.nodes, node]
        write_trial(folder, trial)
        try:
            _train(sweep, trial, folder, history)
            trial.state = "finished"
        except Exception as fault:
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            trial.state, trial.error = "failed", sentence(fault)
        write_trial(folder, trial)
        if trial.state == "finished":
            shutil.rmtree(folder / "progress", ignore_errors=True)


def _train(sweep: Sweep, trial: Trial, folder: Path, history: _History) -> None:
    torch.set_num_threads(max(1, int(sweep.cpus)))
    os.chdir(folder)  # RecBole's log/ and log_tensorboard/ go where the process is
    keys = sweep.keys | trial.parameters | {"show_progress": False} | _device(sweep.gpus)
    with quiet_argv():
        config = configure(sweep.model, [sweep.model], sweep.dataset, keys, folder)
        trial.valid, checkpoint = train_job(config, folder, history.add)
    history.conclude(trial.valid[sweep.metric])
    trial.checkpoint = os.path.relpath(checkpoint, folder)


class _History:
    """The validations of a trial: those before it was taken up, and those that come.

    Args:
        folder: of the trial.
        trial: its ``epochs`` are those before, and become those that hold.
        bigger: whether more of the metric is better.
        report: as in :func:`run_trial`.
    """

    def __init__(self, folder: Path, trial: Trial, bigger: bool, report: Callable[[dict[str, float]], None]) -> None:
        self.file, self.trial, self.bigger, self.report = folder / EPOCHS_FILE, trial, bigger, report
        self.seconds = trial.epochs[-1]["seconds"] if trial.epochs else 0.0
        self.began, self.taken_up = time.perf_counter(), False

    def add(self, epoch: int, valid: float) -> None:
        """Note and report a validation."""
        self.take_up(epoch)
        seconds = round(self.seconds + time.perf_counter() - self.began, 1)
        self.trial.epochs.append({"epoch": epoch, "valid": valid, "seconds": seconds})
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(self.trial.epochs[-1]) + "\n")
        self._report()

    def conclude(self, valid: float) -> None:
        """Note what the training ended with, where that is better than every epoch: deliberation follows the last one."""
        self.take_up()  # where all of it was trained before
        best = self.trial.best(self.bigger)
        if best is None or (valid > best["valid"] if self.bigger else valid < best["valid"]):
            self.add(int(self.trial.epochs[-1]["epoch"]), valid)

    def take_up(self, first: float = math.inf) -> None:
        """Once: drop what is trained again, from epoch ``first`` on, and repeat the reports of what came before."""
        if self.taken_up:
            return
        kept, self.trial.epochs, self.taken_up = [line for line in self.trial.epochs if line["epoch"] < first], [], True
        write_text(self.file, "".join(json.dumps(line) + "\n" for line in kept))
        for line in kept:
            self.trial.epochs.append(line)
            self._report()

    def _report(self) -> None:
        best = self.trial.best(self.bigger)
        worst = float("-inf") if self.bigger else float("inf")
        self.report({"epoch": self.trial.epochs[-1]["epoch"], "valid": best["valid"] if best else worst})


def sentence(fault: BaseException) -> str:
    """What went wrong, in one line."""
    words = " ".join(str(fault).split())
    return words if isinstance(fault, InputError) else f"{type(fault).__name__}: {words}".removesuffix(": ")


def _device(gpus: float) -> dict[str, Any]:
    """The GPUs that Ray has set aside for this process: RecBole would take the first for every trial."""
    if gpus == 0:
        return {"use_gpu": False, "gpu_id": ""}
    return {"gpu_id": os.environ["CUDA_VISIBLE_DEVICES"]}
