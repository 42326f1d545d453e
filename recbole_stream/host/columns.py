"""Columns of a data set's files: which there are, which are loaded, and whether keys that name some make sense."""

from __future__ import annotations

import re
from collections.abc import Mapping
from logging import getLogger
from pathlib import Path

from recbole.config import Config

from recbole_stream.atomic import read_header
from recbole_stream.errors import InputError

__all__ = ["atomic_file", "check_columns", "file_form", "interaction_files", "load_named_columns", "loaded"]

_KINDS = ("token", "token_seq", "float", "float_seq")
# keys of RecBole that name columns, as a dictionary or as a list
_NAMING_KEYS = ("val_interval", "threshold", "normalize_field", "discretization", "numerical_features")
_NUMBER = r"\s*[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf)\s*"
_INTERVAL = re.compile(rf"\s*[\[(]{_NUMBER},{_NUMBER}[\])]\s*", re.IGNORECASE)


def file_form(config: Config) -> dict[str, str]:
    """How the data set's files are written, as arguments of ``recbole_stream.atomic``."""
    return {"separator": config["field_separator"], "encoding": config["encoding"] or "utf-8"}


def atomic_file(config: Config, ending: str) -> Path:
    """A file of the data set, such as that of ``inter``."""
    return Path(config["data_path"]) / f"{config['dataset']}.{ending}"


def interaction_files(config: Config) -> list[Path]:
    """The file of interactions, or those of the parts into which the user has split them."""
    parts = config["benchmark_filename"]
    return [atomic_file(config, f"{part}.inter") for part in parts] if parts else [atomic_file(config, "inter")]


def loaded(config: Config, ending: str, types: Mapping[str, str]) -> list[str]:
    """The columns of ``types`` that RecBole loads from a file (dataset.py:400-440)."""
    chosen, left_out = config["load_col"], (config["unload_col"] or {}).get(ending, ())
    if chosen is not None:
        chosen = chosen.get(ending, ())
    return [column for column in types if (chosen in (None, "*") or column in chosen) and column not in left_out]


def load_named_columns(config: Config) -> None:
    """Add the columns of the .inter file that other keys name, such as ``val_interval``, to ``load_col``.

    Raises:
        InputError: ``val_interval`` is no dictionary; a key names a column that is nowhere, or that of another file,
            which RecBole may not load for that alone: all items of a loaded .item file become candidates.
    """
    if not isinstance(config["val_interval"], dict | None):
        raise InputError(
            f"val_interval is {config['val_interval']!r}, but must give columns intervals in quotes, such as "
            "{rating: '[3,inf)'}."
        )
    files = [file for file in interaction_files(config) if file.is_file()]
    named = {column: key for key in _NAMING_KEYS for column in config[key] or ()}
    if not files or not named or config["load_col"] is None:
        return
    inter = _types(files[0], config)
    for column, key in named.items():
        if column in loaded(config, "inter", inter):
            continue
        if column in inter:
            columns = config["load_col"] | {"inter": [*config["load_col"].get("inter", ()), column]}
            config["load_col"] = columns
            getLogger().info(f"{key} names {column}: it is loaded too.")
            continue
        others = {ending: atomic_file(config, ending) for ending in ("item", "user")}
        kinds = {ending: _types(file, config) for ending, file in others.items() if file.is_file()}
        for ending, types in kinds.items():
            if column in types and column not in loaded(config, ending, types):
                raise InputError(
                    f"{key} names {column!r}, a column of {others[ending]} that load_col leaves out: add {ending}: "
                    f"[{config['ITEM_ID_FIELD' if ending == 'item' else 'USER_ID_FIELD']}, {column}] to load_col."
                )
        if not any(column in types for types in kinds.values()):
            there = ", ".join(dict.fromkeys([*inter, *(column for types in kinds.values() for column in types)]))
            raise InputError(f"{key} names {column!r}, which is no column of {config['dataset']}: there are {there}.")


def check_columns(config: Config) -> None:
    """Check the headers of a data set's files, and the keys that name columns.

    Raises:
        InputError: a column is missing, not loaded or of the wrong kind, or a key does not fit its column.
    """
    for file in interaction_files(config):
        types = _types(file, config)
        _check_needed(file, types, config)
    for ending in ("item", "user"):
        file = atomic_file(config, ending)
        if file.is_file() and (config["load_col"] is None or ending in config["load_col"]):
            types |= _types(file, config)
    for key in ("user_inter_num_interval", "item_inter_num_interval"):
        _check_interval(key, config[key])
    for column, interval in (config["val_interval"] or {}).items():
        if types.get(column, "").startswith("token") and not isinstance(interval, list):
            raise InputError(f"val_interval gives {interval!r} for {column}, a column of tokens: list those to keep.")
        if types.get(column, "").startswith("float"):
            _check_interval(f"val_interval of {column}", interval)


def _types(file: Path, config: Config) -> dict[str, str]:
    """Name of each column of a file -> its kind.

    Raises:
        InputError: the header names a kind that RecBole does not know, or a column twice.
    """
    header = read_header(file, **file_form(config))
    types = dict(column.partition(":")[::2] for column in header)
    for column, kind in types.items():
        if kind not in _KINDS:
            raise InputError(
                f"The header of {file} says {':'.join(filter(None, (column, kind)))!r}: it must be a name and one of "
                f"{', '.join(_KINDS)}, such as {column}:token."
            )
    if len(types) < len(header):
        raise InputError(f"The header of {file} names a column twice: {', '.join(header)}.")
    return types


def _check_needed(file: Path, types: Mapping[str, str], config: Config) -> None:
    """The columns of an .inter file that a sequential model needs.

    A file of the user's own split (``benchmark_filename``) holds a ready history in place of the time.
    """
    history = f"{config['ITEM_ID_FIELD']}{config['LIST_SUFFIX']}"
    kinds = {config["USER_ID_FIELD"]: ("USER_ID_FIELD", "token"), config["ITEM_ID_FIELD"]: ("ITEM_ID_FIELD", "token")}
    if config["benchmark_filename"]:
        kinds[history] = ("LIST_SUFFIX", "token_seq")
    else:
        kinds[config["TIME_FIELD"]] = ("TIME_FIELD", "float")
    missing = {column: key for column, (key, _) in kinds.items() if column not in types}
    if history in missing:
        raise InputError(
            f"{file} has no column {history!r} but {', '.join(types)}: with benchmark_filename each row needs the "
            f"history that comes before its item, as {history}:token_seq."
        )
    if missing:
        raise InputError(
            f"{file} has no column {', '.join(map(repr, missing))} but {', '.join(types)}: set "
            f"{', '.join(missing.values())} to what is meant, or add it."
        )
    for column, (_, kind) in kinds.items():
        if column not in loaded(config, "inter", types):
            raise InputError(f"load_col leaves out {column!r}: add it to the list of inter.")
        if types[column] != kind:
            raise InputError(f"The header of {file} says {column}:{types[column]}: it must be {column}:{kind}.")
    if history in kinds and history not in (config["alias_of_item_id"] or ()):
        raise InputError(
            f"alias_of_item_id does not name {history!r}, so that its items would be others than those of "
            f"{config['ITEM_ID_FIELD']}: set alias_of_item_id to [{history}]."
        )


def _check_interval(key: str, interval: object) -> None:
    """RecBole passes over an interval that it cannot read, and keeps everything."""
    if interval is None or all(_INTERVAL.fullmatch(part) for part in str(interval).split(";")):
        return
    raise InputError(f'{key} is {interval!r}, but must be intervals such as "[5,inf)" or "(0,1];[3,4)".')
