"""One model of a run: its configuration, its training, the ranking of the test users."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import yaml
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.dataset import Dataset
from recbole.trainer import Trainer
from recbole.utils import ModelType, get_model, get_trainer, init_logger, init_seed

from recbole_stream.errors import InputError
from recbole_stream.host.checks import check_data, check_dataset
from recbole_stream.host.configuration import (
    MODELS,
    check_keys,
    check_values,
    known_keys,
    loaded_columns,
    read_keys,
)
from recbole_stream.host.dataset import ItemTextDataset
from recbole_stream.host.keys import SHARED_RULES, check_combinations
from recbole_stream.host.memory import check_reading_fits, check_rows_fit
from recbole_stream.host.models import STREAMRec
from recbole_stream.host.paths import model_files, properties_dir
from recbole_stream.host.plugins import plugin_list, register_plugins
from recbole_stream.host.registration import dataset_files, our_model
from recbole_stream.host.run.folder import check_same_data
from recbole_stream.host.run.log import log_into
from recbole_stream.host.run.outcomes import Watch, outcomes_of
from recbole_stream.host.run.ranking import count_users, describe_users, rank_users
from recbole_stream.host.run.resume import fit
from recbole_stream.host.start import find_start
from recbole_stream.reporting.curves import curves_file, write_curves
from recbole_stream.reporting.ranks import ranks_file, write_ranks
from recbole_stream.reporting.results import Row, run_environment
from recbole_stream.seeds import mix
from recbole_stream.tokenizer.report import save_report
from recbole_stream.tokenizer.semantic_ids import write_semantic_ids
from recbole_stream.training.processes import is_first, process_index

__all__ = ["configure", "given_keys", "run_job", "train_job"]

# keys of the whole run; no model's configuration contains them
_RUN_KEYS = ("model", "dataset", "config_files", "output_dir", "resume")


def configure(name: str, names: Sequence[str], dataset: str, options: Mapping[str, Any], folder: Path) -> Config:
    """The configuration of one model: run.yaml, the data set's YAML, the user's files, the user's keys.

    Args:
        name: of the model.
        names: all models of the command; a key may belong to any of them.
        dataset: its name.
        options: the command's keys and values, ``config_files`` a list.
        folder: of the run.

    Raises:
        InputError: something the user gave cannot be used.
    """
    given = given_keys(options)
    plugins = plugin_list(given.get("plugins"))
    register_plugins(plugins)
    try:
        model_class = get_model(name)
    except (ValueError, AttributeError, ImportError):  # ImportError: RecBole's last module needs lightgbm
        own = f" and those of {', '.join(plugins)}" if plugins else ""
        raise InputError(f"There is no model {name!r}: STREAMRec, TIGER and RecBole's models{own} are there.") from None
    # one command serves several models, and a key that belongs to one of them is no mistake
    known = known_keys(name)
    check_keys(given, known.union(*map(known_keys, names)), name)
    given = {key: value for key, value in given.items() if key in known}
    for key in ("checkpoint_dir", "resume_dir"):
        if key in given:
            raise InputError(f"{key} is set, but a run keeps all its files in one folder: set output_dir instead.")
    given["checkpoint_dir"] = str(folder / "checkpoints")
    given["resume_dir"] = str(folder / "progress" / name)

    files = []
    if model_class.type == ModelType.SEQUENTIAL:
        files = [properties_dir() / "run.yaml", *dataset_files(name, dataset, given)]
    keys = read_keys([*model_files(name), *files]) | given
    if model_class.type == ModelType.SEQUENTIAL and keys.get("loss_type") == "CE":
        given.setdefault("train_neg_sample_args", None)  # RecBole refuses cross-entropy with negatives
    config = Config(
        model=name,
        dataset=dataset,
        config_file_list=[str(file) for file in files],
        config_dict=given,
    )
    if files and "load_col" not in given:
        config["load_col"] = loaded_columns(config.final_config_dict)
    check_values(config, SHARED_RULES)
    check_combinations(config)  # before another model of the table is trained
    if config["log_wandb"] and importlib.util.find_spec("wandb") is None:
        raise InputError("log_wandb needs Weights & Biases: run `pip install wandb`, or leave it out.")
    _check_valid_metric(config)
    check_data(config)
    if find_start(config) is not None:
        check_same_data(Path(config["start_from"]), config)
    return config


def _check_valid_metric(config: Config) -> None:
    """RecBole misses a validation metric that it does not compute only after the first epoch."""
    metric, cutoff = str(config["valid_metric"]).lower(), ""
    if "@" in metric:
        metric, cutoff = metric.split("@", 1)
    if metric not in [str(name).lower() for name in config["metrics"]] or (
        cutoff and cutoff not in [str(k) for k in config["topk"]]
    ):
        raise InputError(
            f"valid_metric is {config['valid_metric']}, which is not among metrics {config['metrics']} at topk "
            f"{config['topk']}: set valid_metric to one of those."
        )


def given_keys(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the user's files and, over them, of the command line; those of the run as a whole left out.

    Raises:
        InputError: a file that is not there.
    """
    given: dict[str, Any] = {}
    for file in options.get("config_files") or []:
        if not Path(file).is_file():
            raise InputError(f"There is no configuration file {file}.")
        given |= yaml.safe_load(Path(file).read_text()) or {}
    return given | {key: value for key, value in options.items() if key not in _RUN_KEYS}


def run_job(config: Config, folder: Path, command: Sequence[str], tokenizer_folder: Path | None = None) -> list[Row]:
    """Train one model as RecBole's ``run_recbole`` does, and rank the test users once with every stage.

    Args:
        config: from :func:`configure`.
        folder: of the run.
        command: as it was typed, for the record.
        tokenizer_folder: where the semantic IDs and the report on them go, by default into the run's folder.

    Returns:
        a row for each stage, the model's only one included.
    """
    dataset, trainer, train_data, valid_data, test_data = _prepare(config, folder)
    environment = run_environment(command, config["device"])
    environment["configuration"], start = config.final_config_dict, find_start(config)
    if start is not None:
        environment["start"] = start.record()
    if isinstance(dataset, ItemTextDataset):
        environment["encoder"], ids = dataset.encoder, dataset.items.ids
        if ids is not None and is_first():
            place = tokenizer_folder or folder
            if our_model(config["model"]) not in MODELS:  # whose IDs are not those of TIGER and STREAMRec
                place = place / f"tokenizer-{config['model']}"
            save_report(ids.report, place)
            write_semantic_ids(place / "semantic_ids.tsv", dataset.items.tokens, ids.codes, id_field=dataset.iid_field)

    described = describe_users(train_data, valid_data, test_data)
    watch = Watch()
    fit(trainer, train_data, valid_data, watch, watch)
    outcomes = outcomes_of(trainer, watch)
    name, seed = config["model"], config["seed"]
    if is_first():
        write_curves(curves_file(folder, name, seed), [outcome.record() for outcome in outcomes])

    rows, train_seconds = [], 0.0
    for outcome in outcomes:
        train_seconds += outcome.seconds
        began = time.perf_counter()
        test, ranks, depth = rank_users(trainer, test_data, outcome.file, config["show_progress"])
        rank_seconds = (time.perf_counter() - began) / count_users(test_data) * 1000
        if described is not None and is_first():
            write_ranks(ranks_file(folder, name, outcome.stage, seed), described, ranks.numpy(), depth)
        rows.append(
            Row(
                model=name,
                stage=outcome.stage,
                dataset=config["dataset"],
                seed=seed,
                valid=_floats(outcome.valid),
                test=_floats(test),
                train_seconds=round(train_seconds, 1),
                rank_seconds_per_1000_users=round(rank_seconds, 3),
                parameters=_parameters(trainer.model),
                final=outcome.final,
                run=environment,
            )
        )
    if config["log_wandb"]:
        trainer.wandblogger._wandb.finish()  # each training has a record of its own there
    return rows


def train_job(config: Config, folder: Path, on_epoch: Callable[[int, float], None]) -> tuple[dict[str, float], str]:
    """Train one model and leave the test split alone: all that a search may look at.

    Args:
        config: from :func:`configure`.
        folder: of the run.
        on_epoch: called after each validation with the number of epochs up to it, those of earlier stages included,
            and the validation metric; a tuner may raise from it.

    Returns:
        the validation metrics of the best epoch, and its checkpoint.
    """
    _, trainer, train_data, valid_data, _ = _prepare(config, folder)

    fit(trainer, train_data, valid_data, lambda epoch, valid: on_epoch(epoch + 1, float(valid)), Watch())
    return _floats(trainer.best_valid_result), trainer.saved_model_file


def _prepare(
    config: Config, folder: Path
) -> tuple[Dataset, Trainer, AbstractDataLoader, AbstractDataLoader, AbstractDataLoader]:
    """Everything up to training: the dataset, the trainer with its model, the three splits."""
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    logger = getLogger()
    if is_first():
        log_into(folder / "run.log")
    logger.info(config)
    dataset = _load(config)
    logger.info(dataset)
    if not isinstance(dataset, ItemTextDataset):  # our own datasets check themselves
        check_dataset(dataset)
        check_rows_fit(dataset)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    # each process drops units of its own; weights become those of the first, which draws what it draws in stock RecBole
    seed = config["seed"] if is_first() else mix(config["seed"], "process", process_index())
    init_seed(seed, config["reproducibility"])
    model = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    logger.info(model)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    return dataset, trainer, train_data, valid_data, test_data


def _load(config: Config) -> Dataset:
    """RecBole's dataset, downloaded by RecBole where it knows the name.

    Raises:
        InputError: the download failed, or the data does not fit into memory.
    """
    check_reading_fits(config)
    try:
        return create_dataset(config)
    except URLError as fault:
        folder = Path(config["data_path"])
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # an empty folder would be taken for the data set next time
        raise InputError(
            f"The data set {config['dataset']!r} could not be downloaded ({fault.reason}): put its files into {folder}, "
            "see dataset/README.md."
        ) from fault


def _parameters(model: torch.nn.Module) -> int:
    """Parameters that ranking needs: STREAM-Rec's frozen reference and its MLPs only serve training."""
    parts = model.ranking_parts if isinstance(model, STREAMRec) else [model]
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
