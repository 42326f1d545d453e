"""A model in a folder: what is in it, how it is written and read. Nothing in it is a pickle.

``config.json`` says what the model is and holds a checksum of every other file, ``model.safetensors`` all tensors,
``items.parquet`` the items, ``users.parquet`` what is known of the users, ``README.md`` the model card.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from recbole_stream.errors import InputError
from recbole_stream.files import whole_file

__all__ = ["CARD_FILE", "CONFIG_FILE", "Parts", "is_model", "read_model", "write_model"]

FORMAT, VERSION = "recbole-stream-model", 1
CONFIG_FILE, TENSOR_FILE, ITEM_FILE, USER_FILE, CARD_FILE = (
    "config.json", "model.safetensors", "items.parquet", "users.parquet", "README.md",
)  # fmt: skip


@dataclass
class Parts:
    """All of a model's folder.

    Attributes:
        config: what the model is, in the types of JSON; see :func:`recbole_stream.serving.networks.describe`.
        tensors: by name.
        items: a row an item, in the order of their numbers from 1: ``item`` (its name in the data set), ``title``.
        users: a row a user: ``user``, ``items`` (numbers of all items that the user had, in time), ``last`` (the time of
            the last of these events, in the unit of the data set).
        card: the model card, Markdown with a YAML head.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    items: pd.DataFrame
    users: pd.DataFrame
    card: str


def is_model(folder: str | Path) -> bool:
    """Whether a folder looks like one that :func:`write_model` wrote."""
    return (Path(folder) / CONFIG_FILE).is_file() and not (Path(folder) / "results.json").exists()


def write_model(folder: str | Path, parts: Parts, replace: bool = False) -> Path:
    """Write a model's folder as a whole: another process sees all of it or nothing.

    Args:
        folder: made here.
        parts: its content.
        replace: whether a model that is there gives way; all else never does.

    Raises:
        InputError: the folder is there already.
    """
    folder = Path(folder).absolute()
    check_output(folder, replace)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        contents = {
            TENSOR_FILE: tensor_bytes(
                {name: value.detach().contiguous().cpu() for name, value in parts.tensors.items()}
            ),
            ITEM_FILE: _parquet(parts.items),
            USER_FILE: _parquet(parts.users),
        }
        config = {"format": FORMAT, "format_version": VERSION, "recbole_stream": _version(), **parts.config}
        config["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        config["checksum"] = _checksum(config)
        contents[CARD_FILE] = parts.card.encode()
        contents[CONFIG_FILE] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
        for name, content in contents.items():
            with whole_file(fresh / name) as file:
                file.write(content)
        if folder.exists():
            old = fresh.with_suffix(".old.tmp")
            os.replace(folder, old)
            os.replace(fresh, folder)
            shutil.rmtree(old)
        else:
            os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def check_output(folder: str | Path, replace: bool = False) -> None:
    """Whether a model may be written there.

    Raises:
        InputError: something is there already.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())) and not (replace and is_model(folder)):
        raise InputError(f"{folder} is there already: name another --output, or delete it first.")


def read_model(folder: str | Path) -> Parts:
    """Undo :func:`write_model`.

    Raises:
        InputError: there is no model, it is of another version, or a file of it is missing or was changed.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(
            f"{folder} holds no model (it has no {CONFIG_FILE}): name a folder that `python -m recbole_stream export` "
            "wrote."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        known = config.get("format") == FORMAT
    except (ValueError, AttributeError):
        raise InputError(f"{path} is damaged: export the model again.") from None
    if not known:
        raise InputError(f"{folder} holds a model of another kind: name a folder that export wrote.")
    if config.get("format_version") != VERSION:
        raise InputError(
            f"{folder} has format {config.get('format_version')}, and this version of recbole-stream reads {VERSION}: "
            f"install recbole-stream {config.get('recbole_stream')}, or export the model again."
        )
    if config.pop("checksum", None) != _checksum(config):
        raise InputError(f"{path} was changed after the export: export the model again.")
    contents = {name: _read(folder / name, digest) for name, digest in config.pop("files").items()}
    try:
        tensors = read_tensors(contents[TENSOR_FILE])
        items, users = (pd.read_parquet(io.BytesIO(contents[name])) for name in (ITEM_FILE, USER_FILE))
    except (KeyError, ValueError, OSError, SafetensorError) as fault:
        raise InputError(f"{folder} is damaged ({type(fault).__name__}): export the model again.") from fault
    card = folder / CARD_FILE
    return Parts(config, tensors, items, users, card.read_text(encoding="utf-8") if card.is_file() else "")


def _read(path: Path, digest: str) -> bytes:
    if not path.is_file():
        raise InputError(f"{path} is missing: export the model again.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path} is torn or was changed after the export: export the model again.")
    return content


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _checksum(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _version() -> str | None:
    try:
        return metadata.version("recbole-stream")
    except metadata.PackageNotFoundError:
        return None
