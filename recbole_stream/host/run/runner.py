"""A run: the models of a list with every seed, one after another, on the same data, split and evaluator, into one table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole.config import Config

from recbole_stream.errors import InputError
from recbole_stream.host.checks import check_ray, check_share, locate_data
from recbole_stream.host.run.job import configure, run_job
from recbole_stream.reporting.comparison import (
    Comparison,
    compare_entries,
    comparison_text,
    entries_of,
    reference_pairs,
    write_comparison,
)
from recbole_stream.reporting.ranks import ranks_file
from recbole_stream.reporting.report import write_report
from recbole_stream.reporting.results import (
    COMMAND_FILE,
    RESULTS_FILE,
    Row,
    read_results,
    write_atomically,
    write_results,
)
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
    address, cpus, gpus = (options.pop(key, default) for key, default in CLUSTER.items())
    folder, options, command = broadcast(lambda: _open_folder(options, command))
    if address is not None:
        folder = folder.resolve()  # workers have folders of their own
    names = list(options.get("model") or [])
    if not names:
        raise InputError("No model is named: add --model=STREAMRec.")
    if "STREAMRec" in names and "TIGER" not in names:
        names.insert(0, "TIGER")  # the fast twin, in the same table
    dataset = str(options.get("dataset", "ml-100k"))
    options = locate_data(options, dataset)
    seeds, references = _seeds(options), _references(options, names)
    # all faults come to light here, before any training
    configs = [_configure(name, names, dataset, options, folder, seed) for seed in seeds for name in _by_budget(names)]
    if address is not None:
        _join(address, cpus, gpus, configs)

    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / COMMAND_FILE, json.dumps({"command": command, "options": options}, indent=1))
    done: dict[tuple[str, int], list[Row]] = {}
    for row in broadcast(lambda: _finished(folder)):
        done.setdefault((row.model, row.seed), []).append(row)

    def arguments(config: Config) -> tuple[Config, Path, Sequence[str], Path] | None:
        """Those of ``run_job``; None for a TIGER whose budget is not known yet."""
        name, seed = config["model"], config["seed"]
        if name == "TIGER" and "STREAMRec" in names and not config["max_train_seconds"]:
            if ("STREAMRec", seed) not in done:
                return None
            config["max_train_seconds"] = done["STREAMRec", seed][-1].train_seconds
        # semantic IDs follow the seed as everything does
        return config, folder, command, folder / f"tokenizer-seed{seed}" if "seeds" in options else folder

    def ended(config: Config, outcome: list[Row]) -> None:
        done[config["model"], config["seed"]] = broadcast(lambda: outcome)  # the processes' own clocks differ
        if is_first():
            _write(_ordered(done, names, configs), folder)

    waiting = []
    for config in configs:
        if (config["model"], config["seed"]) in done:
            getLogger().info(f"{config['model']} with seed {config['seed']} was finished before.")
        else:
            waiting.append(config)
    try:
        if address is None:
            for config in waiting:
                ended(config, run_job(*arguments(config)))
        else:
            from recbole_stream.host.run.cluster import run_jobs  # imports Ray

            run_jobs(waiting, arguments, ended, cpus, gpus)
    except InputError:
        if is_first() and not done and not (folder / "checkpoints").exists():
            (folder / COMMAND_FILE).unlink()  # no run has begun: the corrected command may take the folder
        raise
    rows = _ordered(done, names, configs)
    if not is_first():
        return rows
    _write(rows, folder)  # a kill may have come between the results and their tables
    shutil.rmtree(folder / "progress", ignore_errors=True)
    print("\n" + text_table(rows))
    comparisons = _compare(rows, references, folder)
    if comparisons:
        write_comparison(folder, comparisons)
        print("\n" + comparison_text(comparisons))
    write_report(folder)
    print(f"\nWritten to {folder}", flush=True)
    return rows


def _join(address: str, cpus: float, gpus: float, configs: Sequence[Config]) -> None:
    """Join the Ray cluster that trains; its workers have folders of their own, and need absolute paths."""
    check_ray("--address")
    check_share(cpus, gpus)
    if any(config["nproc"] not in (None, 1) for config in configs):
        raise InputError("Both --address and --nproc are given: leave one of them out.")
    from recbole_stream.host.run.cluster import connect  # imports Ray

    connect(address, cpus, gpus)
    for config in configs:
        for key in ("data_path", "cache_dir"):
            if config[key]:
                config[key] = str(Path(config[key]).resolve())


def _by_budget(names: Sequence[str]) -> list[str]:
    """The order of training: STREAMRec comes first, what it took is TIGER's budget."""
    return sorted(names, key=lambda name: name != "STREAMRec")


def _configure(
    name: str, names: Sequence[str], dataset: str, options: Mapping[str, Any], folder: Path, seed: int | None
) -> Config:
    """The configuration of a model, with one of several seeds unless it is None."""
    given = {key: value for key, value in options.items() if key not in ("seeds", "references")}
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
        getLogger().warning("Models without ranks are not compared: ranks need full ranking and one test item a user.")
    entries = entries_of(folder, ranked)
    pairs = reference_pairs(list(entries), [name for name in references if name in entries])
    if not pairs:
        return []
    cutoff = min([10, *(ranks.attrs["depth"] for entry in entries.values() for ranks in entry.ranks)])
    return compare_entries([(entries[a], entries[b]) for a, b in pairs], [f"ndcg@{cutoff}", f"recall@{cutoff}"])


def _ordered(done: Mapping[tuple[str, int], list[Row]], names: Sequence[str], configs: Sequence[Config]) -> list[Row]:
    """The rows by model as named, then by seed as given, in whichever order the trainings have ended."""
    seeds = dict.fromkeys(config["seed"] for config in configs)
    return [row for name in names for seed in seeds for row in done.get((name, seed), [])]


def _open_folder(options: dict[str, Any], command: Sequence[str]) -> tuple[Path, dict[str, Any], list[str]]:
    """The folder of the run, its options and its command: those given, or those with which the run that goes on began."""
    resumed, given = options.pop("resume", None), options.pop("output_dir", None)
    if resumed:
        folder = Path(str(resumed))
        if not (folder / COMMAND_FILE).is_file():
            raise InputError(f"{folder} holds no run to go on with: it has no {COMMAND_FILE}.")
        begun = json.loads((folder / COMMAND_FILE).read_text())
        before = begun["options"]
        changed = [key for key, value in options.items() if before.get(key) != value]
        if changed:
            raise InputError(f"A resumed run keeps its options, but {changed[0]} is another one: leave it out.")
        for half in folder.rglob(".*.tmp"):  # files that a kill left half-written
            half.unlink()
        return folder, before, begun["command"]
    if given is None:
        models = "-".join(options.get("model") or ["run"])
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        given = f"results/{options.get('dataset', 'ml-100k')}-{models}-{stamp}"
    folder = Path(str(given))
    if (folder / COMMAND_FILE).exists():
        raise InputError(f"{folder} already holds a run: choose another --output_dir, or go on with --resume={folder}.")
    return folder, options, list(command)


def _finished(folder: Path) -> list[Row]:
    return read_results(folder) if (folder / RESULTS_FILE).is_file() else []


def _write(rows: list[Row], folder: Path) -> None:
    write_results(folder, rows, {})
    write_tables(folder, rows)
