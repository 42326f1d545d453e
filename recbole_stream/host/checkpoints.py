"""Checkpoints that load on any machine, in any folder, on data that has grown.

RecBole's checkpoint holds the configuration of its training and the weights, and everything else is made anew on
loading. What is made anew is not always the same: text vectors and so semantic IDs depend on the processor and on the
number of threads, the numbers of users and items on the order of rows in the files, and the paths are those of another
machine. So every checkpoint also carries the names behind the numbers (its vocabulary), one of our models its items'
IDs and vectors (``other_parameter``), and :func:`load` uses them.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import recbole
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.trainer import Trainer
from recbole.utils import FeatureType, get_model, init_logger, init_seed

from recbole_stream.errors import InputError
from recbole_stream.host.checks import locate_data
from recbole_stream.host.items import ItemTable

__all__ = ["add_vocabulary", "build", "drop_unknown", "factorize", "known_items", "load", "loading", "open_checkpoint"]


@dataclass
class _Known:
    """What the checkpoint that is being loaded knows.

    Attributes:
        vocabulary: field -> its tokens in the order of their numbers, the padding token first.
        items: of one of our models.
    """

    vocabulary: Mapping[str, Sequence[str]]
    items: ItemTable | None


_known: ContextVar[_Known | None] = ContextVar("known", default=None)


def loading() -> bool:
    """Whether a checkpoint is being loaded."""
    return _known.get() is not None


def known_items() -> ItemTable | None:
    """The items of the checkpoint that is being loaded; None where none is, or where it carries none."""
    known = _known.get()
    return None if known is None else known.items


def load(model_file: str | Path, data_path: str | Path | None = None, **keys: Any) -> tuple:
    """What RecBole's ``load_data_and_model`` does, on any machine: nothing that the checkpoint carries is computed.

    The data set is read from where it was in training, a relative path from the present folder.

    Args:
        model_file: the checkpoint.
        data_path: where the data set is instead: its folder, or the folder that holds it.
        keys: of the configuration, which change.

    Returns:
        configuration, model, dataset, and the loaders of training, validation and test data.

    Raises:
        InputError: there is no such file, no data set, or one with other items, or with users that the model would have
            to know.
    """
    checkpoint, config, dataset = open_checkpoint(model_file, data_path, **keys)
    return config, *build(checkpoint, config, dataset)


def open_checkpoint(
    model_file: str | Path, data_path: str | Path | None = None, **keys: Any
) -> tuple[dict[str, Any], Config, Dataset]:
    """The first half of :func:`load`, with the same arguments and faults.

    Returns:
        what the checkpoint holds, the configuration, and the dataset before it is split.
    """
    if not Path(model_file).is_file():
        raise InputError(f"There is no checkpoint {model_file}.")
    try:
        checkpoint = torch.load(model_file, map_location="cpu", weights_only=False)
        config = checkpoint["config"]
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(
            f"{model_file} is no checkpoint of RecBole, or is damaged ({type(error).__name__}): name a .pth file of a "
            "run's folder checkpoints."
        ) from error
    _move(config, Path(model_file), data_path)
    config.final_config_dict.update(keys)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    getLogger().info(config)
    with _knowing(checkpoint):
        dataset = create_dataset(config)
    getLogger().info(dataset)
    return checkpoint, config, dataset


def build(checkpoint: Mapping[str, Any], config: Config, dataset: Dataset) -> tuple:
    """The second half: the model with its weights, the dataset, and the three loaders."""
    loaders = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, loaders[0]._dataset).to(config["device"])
    _check_users(model, checkpoint, dataset)
    model.load_state_dict(checkpoint["state_dict"])
    model.load_other_parameter(checkpoint.get("other_parameter"))
    return model, dataset, *loaders


def _move(config: Config, model_file: Path, data_path: str | Path | None) -> None:
    """Bring a configuration to this machine, the checkpoint's folder and these processes."""
    keys: dict[str, Any] = {"checkpoint_dir": str(model_file.parent), "resume_dir": None}
    if not torch.distributed.is_initialized():
        keys["single_spec"] = True  # data loaders of several processes ask which of them they serve
    if config["device"].type == "cuda" and not torch.cuda.is_available():
        keys |= {"device": torch.device("cpu"), "use_gpu": False}
    name = config["dataset"]
    if data_path is not None:
        keys["data_path"] = str(Path(locate_data({"data_path": str(data_path)}, name)["data_path"]) / name)
    elif name == "ml-100k" and not Path(config["data_path"]).is_dir():  # which RecBole brings along
        keys["data_path"] = str(Path(recbole.__file__).parent / "dataset_example" / name)
    config.final_config_dict.update(keys)
    if not Path(config["data_path"]).is_dir():
        raise InputError(
            f"{model_file} was trained on the data set {name!r} in {config['data_path']}, which is not there: put its "
            "files there, or name their folder as data_path."
        )


def _check_users(model: torch.nn.Module, checkpoint: Mapping[str, Any], dataset: Dataset) -> None:
    """Some models have a vector for each user, and none for those who came later."""
    known = len(checkpoint.get("vocabulary", {}).get(dataset.uid_field, ())) or dataset.user_num
    own, sizes = (
        model.state_dict(),
        {name: len(value) for name, value in checkpoint["state_dict"].items() if value.ndim},
    )
    grown = any(sizes[name] == known and len(own[name]) == dataset.user_num for name in sizes.keys() & own.keys())
    if known < dataset.user_num and grown:
        raise InputError(
            f"{dataset.user_num - known} users of the data set are new, and {type(model).__name__} has to know its "
            "users: train it again, or load it with the data that it was trained on."
        )


# -- the names behind the numbers --------------------------------------------


def add_vocabulary(trainer: Trainer, state: dict[str, Any]) -> None:
    """Let a checkpoint that a trainer is about to write say which user, item or word each number is."""
    names = getattr(trainer.eval_collector, "names", None)  # of the training data, see host/repairs/checkpoints.py
    if names is not None:
        # fields that share their numbers share one list, which pickle writes once
        lists = {id(tokens): tokens.tolist() for tokens in names.values()}
        state["vocabulary"] = {field: lists[id(tokens)] for field, tokens in names.items()}


@contextmanager
def _knowing(checkpoint: Mapping[str, Any]) -> Iterator[None]:
    items = (checkpoint.get("other_parameter") or {}).get("items")
    known = _Known(checkpoint.get("vocabulary", {}), None if items is None else ItemTable.from_state(items))
    token = _known.set(known)
    try:
        yield
    finally:
        _known.reset(token)


def factorize(fields: Sequence[str], tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``pandas.factorize`` of the tokens of some fields, after those that the checkpoint being loaded has numbered.

    Returns:
        numbers of the tokens from 0, -1 where one is missing; the token of each number, the checkpoint's first.
    """
    known = _known.get()
    first = (
        [] if known is None else next((known.vocabulary[field] for field in fields if field in known.vocabulary), [])
    )
    first = list(first)[1:]  # without the padding token
    if not first:
        return pd.factorize(tokens)
    numbers, names = pd.factorize(np.concatenate([np.array(first, dtype=object), np.asarray(tokens, dtype=object)]))
    return numbers[len(first) :], names


def drop_unknown(dataset: Dataset) -> None:
    """Leave out what the checkpoint being loaded has no numbers for: events of new items, and other new words.

    New users stay: most models know a user by the history alone.

    Raises:
        InputError: the data set's items are others.
    """
    known = _known.get()
    if known is None:
        return
    for field, tokens in known.vocabulary.items():
        if field == dataset.uid_field or field not in dataset.field2id_token:
            continue
        new = len(dataset.field2id_token[field]) - len(tokens)
        if new <= 0:
            continue
        if field == dataset.iid_field:
            _drop_items(dataset, len(tokens), new)
        for feature in dataset.field2feats(field):
            feature[field] = _known_only(feature[field], dataset.field2type[field], len(tokens))
        dataset.field2id_token[field] = dataset.field2id_token[field][: len(tokens)]
        dataset.field2token_id[field] = {token: number for number, token in enumerate(dataset.field2id_token[field])}


def _drop_items(dataset: Dataset, known: int, new: int) -> None:
    """Drop the rows of items from number ``known`` on."""
    item, events = dataset.iid_field, dataset.inter_feat
    kept = events[item].to_numpy() < known
    if 2 * kept.sum() < len(kept):
        raise InputError(
            f"The checkpoint knows the items of only {kept.sum():,} of the {len(kept):,} events of "
            f"{dataset.dataset_name}: it was trained on another data set."
        )
    if not kept.all():
        getLogger().warning(
            f"{(~kept).sum():,} events of {dataset.dataset_name} with {new:,} items that the checkpoint does not know "
            "are left out."
        )
    dataset.inter_feat = events[kept].reset_index(drop=True)
    if dataset.item_feat is not None:
        rows = dataset.item_feat[item].to_numpy() < known
        dataset.item_feat = dataset.item_feat[rows].reset_index(drop=True)


def _known_only(column: pd.Series, kind: FeatureType, known: int) -> pd.Series | list:
    if kind == FeatureType.TOKEN:
        return column.where(column < known, 0)
    return [values[values < known] for values in column]
