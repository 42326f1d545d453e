"""What items are worth that were added after the training: ``python -m experiments.new_items --dataset=NAME ...``.

A tenth of the items is drawn and held out: their events and texts are taken out of a copy of the data set, on which
STREAMRec trains with ``--stages=[match]``. The exported model gets these items by ``add_items``. Then each user's last
event of the whole data set is ranked after all events before it, apart for targets that were added and for all others;
variants are compared on the events before the last ones. Steps that are done already are not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.runs import TOP, metrics
from recbole_stream.atomic import read_rows
from recbole_stream.data.histories import padded
from recbole_stream.data.sources import read_source
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.files import write_text
from recbole_stream.model.deliberation import RANKINGS
from recbole_stream.model.lookup import Content
from recbole_stream.serving.folder import Parts, read_model, write_model
from recbole_stream.serving.networks import build_ranker
from recbole_stream.serving.new_items import add_items

__all__ = ["command_line", "hold_out", "main", "measure", "ranks_of", "train", "write_table"]

SHARE = 0.1
_ROWS = 256
_OWN = "network.deliberation.matcher.own.weight"

Histories = list[list[str]]
Scores = Callable[[Tensor], Tensor]


def hold_out(data: Path, output: Path, seed: int) -> Path:
    """Write a copy of a data set without a tenth of its items, and these as a table of items.

    Args:
        data: folder of the data set, NAME/NAME.inter and NAME.item.
        output: gets NAME/NAME.inter, NAME/NAME.item and new.item.
        seed: of the draw.

    Returns:
        the table of the items held out.
    """
    name, table = data.name, output / "new.item"
    if table.exists():
        return table
    events = (data / f"{name}.inter").read_text(encoding="utf-8").splitlines(keepends=True)
    items = sorted({line.split("\t")[1] for line in events[1:]})
    drawn = set(np.random.default_rng(seed).choice(items, round(SHARE * len(items)), replace=False).tolist())
    texts = (data / f"{name}.item").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in events[1:] if line.split("\t")[1] not in drawn]
    write_text(output / name / f"{name}.inter", "".join([events[0], *kept]))
    for path, wanted in ((output / name / f"{name}.item", False), (table, True)):
        lines = [line for line in texts[1:] if (line.split("\t")[0] in drawn) == wanted]
        write_text(path, "".join([texts[0], *lines]))
    return table


def train(dataset: str, data_path: Path, output: Path, seed: int, keys: list[str]) -> Parts:
    """Train on a data set, and export the final model.

    Users of three events and more and all items are kept.
    """
    run, model = output / "run", output / "model"
    if not (run / "results.json").exists():
        words = [
            "--model=STREAMRec", "--stages=[match]", f"--seeds={seed}", f"--dataset={dataset}",
            f"--data_path={data_path}", "--user_inter_num_interval=[3,inf)", "--item_inter_num_interval=[1,inf)",
            f"--output_dir={run}", *keys,
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "recbole_stream", *words], check=True)
    if not model.exists():
        export = ["export", str(run), f"--output={model}", "--model=STREAMRec", f"--data_path={data_path}"]
        subprocess.run([sys.executable, "-m", "recbole_stream", *export], check=True)
    return read_model(model)


def sequences(data: Path) -> Histories:
    """Every user's items in time, of a data set's folder."""
    parts = [
        pd.DataFrame(rows.cells) for rows in read_rows(data / f"{data.name}.inter", ["user_id", "item_id", "timestamp"])
    ]
    events = pd.concat(parts, ignore_index=True)
    order = events["timestamp"].astype(float).argsort(kind="stable")
    return events.iloc[order].groupby("user_id")["item_id"].agg(list).to_list()


def ranks_of(ranker: Ranker, names: list[str], histories: Histories, targets: list[str]) -> np.ndarray:
    """Ranks of the targets among the first ten [N], infinite where they are not; unknown items are left out."""
    number = {name: place for place, name in enumerate(names, 1)}
    rows = [[number[item] for item in own if item in number][-ranker.longest :] or [0] for own in histories]
    found = np.full(len(rows), np.inf)
    order = np.argsort([len(row) for row in rows], kind="stable")
    for start in range(0, len(rows), _ROWS):
        part = order[start : start + _ROWS]
        items, _ = ranker.rank(padded([rows[row] for row in part]), TOP)
        wanted = torch.tensor([number.get(targets[row], -1) for row in part])
        hits = items == wanted[:, None]
        found[part] = np.where(hits.any(1), hits.int().argmax(1) + 1, np.inf)
    return found


def ranks_by(scores: Scores, names: list[str], longest: int, histories: Histories, targets: list[str]) -> np.ndarray:
    """The same for scores of all items, without those of the history; of equal scores half are before the target."""
    number = {name: place for place, name in enumerate(names, 1)}
    found = np.full(len(histories), np.inf)
    for start in range(0, len(histories), _ROWS):
        part = range(start, min(start + _ROWS, len(histories)))
        rows = padded([[number[item] for item in histories[row]][-longest:] for row in part])
        wanted = torch.tensor([number[targets[row]] for row in part])[:, None]
        values = scores(rows).clone()
        own = values.gather(1, wanted)
        values.scatter_(1, rows, -torch.inf)
        values[:, 0] = -torch.inf
        rank = 1 + (values > own).sum(1) + ((values == own).sum(1) - 1).clamp(min=0) / 2
        found[start : start + len(part)] = np.where(rank <= TOP, rank.floor(), np.inf)
    return found


def measure(before: Parts, after: Parts, whole: Histories) -> pd.DataFrame:
    """A line for each way to rank and split: Recall@10 and NDCG@10 of added targets and of all others."""
    old, new = before.items["item"].tolist(), after.items["item"].tolist()
    added = set(new) - set(old)
    ranker = build_ranker(after.config, after.tensors)
    mean, own = dict(after.tensors), after.tensors[_OWN]
    mean[_OWN] = torch.cat([own[: len(old) + 1], own[1 : len(old) + 1].mean(0).expand(len(added), -1)])
    counts = {
        events: dict(after.tensors)
        | {"popularity": F.pad(after.tensors["popularity"][: len(old) + 1], (0, len(added)), value=events)}
        for events in (0, 1, 2)
    }
    states = dict(after.tensors)
    states["network.deliberation.ranking"] = torch.tensor(RANKINGS.index("states"))
    text = F.pad(after.tensors["text"], (0, 0, 1, 0))
    content = Content(text, after.config["keys"]["lookup_recency"], after.tensors["text_centre"])
    popularity = after.tensors["popularity"].float()
    ways = {
        "before, without the added items": lambda *rows: ranks_of(
            build_ranker(before.config, before.tensors), old, *rows
        ),
        "after": lambda *rows: ranks_of(ranker, new, *rows),
        "after, own embeddings their mean": lambda *rows: ranks_of(build_ranker(after.config, mean), new, *rows),
        **{
            f"after, --events={events}": lambda *rows, tensors=tensors: ranks_of(
                build_ranker(after.config, tensors), new, *rows
            )
            for events, tensors in counts.items()
        },
        "after, matching alone": lambda *rows: ranks_of(build_ranker(after.config, states), new, *rows),
        "texts alone": lambda *rows: ranks_by(content, new, ranker.longest, *rows),
        "popularity": lambda *rows: ranks_by(lambda own: popularity.expand(len(own), -1), new, ranker.longest, *rows),
    }
    lines = []
    for split, back in (("valid", 2), ("test", 1)):
        rows = [own[: len(own) - back + 1] for own in whole if len(own) > back]
        histories, targets = [own[:-1] for own in rows], [own[-1] for own in rows]
        fresh = np.array([target in added for target in targets])
        for name, rank in ways.items():
            ranks = rank(histories, targets)
            line: dict[str, object] = {"split": split, "model": name}
            for group, mask in (("added", fresh), ("others", ~fresh)):
                values = metrics(ranks[mask])
                line |= {f"{group} events": int(mask.sum())}
                line |= {f"{group} {metric}": values[metric] for metric in ("recall@10", "ndcg@10", "error")}
            lines.append(line)
            print(line, flush=True)
    return pd.DataFrame(lines)


def command_line(name: str, what: str, seed: str) -> tuple[argparse.Namespace, list[str]]:
    """Options of a measurement, and the keys of its training, which are passed on."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=what.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data_path", type=Path, required=True, help="folder with the data set's folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--seed", type=int, default=2020, help=seed)
    return parser.parse_known_args()


def write_table(stem: Path, lines: pd.DataFrame) -> None:
    """Write a measurement as CSV and as Markdown."""
    write_text(stem.with_suffix(".csv"), lines.to_csv(index=False))
    write_text(stem.with_suffix(".md"), lines.to_markdown(index=False, floatfmt=".4f") + "\n")


def main() -> int:
    """Hold out, train, export, add, measure."""
    given, keys = command_line("new_items", __doc__, "of the draw and of the training")
    data = given.data_path / given.dataset
    table = hold_out(data, given.output, given.seed)
    before = train(given.dataset, given.output, given.output, given.seed, keys)
    grown = given.output / "grown"
    if not grown.exists():
        write_model(grown, add_items(before, read_source(table).table))
    lines = measure(before, read_model(grown), sequences(data))
    write_table(given.output / "new-items", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
