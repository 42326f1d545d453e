"""A run: the models of a list, one after another, on the same data, split and evaluator, into one table."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from logging import getLogger
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import yaml
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.utils import ModelType, get_model, get_trainer, init_logger, init_seed

from recbole_stream.benchmark.results import RESULTS_FILE, Row, read_results, run_environment, write_atomically, write_results
from recbole_stream.benchmark.tables import csv_table, latex_table, markdown_table, text_table
from recbole_stream.errors import InputError
from recbole_stream.host.checks import check_data, check_users, locate_data
from recbole_stream.host.configuration import check_keys, known_keys, properties_dir
from recbole_stream.host.dataset import SemanticIDDataset
from recbole_stream.host.models import STREAMRec, TIGER
from recbole_stream.host.registration import dataset_files
from recbole_stream.host.trainer import GenerativeTrainer
from recbole_stream.tokenizer.report import save_report

__all__ = ["run"]

COMMAND_FILE = "command.json"
# keys of the run as a whole, which no model's configuration contains
_RUN_KEYS = ("model", "dataset", "config_files", "output_dir", "resume")


def run(options: Mapping[str, Any], command: Sequence[str]) -> list[Row]:
    """Train the models, rank the test users, write and print the table.

    Args:
        options: keys and typed values; ``model`` and ``config_files`` are lists.
        command: as it was typed, for the record.

    Returns:
        the rows, in the order in which models were named.

    Raises:
        InputError: something the user gave cannot be used; nothing was trained.
    """
    folder, options = _open_folder(dict(options))
    names = list(options.get("model") or [])
    if not names:
        raise InputError("No model is named: add --model=STREAMRec.")
    if "STREAMRec" in names and "TIGER" not in names:
        names.insert(0, "TIGER")  # the fast twin, in the same table
    dataset = str(options.get("dataset", "ml-100k"))
    options = locate_data(options, dataset)
    # all faults come to light here, before any training
    configs = {name: _configuration(name, names, dataset, options, folder) for name in names}

    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / COMMAND_FILE, json.dumps({"command": list(command), "options": options}, indent=1))
    rows: dict[str, list[Row]] = {}
    for row in _finished(folder):
        rows.setdefault(row.model, []).append(row)
    # STREAMRec comes first: what it took is TIGER's budget
    for name in sorted(names, key=lambda name: name != "STREAMRec"):
        if name in rows:
            getLogger().info(f"{name} was finished before.")
            continue
        config = configs[name]
        if name == "TIGER" and "STREAMRec" in rows and not config["max_train_seconds"]:
            config["max_train_seconds"] = rows["STREAMRec"][-1].train_seconds
        rows[name] = _train_and_rank(config, folder, command)
        _write([row for model in names for row in rows.get(model, [])], folder)
    ordered = [row for name in names for row in rows[name]]
    print("\n" + text_table(ordered) + f"\n\nWritten to {folder}", flush=True)
    return ordered


def _open_folder(options: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder of the run, and its options: those given, or those of the run that goes on."""
    resumed, given = options.pop("resume", None), options.pop("output_dir", None)
    if resumed:
        folder = Path(str(resumed))
        if not (folder / COMMAND_FILE).is_file():
            raise InputError(f"{folder} holds no run to go on with: it has no {COMMAND_FILE}.")
        before = json.loads((folder / COMMAND_FILE).read_text())["options"]
        changed = [key for key, value in options.items() if before.get(key) != value]
        if changed:
            raise InputError(f"A resumed run keeps its options, but {changed[0]} is another one: leave it out.")
        return folder, before
    if given is None:
        models = "-".join(options.get("model") or ["run"])
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        given = f"results/{options.get('dataset', 'ml-100k')}-{models}-{stamp}"
    folder = Path(str(given))
    if (folder / COMMAND_FILE).exists():
        raise InputError(f"{folder} already holds a run: choose another --output_dir, or go on with --resume={folder}.")
    return folder, options


def _configuration(name: str, names: Sequence[str], dataset: str, options: Mapping[str, Any], folder: Path) -> Config:
    """The configuration of one model: run.yaml, the data set's YAML, the user's files, the user's keys."""
    try:
        model_class = get_model(name)
    except (ValueError, AttributeError):
        raise InputError(f"There is no model {name!r}: STREAMRec, TIGER and RecBole's models are there.") from None
    given: dict[str, Any] = {}
    for file in options.get("config_files") or []:
        if not Path(file).is_file():
            raise InputError(f"There is no configuration file {file}.")
        given |= yaml.safe_load(Path(file).read_text()) or {}
    given |= {key: value for key, value in options.items() if key not in _RUN_KEYS}
    # one command serves several models: a key has to mean something to one of them
    known = known_keys(name)
    check_keys(given, known.union(*map(known_keys, names)), name)
    given = {key: value for key, value in given.items() if key in known}
    given["checkpoint_dir"] = str(folder / "checkpoints")

    files = []
    if model_class.type == ModelType.SEQUENTIAL:
        preset = given.get("preset", "default")
        files = [properties_dir() / "run.yaml", *dataset_files(name, dataset, preset)]
    if issubclass(model_class, (TIGER, STREAMRec)):
        given["resume_dir"] = str(folder / "progress" / name)
    elif model_class.type == ModelType.SEQUENTIAL and given.get("loss_type", _own_yaml(name).get("loss_type")) == "CE":
        given.setdefault("train_neg_sample_args", None)  # RecBole insists; cross-entropy takes no negatives
    config = Config(
        model=name,
        dataset=dataset,
        config_file_list=[str(file) for file in files],
        config_dict=given,
    )
    check_data(config)
    return config


def _own_yaml(name: str) -> dict[str, Any]:
    import recbole

    file = Path(recbole.__file__).parent / "properties" / "model" / f"{name}.yaml"
    return yaml.safe_load(file.read_text()) if file.is_file() else {}


def _train_and_rank(config: Config, folder: Path, command: Sequence[str]) -> list[Row]:
    """One model: as RecBole's ``run_recbole``, with every stage ranked on the test users once."""
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    logger = getLogger()
    _log_into(folder / "run.log")
    logger.info(config)
    dataset = _load(config)
    logger.info(dataset)
    if not isinstance(dataset, SemanticIDDataset):  # which has checked it
        check_users(dataset)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    logger.info(model)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)

    environment = run_environment(command, config["device"])
    environment["configuration"] = config.final_config_dict
    if isinstance(trainer, GenerativeTrainer):
        environment["encoder"] = dataset.encoder
        save_report(dataset.semantic_ids.report, folder)

    began = time.perf_counter()
    trainer.fit(train_data, valid_data, saved=True, show_progress=config["show_progress"])
    seconds = time.perf_counter() - began
    if isinstance(trainer, GenerativeTrainer):
        outcomes = [
            (stage.result.name, stage.result.valid, stage.seconds, stage.file, stage is trainer.final)
            for stage in trainer.stages
        ]
    else:
        outcomes = [("", trainer.best_valid_result, seconds, trainer.saved_model_file, True)]
    rows = []
    for stage, valid, train_seconds, file, final in outcomes:
        began = time.perf_counter()
        test = trainer.evaluate(test_data, load_best_model=True, model_file=file, show_progress=config["show_progress"])
        rank_seconds = (time.perf_counter() - began) / len(test_data._dataset) * 1000
        rows.append(
            Row(
                model=config["model"],
                stage="" if config["model"] == "TIGER" else stage,
                dataset=config["dataset"],
                seed=config["seed"],
                valid=_floats(valid),
                test=_floats(test),
                train_seconds=round(train_seconds, 1),
                rank_seconds_per_1000_users=round(rank_seconds, 3),
                parameters=_parameters(model),
                final=final,
                run=environment,
            )
        )
    return rows


def _load(config: Config) -> Dataset:
    """RecBole's dataset, downloaded by RecBole where it knows the name.

    Raises:
        InputError: the download failed.
    """
    try:
        return create_dataset(config)
    except URLError as fault:
        folder = Path(config["data_path"])
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # made for the download; left there, it would pass for the data set
        raise InputError(
            f"The data set {config['dataset']!r} could not be downloaded ({fault.reason}): put its files into {folder}, "
            "see dataset/README.md."
        ) from fault


def _parameters(model: torch.nn.Module) -> int:
    """Parameters that ranking needs: STREAM-Rec's frozen reference and its MLPs only serve training."""
    counted = model.parameters()
    if isinstance(model, STREAMRec):
        network = model.network
        counted = [p for part in (network.tokens, network.encoder, network.decoder) for p in part.parameters()]
    return sum(parameter.numel() for parameter in counted)


def _finished(folder: Path) -> list[Row]:
    return read_results(folder) if (folder / RESULTS_FILE).is_file() else []


def _write(rows: list[Row], folder: Path) -> None:
    write_results(folder, rows, {})
    write_atomically(folder / "table.md", markdown_table(rows))
    write_atomically(folder / "table.tex", latex_table(rows))
    write_atomically(folder / "table.csv", csv_table(rows))


def _log_into(file: Path) -> None:
    """Let the root logger, which is RecBole's, write into the run's folder too."""
    logger = getLogger()
    if any(getattr(handler, "baseFilename", None) == str(file.resolve()) for handler in logger.handlers):
        return
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}

