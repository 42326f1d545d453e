"""Items that came after the training: ``python -m recbole_stream add-items MODEL items.csv``.

A new item's text becomes a vector by the model's own encoder, and the vector the nearest semantic ID that is free. From
then on the item is ranked by everything but what only training gives.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from recbole_stream.data.sources import read_source
from recbole_stream.data.table import column_of
from recbole_stream.errors import InputError
from recbole_stream.serving.folder import Parts, check_output, read_model, write_model
from recbole_stream.text.encoder import encode_texts
from recbole_stream.text.item_text import sentences, title_first
from recbole_stream.tokenizer.free_ids import FreeIDs

__all__ = ["add_items", "arguments", "command", "with_items"]

_TABLES = ("network.tokens.table", "network.reference.tokens.table")
_OWN = "network.deliberation.matcher.own.weight"


def add_items(parts: Parts, table: pd.DataFrame, events: int | None = None) -> Parts:
    """A model with further items, nothing of which was trained.

    Args:
        parts: the model; left as it is.
        table: a row an item, columns of strings: one called ``item`` (or by another usual name), and those that the
            model's texts are made of, ``parts.config["encoder"]["text_fields"]``. Others may be there: of all of them
            the title is the one that is called so.
        events: as in :func:`with_items`.

    Returns:
        the model with the new items behind the old ones, in the order of the table; see :func:`with_items`.

    Raises:
        InputError: the model has no texts, a column is missing, an item is there already, twice, without a name or
            without text, or the encoder cannot be loaded or is another one.
    """
    encoder = parts.config.get("encoder")
    if encoder is None or "text" not in parts.tensors:
        raise InputError("The model has no item texts, by which new items could be placed: train one that has.")
    item = column_of("The table of items", list(table.columns), "item")
    names = table[item].astype(str).str.strip()
    _check_names(names, set(parts.items["item"].astype(str)))
    texts = _texts(table, names, list(encoder["text_fields"]))
    vectors, found = encode_texts(texts, encoder["text_encoder"], None, max_length=encoder["text_max_length"])
    if (found["dimension"], found["encoder"]) != (parts.tensors["text"].shape[1], encoder["encoder"]):
        raise InputError(
            f"The texts of the model are of {encoder['encoder']} ({parts.tensors['text'].shape[1]} numbers each), and "
            f"{encoder['text_encoder']} is {found['encoder']} ({found['dimension']}) here: install the model's own encoder."
        )
    items = pd.DataFrame({"item": names.to_list(), "title": _titles(table, item, encoder["text_fields"])}, dtype=str)
    return with_items(parts, items, vectors, events)


def _check_names(names: pd.Series, known: set[str]) -> None:
    if not len(names):
        raise InputError("The table of items has no rows: give at least one item.")
    if (names == "").any():
        raise InputError(f"Row {int((names == '').argmax()) + 1} of the items has no name: give one, or leave it out.")
    there = names.isin(known)
    if there.any():
        raise InputError(
            f"The model has the item {names[there].iloc[0]!r} already ({int(there.sum())} of the {len(names)} items are "
            "there): leave it out."
        )
    if names.duplicated().any():
        raise InputError(f"The item {names[names.duplicated()].iloc[0]!r} comes twice: leave one of its rows out.")


def _texts(table: pd.DataFrame, names: pd.Series, fields: list[str]) -> list[str]:
    missing = [field for field in fields if field not in table]
    if missing:
        raise InputError(
            f"The table of items has no column {', '.join(missing)}, of which the model's texts are made: its columns are "
            f"{', '.join(table.columns)}; add or rename one."
        )
    texts = [sentences(row) for row in zip(*(table[field].fillna("").astype(str) for field in fields))]
    without = [name for name, text in zip(names, texts) if not text]
    if without:
        raise InputError(
            f"The item {without[0]!r} has no text in {', '.join(fields)} ({len(without)} of the {len(texts)} items have "
            "none): fill it in, or leave it out."
        )
    return texts


def _titles(table: pd.DataFrame, item: str, fields: list[str]) -> list[str]:
    columns = title_first([*fields, *(name for name in table.columns if name not in (*fields, item))])
    return table[columns[0]].fillna("").astype(str).to_list()


def with_items(parts: Parts, items: pd.DataFrame, vectors: np.ndarray, events: int | None = None) -> Parts:
    """A model with further items whose texts are vectors already.

    A new item gets the nearest free semantic ID (:class:`recbole_stream.tokenizer.free_ids.FreeIDs`, by the items of the
    training alone, however often items are added). What training gives is not there: its own embedding is 0, and
    nothing followed it. Old items keep their numbers and all that belongs to them.

    Args:
        parts: the model; left as it is.
        items: ``item`` and ``title`` of each new item.
        vectors: of their texts, float32 [n_new, D].
        events: as how popular a new item counts, in training events; by default as the median of the items trained.
            0 would speak for it: the items without training events that the verifier has learnt from are those whose
            events are all validation and test events.

    Raises:
        InputError: there are no free semantic IDs left.
    """
    config, tensors, new = dict(parts.config), dict(parts.tensors), len(items)
    trained = config.setdefault("trained_items", len(parts.items))
    table, offsets, text = (tensors[name] for name in (_TABLES[0], "network.tokens.offsets", "text"))
    codes = (table[1:] - offsets).numpy()
    counter = config.get("unique_ids") == "counter"
    free = FreeIDs(text[:trained].numpy(), codes[:trained], config["codebook_sizes"], counter)
    free.reserve(codes[trained:])
    bar = tqdm(vectors, desc="Placing new items", unit="item", disable=None)
    placed = torch.tensor([free.take(vector) for vector in bar], dtype=table.dtype)
    for name in _TABLES:
        if name in tensors:
            tensors[name] = torch.cat([table, placed + offsets])
    tensors["text"] = torch.cat([text, torch.from_numpy(np.asarray(vectors, np.float32))])
    if _OWN in tensors:
        tensors[_OWN] = F.pad(tensors[_OWN], (0, 0, 0, new))
    if "popularity" in tensors:
        popularity = tensors["popularity"]
        events = int(popularity[1 : trained + 1].median()) if events is None else events
        tensors["popularity"] = F.pad(popularity, (0, new), value=events)
    columns = {"item": items["item"].astype(str), "title": items["title"].astype(str)}
    grown = pd.concat([parts.items, pd.DataFrame(columns)], ignore_index=True)
    note = f"{new:,} items were added after the training, by their texts: {len(grown):,} items in all."
    return Parts(config, tensors, grown, parts.users, f"{parts.card.rstrip()}\n\n{note}\n")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command may be given."""
    parser.add_argument("model", type=Path, help="folder of a model that export wrote")
    parser.add_argument(
        "items", type=Path, help="CSV, Parquet or JSON lines: item, and the columns of the model's texts"
    )
    parser.add_argument(
        "--events", type=int, help="as how popular a new item counts; fewer show it more often (default: the median)"
    )
    parser.add_argument("--output", type=Path, help="folder of the grown model, which is made (default: MODEL itself)")


def command(options: argparse.Namespace) -> None:
    """Add, and say how many."""
    if options.events is not None and options.events < 0:
        raise InputError(f"--events is {options.events}, but must be 0 or more.")
    output = options.output or options.model
    parts = read_model(options.model)
    check_output(output, replace=options.output is None)
    grown = add_items(parts, read_source(options.items).table, options.events)
    write_model(output, grown, replace=options.output is None)
    print(f"{len(grown.items) - len(parts.items):,} new items; the model in {output} has {len(grown.items):,} now.")
