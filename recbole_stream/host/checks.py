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

from recbole_stream.atomic import read_header
from recbole_stream.data.scan import Scan, scan_file
from recbole_stream.errors import InputError
from recbole_stream.host.columns import check_columns, file_form, interaction_files, load_named_columns, loaded

__all__ = ["check_data", "check_dataset", "check_share", "data_rows", "data_warnings", "locate_data"]

_CONVERTER = "python -m recbole_stream.data.table"


def locate_data(options: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Options in which ``data_path`` is the folder that holds the data set's folder, as RecBole wants it.

    The data set's own folder is accepted too.
    """
    path = options.get("data_path")
    if path and Path(path).name == dataset and any(Path(path).glob(f"{dataset}*.inter")):
        return {**options, "data_path": str(Path(path).parent)}
    return dict(options)


def check_data(config: Config) -> None:
    """Check that the data set is there, has the columns a sequential model needs, and can be used row by row.

    Columns of the .inter file that other keys name are added to ``load_col``.

    Raises:
        InputError: no such data set, no such file, a header that RecBole cannot read, a column that is missing, rows
            without a time, numbers that are none.
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
    if parts is not None and (not isinstance(parts, list) or len(parts) != 3):
        raise InputError(
            f"benchmark_filename is {parts!r}, but must name three parts to train, validate and test with, such as "
            "[train,valid,test]."
        )
    for file in interaction_files(config):
        if not file.is_file():
            raise InputError(f"The data set {name!r} has no file {file}.")
    load_named_columns(config)
    check_columns(config)
    for file, scan in _scans(config).items():
        faults = scan.faults(file, f"fill it in, or delete these lines (`{_CONVERTER} --drop-incomplete` does)")
        if parts:  # where RecBole filters nothing
            faults += [scan.missing(column, file, "fill it in, or delete these lines") for column in _nameless(scan)]
        if not scan.rows:
            faults.append(f"{file} has a header and no rows.")
        if faults:
            raise InputError(faults[0])


def data_warnings(config: Config) -> list[str]:
    """What is odd with the rows of a data set that has passed :func:`check_data`, a sentence each."""
    warnings = []
    for file, scan in _scans(config).items():
        warnings += [scan.missing(column, file, "RecBole leaves these rows out") for column in _nameless(scan)]
        warnings += [
            scan.mixed_units(file),
            scan.early_times(file),
            scan.repeats(file, f"delete these lines (`{_CONVERTER} --drop-repeated` does) unless they are meant"),
        ]
    return list(filter(None, warnings))


def data_rows(config: Config) -> tuple[int, int]:
    """Rows of the files of interactions, and the columns that RecBole loads of them; 0 of files not yet downloaded."""
    files = list(filter(Path.is_file, interaction_files(config)))
    if not files:
        return 0, 0
    types = dict(column.partition(":")[::2] for column in read_header(files[0], **file_form(config)))
    return sum(scan.rows for scan in _scans(config).values()), len(loaded(config, "inter", types))


def _nameless(scan: Scan) -> list[str]:
    return [column for column in scan.names if scan.empty[column].count]


def _scans(config: Config) -> dict[Path, Scan]:
    """What was found in each file of interactions."""
    split = config["benchmark_filename"] is not None
    user, item, time = (config[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD"))
    scans = {}
    for file in filter(Path.is_file, interaction_files(config)):  # a cluster may have downloaded them elsewhere
        types = dict(column.partition(":")[::2] for column in read_header(file, **file_form(config)))
        names = [user, item, *([f"{item}{config['LIST_SUFFIX']}"] if split else [])]
        numbers = [
            column
            for column in loaded(config, "inter", types)
            if types[column] == "float" and (split or column != time)
        ]
        scans[file] = scan_file(
            file,
            names,
            numbers,
            None if split else time,
            **file_form(config),
            show_progress=bool(config["show_progress"]),
        )
    return scans


def check_dataset(dataset: Dataset) -> None:
    """Say what is odd with the rows of a data set that RecBole has loaded, and check its users.

    Raises:
        InputError: as :func:`check_data`, where the data set was downloaded only now; as :func:`check_users`.
    """
    check_data(dataset.config)
    for warning in data_warnings(dataset.config):
        getLogger().warning(warning)
    check_users(dataset)


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
