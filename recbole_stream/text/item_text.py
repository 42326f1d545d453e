"""Item text out of RecBole's atomic `.item` file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from recbole_stream.atomic import read_header, read_rows
from recbole_stream.errors import InputError

__all__ = ["read_item_text", "sentences", "text_columns", "title_first"]

_WAYS_OUT = "choose among them with `text_fields`, or bring your own IDs with `semantic_ids_file`"


def text_columns(
    path: str | Path, id_field: str = "item_id", separator: str = "\t", encoding: str = "utf-8"
) -> list[str]:
    """Columns of an atomic file that hold words: all tokens and sequences of tokens but the item's own, in their order.

    Raises:
        InputError: the file is not there, or has no such column.
    """
    if not Path(path).is_file():
        raise InputError(
            f"There is no item file {path} to make semantic IDs of: add it, or bring your own IDs with `semantic_ids_file`."
        )
    header = [column.partition(":")[::2] for column in read_header(path, separator, encoding)]
    columns = [name for name, kind in header if kind in ("token", "token_seq") and name != id_field]
    if not columns:
        raise InputError(
            f"{path} has no column of words to make semantic IDs of, but {', '.join(name for name, _ in header)}: add one "
            "such as title:token_seq, or bring your own IDs with `semantic_ids_file`."
        )
    return columns


def title_first(columns: Iterable[str]) -> list[str]:
    """Columns, those called title first, then those called name; the others keep their order."""
    return sorted(columns, key=lambda name: ("title" not in name.lower(), "name" not in name.lower()))


def read_item_text(
    path: str | Path,
    fields: list[str],
    item_tokens: list[str],
    id_field: str = "item_id",
    separator: str = "\t",
    encoding: str = "utf-8",
) -> list[str]:
    """One text per item, its fields joined as sentences: "Toy Story. 1995. Comedy."

    It is read as ``recbole_stream.atomic`` says, which RecBole's own reading is repaired to do too.
    Of several rows of one item the first counts.

    Args:
        path: atomic file, header `name:type`.
        fields: columns to use, in this order.
        item_tokens: the data set's items, by their tokens in the file.
        id_field: the column that holds the item token.
        separator: between columns.
        encoding: of the file.

    Returns:
        texts, `[len(item_tokens)]`; "" for an item without a row or with only empty fields.

    Raises:
        InputError: no file, no `fields`, a column that is not there, a row longer than the header, another encoding,
            or not one of the items.
    """
    path = Path(path)
    if not fields:
        raise InputError(
            "`text_fields` is empty: name the columns of the .item file to make item text of, "
            "or bring your own IDs with `semantic_ids_file`."
        )
    if not path.is_file():
        raise InputError(
            f"There is no item file {path} to read `text_fields` {fields} from: add it, "
            "or bring your own IDs with `semantic_ids_file`."
        )
    columns = [name.partition(":")[0] for name in read_header(path, separator, encoding)]
    if id_field not in columns:
        raise InputError(
            f"{path} has no column {id_field}, which names the items as in the .inter file (ITEM_ID_FIELD): its "
            f"columns are {', '.join(columns)}; rename one."
        )
    missing = [name for name in fields if name not in columns]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}: its columns are {', '.join(columns)}; {_WAYS_OUT}."
        )
    wanted = dict.fromkeys(item_tokens, "")
    seen: set[str] = set()
    token = ""
    for rows in read_rows(path, [id_field, *fields], separator, encoding):
        for token, *values in zip(rows.cells[id_field], *(rows.cells[name] for name in fields)):
            if token in wanted and token not in seen:
                seen.add(token)
                wanted[token] = sentences(values)
    if not seen:
        raise InputError(
            f"{path} has no row of any of the {len(item_tokens)} items: its {id_field} ({_example(token)}) and "
            f"that of the .inter file ({_example(*item_tokens)}) must be the same."
        )
    return [wanted[token] for token in item_tokens]


def sentences(values: Iterable[str]) -> str:
    """Cells as one text, each a sentence: "Toy Story. 1995. Comedy."; empty ones are left out."""
    cleaned = (" ".join(value.split()) for value in values)
    return " ".join(value if value[-1] in ".!?" else f"{value}." for value in cleaned if value)


def _example(*tokens: str) -> str:
    return f"such as {tokens[0]!r}" if tokens and tokens[0] else "none"
