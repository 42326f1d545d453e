"""What can be wrong with a data set, said before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import recbole
import yaml
from recbole.config import Config
from recbole.data.dataset import Dataset

from recbole_stream.errors import InputError
from recbole_stream.host.repairs.repairs import ray_is_installed

__all__ = ["check_data", "check_ray", "check_share", "check_users", "locate_data"]


def locate_data(options: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Options in which ``data_path`` is the folder that holds the data set's folder, as RecBole wants it.

    The data set's own folder is accepted too.
    """
    path = options.get("data_path")
    if path and Path(path).name == dataset and (Path(path) / f"{dataset}.inter").is_file():
        return {**options, "data_path": str(Path(path).parent)}
    return dict(options)


def check_data(config: Config) -> None:
    """Check that the data set is there and has the columns a sequential model needs.

    Raises:
        InputError: no such data set, no such file, a header that RecBole cannot read, a column that is missing, or times
            that are no numbers.
    """
    name, folder = config["dataset"], Path(config["data_path"])
    if not folder.exists():
        if name in _downloads():
            return
        near = get_close_matches(name, [*_downloads(), *(path.name for path in folder.parent.glob("*"))], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            f"There is no data set {name!r}{hint}: put {name}.inter into {folder}, or set --data_path to the folder "
            f"that holds {name}."
        )
    parts = config["benchmark_filename"]
    for file in [folder / f"{name}.{part}.inter" for part in parts] if parts else [folder / f"{name}.inter"]:
        if not file.is_file():
            raise InputError(f"The data set {name!r} has no file {file}.")
        _check_columns(file, config)


def _check_columns(file: Path, config: Config) -> None:
    """The header of an .inter file and the first of its lines."""
    encoding = config["encoding"] or "utf-8"
    try:
        with open(file, encoding=encoding) as lines:
            header, first = (lines.readline().rstrip("\n").split(config["field_separator"]) for _ in range(2))
    except UnicodeDecodeError:
        raise InputError(f"{file} is not in {encoding}: save it so, or set encoding to its own.") from None
    if header[0].startswith("\ufeff"):
        raise InputError(f"{file} begins with a byte order mark, which RecBole takes for a letter: save it without.")
    types = dict(column.partition(":")[::2] for column in header)
    keys = ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")
    missing = [key for key in keys if config[key] not in types]
    if missing:
        raise InputError(
            f"{file} has no column {', '.join(repr(config[key]) for key in missing)} but {', '.join(types)}: set "
            f"{', '.join(missing)} to what is meant, or add it."
        )
    for key in keys:
        column = config[key]
        loaded = (config["load_col"] or {}).get("inter", [column])
        if loaded != "*" and column not in loaded:
            raise InputError(f"load_col leaves out {column!r}: add it to the list of inter.")
        kind = "float" if key == "TIME_FIELD" else "token"
        if types[column] != kind:
            raise InputError(
                f"The header of {file} says {':'.join(filter(None, (column, types[column])))}: it must be {column}:{kind}."
            )
    time = dict(zip(types, first)).get(config["TIME_FIELD"], "")
    try:
        float(time or 0)
    except ValueError:
        raise InputError(
            f"{file} has {time!r} as {config['TIME_FIELD']}: write times as numbers, such as seconds."
        ) from None


def check_users(dataset: Dataset) -> None:
    """Check that leave-one-out gives every user something to train on and a test item, and some a validation item.

    RecBole leaves one history of a user to train on before it takes any to validate with, so that with 3 interactions
    there is none for that.

    Raises:
        InputError: some user has fewer than 3 interactions, or none has more.
    """
    if dataset.config["benchmark_filename"] is not None or "LS" not in dataset.config["eval_args"]["split"]:
        return
    counts = np.bincount(dataset.inter_feat[dataset.uid_field], minlength=dataset.user_num)[1:]
    few = np.flatnonzero(counts < 3)
    if len(few):
        example = str(dataset.field2id_token[dataset.uid_field][few[0] + 1])
        raise InputError(
            f"{len(few)} users of {dataset.dataset_name} have fewer than 3 interactions (such as {example!r}), too few "
            'for leave-one-out: set user_inter_num_interval to "[5,inf)", as is usual, or "[3,inf)".'
        )
    unseen = int((counts == 3).sum())
    if unseen == len(counts):
        raise InputError(
            f"No user of {dataset.dataset_name} has more than 3 interactions: none is left to validate with."
        )
    if unseen:
        getLogger().warning(
            f"{unseen} of {len(counts)} users of {dataset.dataset_name} have 3 interactions: they are tested, but choose no "
            'epoch, having no validation item; user_inter_num_interval "[4,inf)" leaves them out.'
        )


def check_ray(what: str) -> None:
    """Check that Ray is there.

    Args:
        what: needs it, for the message.

    Raises:
        InputError: it is not installed.
    """
    if not ray_is_installed():
        raise InputError(f'{what} needs Ray: run `pip install -c requirements.txt -e ".[tune]"`.')


def check_share(cpus: Any, gpus: Any) -> None:
    """Check what one training is to have of a machine, as far as that shows without the machine.

    Raises:
        InputError: no number, or one that is too small.
    """
    for key, value, least in (("cpus", cpus, "above 0"), ("gpus", gpus, "of at least 0")):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or value < 0 or (value == 0 and key == "cpus"):
            raise InputError(f"--{key}-per-trial is {value!r}, but must be a number {least}.")


def _downloads() -> list[str]:
    """Names that RecBole can download."""
    file = Path(recbole.__file__).parent / "properties" / "dataset" / "url.yaml"
    return list(yaml.safe_load(file.read_text()))
