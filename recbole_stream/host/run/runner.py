"""A run: the models of a list with every seed, one after another, on the same data, split and evaluator, into one table."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole.config import Config

from recbole_stream.cluster import check_ray
from recbole_stream.errors import InputError
from recbole_stream.host.checks import check_share, data_warnings, locate_data
from recbole_stream.host.run.folder import (
    begin_run,
    check_data_unchanged,
    forget_run,
    open_folder,
    record_data,
)
from recbole_stream.host.run.job import configure, given_keys, run_job
from recbole_stream.host.run.log import log_of_its_own
from recbole_stream.reporting.comparison import (
    Comparison,
    compare_entries,
    comparison_text,
    entries_of,
    reference_pairs,
    write_comparison,
)
from recbole_stream.reporting.metrics import compared_metrics
from recbole_stream.reporting.ranks import ranks_file
from recbole_stream.reporting.report import write_report
from recbole_stream.reporting.results import RESULTS_FILE, Row, read_results, write_results
from recbole_stream.reporting.tables import text_table, write_tables
from recbole_stream.training.processes import broadcast, is_first

__all__ = ["run"]

# where to train, and the share of a machine that each training has
CLUSTER = {"address": None, "cpus-per-trial": 1, "gpus-per-trial": 0}
# models that the others of a run are compared with, where they are in it
REFERENCES = ("TIGER", "SASRec")


def run(options: Mapping[str, Any], command: Sequence[str]) -> list[Row]:
    """Train the models, rank the test users, write and print the tables, write their page.

    Args:
        options: keys and typed values; ``model``, ``config_files``, ``seeds`` and ``references`` are lists.
        command: as it was typed, for the record.

    Returns:
        the rows, in the order in which models were named, those of a model in the order of seeds.

    Raises:
        InputError: something the user gave cannot be used; nothing was trained.
    """
    options = dict(options)
    # where to train is no part of what is trained: a run may go on elsewhere
    cluster = [options.pop(key, default) for key, default in CLUSTER.items()]
    with open_folder(options, command) as asked, log_of_its_own():
        table = _Run(*asked, *cluster)
        table.begin()
        table.train()
        return table.conclude()


class _Run:
    """A run in its steps: all is checked when the object is made; then :meth:`begin`, :meth:`train`, :meth:`conclude`.

    Args:
        folder: of the run, held by this process.
        options, command: of the run.
        address, cpus, gpus: of the Ray cluster that trains, if there is one, and what a training has of it.

    Attributes:
        names: the models, in the order of the table.
        configs: one for each training, in the order in which they train.
        done: (model, seed) -> the rows of a training that has ended.
    """

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, Any],
        command: Sequence[str],
        address: str | None,
        cpus: float,
        gpus: float,
    ) -> None:
        self.command, self.address, self.cpus, self.gpus = command, address, cpus, gpus
        self.folder = folder if address is None else folder.resolve()  # workers have folders of their own
        self.names = _names(options)
        dataset = str(options.get("dataset", "ml-100k"))
        self.options = options = locate_data(options, dataset)
        self.equal_time = _equal_time(options, self.names)
        seeds, self.references = _seeds(options), _references(options, self.names)
        self.configs = [
            _configure(name, self.names, dataset, options, self.folder, seed)
            for seed in seeds
            for name in sorted(self.names, key=lambda name: self.equal_time and name != "STREAMRec")
        ]
        if self.equal_time and any(config["max_train_seconds"] for config in self.configs):
            raise InputError("Both equal_time and max_train_seconds are given: leave one of them out.")
        if self.address is not None:
            _join(self.address, self.cpus, self.gpus, self.configs)
        self.done: dict[tuple[str, int], list[Row]] = {}

    def begin(self) -> None:
        """Write down what is asked for and on which data, and read what a run that goes on has finished."""
        self._check_data()
        if is_first():
            begin_run(self.folder, self.options, self.command)
            record_data(self.folder, *self._data())
        for row in broadcast(lambda: _finished(self.folder)):
            self.done.setdefault((row.model, row.seed), []).append(row)

    def _data(self) -> tuple[list[Config], list[str]]:
        return self.configs, self.options.get("config_files") or []

    def _check_data(self) -> None:
        broadcast(lambda: check_data_unchanged(self.folder, *self._data()))

    def train(self) -> None:
        """Train what is not done, one after another or on a cluster."""
        waiting = []
        for config in self.configs:
            if (config["model"], config["seed"]) in self.done:
                getLogger().info(f"{config['model']} with seed {config['seed']} was finished before.")
            else:
                waiting.append(config)
        try:
            if self.address is None:
                for config in waiting:
                    self._ended(config, run_job(*self._arguments(config)))
            else:
                from recbole_stream.host.run.cluster import run_jobs  # imports Ray

                run_jobs(waiting, self._arguments, self._ended, self.cpus, self.gpus)
        except InputError:
            if is_first() and not self.done and not (self.folder / "checkpoints").exists():
                forget_run(self.folder)  # nothing was trained
            raise

    def _arguments(self, config: Config) -> tuple[Config, Path, Sequence[str], Path] | None:
        """Those of ``run_job``; None for a TIGER that may train as long as a STREAMRec that has not ended yet."""
        self._check_data()
        name, seed = config["model"], config["seed"]
        if name == "TIGER" and self.equal_time:
            if ("STREAMRec", seed) not in self.done:
                return None
            config["max_train_seconds"] = self.done["STREAMRec", seed][-1].train_seconds
        # each seed has semantic IDs of its own
        tokenizer = self.folder / f"tokenizer-seed{seed}" if "seeds" in self.options else self.folder
        return config, self.folder, self.command, tokenizer

    def _ended(self, config: Config, rows: list[Row]) -> None:
        # the processes measure different times: all take the rows of the first
        self.done[config["model"], config["seed"]] = broadcast(lambda: rows)
        if is_first():
            record_data(self.folder, *self._data())  # what was downloaded is there now
            _write(self._rows(), self.folder)

    def _rows(self) -> list[Row]:
        """By model as named, then by seed as given, in whichever order the trainings have ended."""
        seeds = dict.fromkeys(config["seed"] for config in self.configs)
        return [row for name in self.names for seed in seeds for row in self.done.get((name, seed), [])]

    def conclude(self) -> list[Row]:
        """Write and print the tables, the paired tests and the page; returns the rows."""
        rows = self._rows()
        if not is_first():
            return rows
        _write(rows, self.folder)  # a kill may have come between the results and their tables
        shutil.rmtree(self.folder / "progress", ignore_errors=True)
        print("\n" + text_table(rows))
        for warning in data_warnings(self.configs[0]):
            print(f"\nWarning: {warning}")
        comparisons = _compare(rows, self.references, self.folder)
        if comparisons:
            write_comparison(self.folder, comparisons)
            print("\n" + comparison_text(comparisons))
        write_report(self.folder)
        print(f"\nWritten to {self.folder}; open {self.folder / 'report.html'} in a browser: all of it on one page.")
        print(
            "Next: --seeds=1,2,3 repeats the comparison, --dataset=NAME takes other data; see docs/quickstart.md.",
            flush=True,
        )
        return rows


def _names(options: Mapping[str, Any]) -> list[str]:
    """The models of the run; TIGER, which is STREAMRec without reasoning, joins one that trains to generate.

    Raises:
        InputError: no model is named.
    """
    names = list(options.get("model") or [])
    if not names:
        raise InputError("No model is named: add --model=STREAMRec.")
    stages = given_keys(options).get("stages")
    generates = not isinstance(stages, list) or "pretrain" in stages
    return ["TIGER", *names] if generates and "STREAMRec" in names and "TIGER" not in names else names


def _join(address: str, cpus: float, gpus: float, configs: Sequence[Config]) -> None:
    """Join the Ray cluster that trains; its workers have folders of their own, and need absolute paths."""
    check_ray("--address")
    check_share(cpus, gpus)
    if any(config["nproc"] not in (None, 1) for config in configs):
        raise InputError("Both --address and --nproc are given: leave one of them out.")
    from recbole_stream.cluster import connect

    connect(address, cpus, gpus)
    for config in configs:
        for key in ("data_path", "cache_dir", "start_from"):
            if config[key]:
                config[key] = str(Path(config[key]).resolve())


def _equal_time(options: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether TIGER trains as long as STREAMRec has, instead of its own number of epochs.

    Raises:
        InputError: ``equal_time`` is neither True nor False, or STREAMRec is no model of the run.
    """
    asked = options.get("equal_time", False)
    if not isinstance(asked, bool):
        raise InputError(f"--equal_time is {asked!r}, but must be True or False.")
    if asked and "STREAMRec" not in names:
        raise InputError("--equal_time gives TIGER the time that STREAMRec takes: add STREAMRec to --model.")
    return asked


def _configure(
    name: str, names: Sequence[str], dataset: str, options: Mapping[str, Any], folder: Path, seed: int | None
) -> Config:
    """The configuration of a model, with one of several seeds unless it is None."""
    given = {key: value for key, value in options.items() if key not in ("seeds", "references", "equal_time")}
    if seed is None:
        return configure(name, names, dataset, given, folder)
    config = configure(name, names, dataset, given | {"seed": seed}, folder)
    config["resume_dir"] = f"{config['resume_dir']}-seed{seed}"
    return config


def _seeds(options: Mapping[str, Any]) -> list[int | None]:
    """The seeds of the run; one that is None is the configuration's.

    Raises:
        InputError: ``seeds`` are no list of different seeds, or ``seed`` is given too.
    """
    if "seeds" not in options:
        return [None]
    seeds = options["seeds"]
    if "seed" in options:
        raise InputError("Both --seed and --seeds are given: leave one of them out.")
    if not seeds or not all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds):
        raise InputError("--seeds must be whole numbers from 0 to 2^32 - 1, such as --seeds=1,2,3.")
    if len(set(seeds)) < len(seeds):
        raise InputError("--seeds names a seed twice: a training that is repeated with its seed gives the same model.")
    return list(seeds)


def _references(options: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The models that all others are compared with.

    Raises:
        InputError: one of those the user named is no model of the run.
    """
    if "references" not in options:
        return [name for name in REFERENCES if name in names]
    references = options["references"]
    if not isinstance(references, list):
        raise InputError(f"--references is {references!r}, but must name models, such as --references=SASRec.")
    for reference in references:
        if reference not in names:
            raise InputError(f"--references names {reference!r}, which is no model of this run: {', '.join(names)}.")
    return references


def _compare(rows: Sequence[Row], references: Sequence[str], folder: Path) -> list[Comparison]:
    """Paired tests of all models against the references, as far as their ranks were kept."""
    ranked = [row for row in rows if ranks_file(folder, row.model, row.stage, row.seed).is_file()]
    if len(ranked) < len(rows):
        getLogger().warning("Models without ranks are not compared: ranks need full ranking and one target a test row.")
    entries = entries_of(folder, ranked)
    pairs = reference_pairs(list(entries), [name for name in references if name in entries])
    metrics = compared_metrics(ranked)
    if pairs and not metrics:
        getLogger().warning(
            "Models are not compared user by user: none of the metrics follows from the targets' ranks."
        )
    return compare_entries([(entries[a], entries[b]) for a, b in pairs], metrics)


def _finished(folder: Path) -> list[Row]:
    return read_results(folder) if (folder / RESULTS_FILE).is_file() else []


def _write(rows: list[Row], folder: Path) -> None:
    write_results(folder, rows, {})
    write_tables(folder, rows)
