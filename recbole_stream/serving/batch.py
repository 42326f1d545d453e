"""``python -m recbole_stream recommend``: for some users, or for a file of histories however long.

A long file is ranked in parts of 8,192 histories, which lie beside the output until all are there: a killed command goes
on where it was when it is typed again. Memory holds a part, not the file.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from tqdm import tqdm

from recbole_stream.cluster import check_ray, connect, spread
from recbole_stream.errors import InputError
from recbole_stream.files import whole_file, write_text
from recbole_stream.serving.folder import CONFIG_FILE, Parts
from recbole_stream.serving.inputs import Named, read_histories
from recbole_stream.serving.reasons import REASONS, flat
from recbole_stream.serving.recommender import Recommender

__all__ = ["EXPLAINED", "arguments", "command", "recommend_to_file"]

PART = 8192  # histories
_EXPLAINED_AT_ONCE = 256  # reasons are large until they are columns
_ENDINGS = (".parquet", ".csv", ".jsonl")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command may be given."""
    parser.add_argument("model", help="folder of a model, or of a run")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--users", help="names of users of the training data, with commas between them")
    source.add_argument("--all-users", action="store_true", help="all users of the training data")
    source.add_argument("--histories", help="file of histories or events: .parquet, .jsonl or CSV")
    parser.add_argument("--top", type=int, default=10, help="items for each (default: 10)")
    parser.add_argument("--include-seen", action="store_true", help="recommend what a history holds, too")
    parser.add_argument("--explain", action="store_true", help="say why, which takes several times as long")
    parser.add_argument("--output", help="file to write: .parquet, .csv or .jsonl; by default a table on the screen")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU where there is one)")
    parser.add_argument("--address", help="of a Ray cluster to spread the work over: auto, HOST:PORT, or local")


def command(options: argparse.Namespace) -> None:
    """Recommend, and print the table or where it is."""
    if options.output is None and (options.all_users or options.histories or options.address):
        raise InputError("--output is missing: name a file that ends in .parquet, .csv or .jsonl.")
    model = Recommender.load(options.model, options.device)
    if options.output is None:
        users = options.users.split(",")
        table = model.recommend(users, options.top, not options.include_seen, explain=options.explain)
        table.insert(0, "user", [users[row] for row in table.pop("row")])
        if options.explain:  # all numbers would not fit a screen
            table["why"] = [why["words"] for why in table["why"]]
        print(table.to_string(index=False))
        return
    written = recommend_to_file(
        model, options.output, options.histories, _asked_users(model, options), options.top,
        not options.include_seen, options.address, options.explain,
    )  # fmt: skip
    print(written)


def _asked_users(model: Recommender, options: argparse.Namespace) -> list[str] | None:
    if options.all_users:
        return model.parts.users["user"].astype(str).tolist()
    return options.users.split(",") if options.users is not None else None


def recommend_to_file(
    model: Recommender,
    output: str | Path,
    histories: str | Path | None = None,
    users: list[str] | None = None,
    k: int = 10,
    exclude_seen: bool = True,
    address: str | None = None,
    explain: bool = False,
) -> str:
    """Rank a file of histories, or many users, into a file; the same call goes on after a kill.

    Histories without any known item are left out and counted.

    Args:
        model: ranks.
        output: ends in .parquet, .csv or .jsonl. Its rows: ``user`` (or the history's name), ``rank``, ``item``,
            ``title``, ``score``; with ``explain`` also those of :mod:`recbole_stream.serving.reasons`.
        histories: see :mod:`recbole_stream.serving.inputs`; None ranks ``users``.
        users: names of users of the training data.
        k, exclude_seen: see :meth:`Recommender.recommend`.
        address: of a Ray cluster; None ranks here.
        explain: say why.

    Returns:
        a sentence on what was written.

    Raises:
        InputError: a bad file, an unknown user, an output that is there or of another ending, parts of another call, or
            ``explain`` of a model of RecBole.
    """
    output = Path(output)
    if output.suffix not in _ENDINGS:
        raise InputError(f"--output is {output}, but must end in one of {', '.join(_ENDINGS)}.")
    if output.exists():
        raise InputError(f"{output} is there already: name another --output, or delete it first.")
    model.check_top(k)
    if explain:
        _ = model.explainer  # refuses a model that gives no reasons, before anything is written
    for user in users or ():
        model.history_of(user)  # all are known before any is ranked
    work = output.with_name(f"{output.name}.parts")
    _begin(work, _fingerprint(model, histories, users, k, exclude_seen, explain))
    numbered = enumerate(read_histories(histories, PART) if histories else _named(users or []))
    bar = tqdm(total=None if histories else len(users or []), desc="Recommending", unit=" histories", smoothing=0)
    waiting = _not_done(work, numbered, bar)
    asked = k, exclude_seen, explain
    ranked = _on_cluster(model, address, waiting, asked) if address else _here(model, waiting, asked)
    try:
        for number, content, count in ranked:
            with whole_file(work / f"{number:06}.parquet") as file:
                file.write(content)
            bar.update(count)
    except InputError:
        if not any(work.glob("*.parquet")):
            shutil.rmtree(work)  # the corrected call is another one
        raise
    finally:
        bar.close()
    written, unknown, left_out, rows = _join(work, output)
    shutil.rmtree(work)
    notes = f", {unknown:,} events with unknown items left out" if unknown else ""
    notes += f", {left_out:,} histories without any known item left out" if left_out else ""
    return f"{rows:,} recommendations for {written:,} histories are in {output}{notes}."


def _named(users: list[str]) -> Iterator[list[tuple[str, str]]]:
    for start in range(0, len(users), PART):
        yield [(user, user) for user in users[start : start + PART]]


def _fingerprint(model: Recommender, histories: str | Path | None, users: list[str] | None, *rest: Any) -> str:
    """Of all that the output follows from; of a long file its size, its time and its ends."""
    parts: list[Any] = [model.parts.config.get("model"), len(model.items), model.fingerprint, users, *rest, PART]
    if histories is not None:
        path = Path(histories)
        if not path.is_file():
            raise InputError(f"There is no file {path}: correct --histories.")
        with path.open("rb") as file:
            parts += [path.stat().st_size, path.stat().st_mtime_ns, hashlib.sha256(file.read(1 << 20)).hexdigest()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _begin(work: Path, fingerprint: str) -> None:
    job = work / CONFIG_FILE
    if job.is_file() and json.loads(job.read_text())["fingerprint"] != fingerprint:
        raise InputError(f"{work} holds parts of another call: finish that one, or delete the folder.")
    write_text(job, json.dumps({"fingerprint": fingerprint}))


def _not_done(work: Path, numbered: Iterable[tuple[int, Any]], bar: tqdm) -> Iterator[tuple[int, Any]]:
    for number, part in numbered:
        if (work / f"{number:06}.parquet").is_file():
            bar.update(len(part))
        else:
            yield number, part


def _rank_part(model: Recommender, part: Named, k: int, exclude_seen: bool, explain: bool) -> bytes:
    """A part's recommendations as a Parquet file, whose metadata say what was left out."""
    known, unknown = [], 0
    for name, history in part:
        if isinstance(history, str):
            known.append((name, history))
            continue
        items = [item for item in history if item in model]
        unknown += len(history) - len(items)
        if items:
            known.append((name, items))
    schema = EXPLAINED if explain else _SCHEMA
    step = _EXPLAINED_AT_ONCE if explain else PART
    tables = [schema.empty_table()]
    for start in range(0, len(known), step):
        some = known[start : start + step]
        table = model.recommend([history for _, history in some], k, exclude_seen, explain=explain)
        table.insert(0, "user", [some[row][0] for row in table.pop("row")])
        columns = {name: table[name] for name in _SCHEMA.names} | (flat(table["why"]) if explain else {})
        tables.append(pyarrow.table(columns, schema))
    counts = {"ranked": len(known), "unknown": unknown, "left_out": len(part) - len(known)}
    arrow = pyarrow.concat_tables(tables).replace_schema_metadata({"counts": json.dumps(counts)})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(arrow, buffer)
    return buffer.getvalue()


_SCHEMA = pyarrow.schema(
    [
        ("user", pyarrow.string()),
        ("rank", pyarrow.int32()),
        ("item", pyarrow.string()),
        ("title", pyarrow.string()),
        ("score", pyarrow.float64()),
    ]
)
EXPLAINED = pyarrow.schema([*_SCHEMA, *REASONS])

Asked = tuple[int, bool, bool]  # k, exclude_seen, explain
Ranked = Iterator[tuple[int, bytes, int]]  # number of a part, its file, its histories


def _here(model: Recommender, waiting: Iterable[tuple[int, Named]], asked: Asked) -> Ranked:
    for number, part in waiting:
        yield number, _rank_part(model, part, *asked), len(part)


def _on_cluster(model: Recommender, address: str, waiting: Iterable[tuple[int, Named]], asked: Asked) -> Ranked:
    """The same by tasks of a Ray cluster, two for each of its cores at a time; a lost worker's part is ranked again."""
    check_ray("--address")
    import ray

    if not ray.is_initialized():
        connect(None if address == "local" else address, 1, 0)
    shared = ray.put(model.parts)
    calls = (((number, len(part)), (model.fingerprint, shared, part, asked)) for number, part in waiting)
    for (number, count), content in spread(_rank_remotely, calls):
        yield number, content, count


_opened: dict[str, Recommender] = {}  # in a worker: the model that its last task had


def _rank_remotely(fingerprint: str, parts: Parts, part: Named, asked: Asked) -> bytes:
    if fingerprint not in _opened:
        _opened.clear()
        _opened[fingerprint] = Recommender(parts)
    return _rank_part(_opened[fingerprint], part, *asked)


def _join(work: Path, output: Path) -> tuple[int, int, int, int]:
    """Write all parts into one file, one after another; histories ranked, events and histories left out, rows."""
    files = sorted(work.glob("*.parquet"))
    counts = [json.loads(pyarrow.parquet.read_schema(file).metadata[b"counts"]) for file in files]
    ranked, unknown, left_out = (sum(count[name] for count in counts) for name in ("ranked", "unknown", "left_out"))
    if not ranked:
        shutil.rmtree(work)
        raise InputError(
            "No history holds an item that the model knows: give the items the names of the training data."
        )
    rows = 0
    with whole_file(output) as target:
        writer = None
        for file in files:
            table = pyarrow.parquet.read_table(file).replace_schema_metadata(None)
            rows += len(table)
            if output.suffix == ".jsonl":
                cells = table.to_pandas(types_mapper={pyarrow.int32(): pd.Int32Dtype()}.get)  # no rank is 3.0
                target.write(cells.to_json(orient="records", lines=True, force_ascii=False).encode())
                continue
            if writer is None:
                kind = pyarrow.parquet.ParquetWriter if output.suffix == ".parquet" else pyarrow.csv.CSVWriter
                writer = kind(target, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    return ranked, unknown, left_out, rows
