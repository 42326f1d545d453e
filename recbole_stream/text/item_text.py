"""Item text out of RecBole's atomic `.item` file."""

from __future__ import annotations

from pathlib import Path

from recbole_stream.errors import InputError

__all__ = ["read_item_text"]

_WAYS_OUT = "choose among them with `text_fields`, or bring your own IDs with `semantic_ids_file`"


def read_item_text(
    path: str | Path, fields: list[str], item_tokens: list[str], id_field: str = "item_id", separator: str = "\t"
) -> list[str]:
    """One text per item, its fields joined as sentences: "Toy Story. 1995. Comedy."

    The file is split at line ends and at `separator`, nothing else: RecBole's
    own reading goes through pandas' quoting, which fails on a title that
    begins with an unbalanced quote and takes the title "NA" for a missing one.
    Of several rows of one item the first counts.

    Args:
        path: atomic file, header `name:type`, UTF-8.
        fields: columns to use, in this order.
        item_tokens: the data set's items, by their tokens in the file.
        id_field: the column that holds the item token.
        separator: between columns.

    Returns:
        texts, `[len(item_tokens)]`; "" for an item without a row or with only empty fields.

    Raises:
        InputError: no file, no `fields`, a column that is not there, a row longer than the header.
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
    # newline="\n": a carriage return, form feed or U+2028 inside a title is not a line end.
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        columns = [name.split(":")[0] for name in file.readline().rstrip("\r\n").split(separator)]
        missing = [name for name in [id_field, *fields] if name not in columns]
        if missing:
            raise InputError(
                f"{path} has no column {', '.join(missing)}: its columns are {', '.join(columns)}; {_WAYS_OUT}."
            )
        id_column = columns.index(id_field)
        text_columns = [columns.index(name) for name in fields]
        wanted = dict.fromkeys(item_tokens, "")
        seen: set[str] = set()
        for number, line in enumerate(file, start=2):
            cells = line.rstrip("\r\n").split(separator)
            if len(cells) > len(columns):
                raise InputError(
                    f"Line {number} of {path} has {len(cells)} columns where the header has {len(columns)}: "
                    "take the separators out of its texts."
                )
            cells += [""] * (len(columns) - len(cells))
            token = cells[id_column]
            if token in wanted and token not in seen:
                seen.add(token)
                wanted[token] = _sentences(cells[column] for column in text_columns)
    return [wanted[token] for token in item_tokens]


def _sentences(values) -> str:
    cleaned = (" ".join(value.split()) for value in values)
    return " ".join(value if value[-1] in ".!?" else f"{value}." for value in cleaned if value)
