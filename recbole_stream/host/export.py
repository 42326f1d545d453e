"""From a run's checkpoint to a model's folder, which opens without RecBole."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import get_model
from torch import Tensor

from recbole_stream.data.histories import right_padded
from recbole_stream.data.seen import Seen
from recbole_stream.errors import InputError
from recbole_stream.host.checkpoints import build, open_checkpoint
from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.models import GenerativeRecommender
from recbole_stream.host.recommend import titles_of
from recbole_stream.reporting.results import Row, read_results
from recbole_stream.serving.card import model_card
from recbole_stream.serving.folder import Parts, check_output, write_model
from recbole_stream.serving.networks import describe
from recbole_stream.serving.recommender import OPENERS

__all__ = ["export"]

_PROTOCOL = (
    "Each user's last event is the test item and the one before it the validation item. The target is ranked among all "
    "items{seen}. Validation chose the epoch and the stage."
)


def export(
    run: str | Path,
    output: str | Path,
    model: str | None = None,
    stage: str | None = None,
    seed: int | None = None,
    data_path: str | Path | None = None,
    users: bool = True,
) -> Path:
    """Write a row of a run as a model's folder.

    Args:
        run: its folder.
        output: the new folder.
        model, stage, seed: of the row; by default that with the best validation metric among the rows that fit.
        data_path: where the data set is now, if no longer where it was in training.
        users: whether the folder holds the users' names and histories.

    Returns:
        the new folder.

    Raises:
        InputError: the run has no such row or no checkpoint of it, or the folder is there already.
    """
    check_output(output)
    row = _row(Path(run), model, stage, seed)
    file = _checkpoint(Path(run), row)
    with quiet_argv():
        opened, config, dataset = open_checkpoint(file, data_path, state="warning")
        if not isinstance(dataset, SequentialDataset) or config["benchmark_filename"]:
            raise InputError(
                f"{file} is of {row.model} on {row.dataset}: export needs a sequential model, and a data set that is one "
                "file of events."
            )
        events = copy.copy(dataset)  # before they are split, the last ones included
        network, *_ = build(opened, config, dataset)
    network.eval()
    parts = _parts(config, network, dataset)
    known = _users(events)
    parts.items, parts.users = _items(config, dataset), known if users else known[:0]
    parts.config |= {
        "model": row.model,
        "stage": row.stage,
        "dataset": row.dataset,
        "seed": row.seed,
        "encoder": _encoder(config, network),
        "unique_ids": config["unique_ids"],
        "leave_out_seen": bool(config["leave_out_seen"]),
    }
    parts.card = model_card(_facts(row, len(parts.items), len(known), bool(config["leave_out_seen"])))
    return write_model(output, parts)


def _row(run: Path, model: str | None, stage: str | None, seed: int | None) -> Row:
    rows = read_results(run)
    asked = {"model": model, "stage": stage, "seed": seed}
    fit = [
        row
        for row in rows
        if all(value is None or str(getattr(row, name)) == str(value) for name, value in asked.items())
        and (row.final or stage is not None)
    ]
    if not fit:
        there = ", ".join(f"{row.model}{' ' + row.stage if row.stage else ''} (seed {row.seed})" for row in rows)
        wanted = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        raise InputError(f"{run} has no row with {wanted or 'results'}, but {there or 'none'}: name one of them.")
    metric = str(fit[0].run.get("configuration", {}).get("valid_metric", "ndcg@10")).lower()
    return max(fit, key=lambda row: row.valid.get(metric) or 0.0)  # the first of equals


def _checkpoint(run: Path, row: Row) -> Path:
    stem = run / "checkpoints" / f"{row.model}-seed{row.seed}"
    names = [f"{stem}-{row.stage or row.model}.pth", f"{stem}.pth"]
    found = [Path(name) for name in names if Path(name).is_file()]
    if not found:
        raise InputError(
            f"{run} has no checkpoint {Path(names[0]).name} of this row: bring it back, or train it again."
        )
    return found[0]


def _parts(config: Config, network: SequentialRecommender, dataset: Dataset) -> Parts:
    if isinstance(network, GenerativeRecommender):
        text = None if network.items.text is None else torch.from_numpy(network.items.text)
        described, tensors = describe(network.ranker, config, text)
    else:
        keys = {name: value for name, value in config.final_config_dict.items() if _plain(value)}
        sizes = {"items": dataset.item_num, "users": dataset.user_num}
        described = {"kind": "recbole", "model": config["model"], "keys": keys, "sizes": sizes}
        tensors = dict(network.state_dict())
    parts = Parts(described, tensors, pd.DataFrame(), pd.DataFrame(), "")
    if "kind" in described:
        _RecBoleScorer(parts, torch.device("cpu")).check()
    return parts


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _plain(own) for name, own in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _encoder(config: Config, network: SequentialRecommender) -> dict[str, Any] | None:
    """What a new item's text needs: the encoder, and what its text is made of."""
    if not isinstance(network, GenerativeRecommender) or network.items.text is None:
        return None
    names = ("text_encoder", "text_max_length", "text_fields")
    return {**network.items.encoder, **{name: config[name] for name in names}}


def _items(config: Config, dataset: Dataset) -> pd.DataFrame:
    names = [str(name) for name in dataset.field2id_token[dataset.iid_field][1:]]
    titles = titles_of(config)
    return pd.DataFrame({"item": names, "title": [titles.get(name, "") for name in names]}, dtype=str)


def _users(events: SequentialDataset) -> pd.DataFrame:
    rows = events.inter_feat.sort_values(events.time_field, kind="stable")
    users = rows.groupby(events.uid_field, sort=True)
    histories = users[events.iid_field].agg(list)
    names = events.field2id_token[events.uid_field][histories.index.to_numpy()].astype(str)
    last = users[events.time_field].last().to_numpy(np.float64)
    return pd.DataFrame({"user": names, "items": histories.to_list(), "last": last})


def _facts(row: Row, items: int, users: int, leaves_out: bool) -> dict[str, Any]:
    seen = " that the user did not have" if leaves_out else ""
    hardware = row.run.get("hardware") or {}
    return {
        **{name: getattr(row, name) for name in ("model", "stage", "dataset", "seed", "valid", "test", "parameters")},
        "items": items,
        "users": users,
        "protocol": _PROTOCOL.format(seen=seen),
        "command": row.run.get("command"),
        "date": row.run.get("date"),
        "hardware": hardware.get("gpu") or f"{hardware.get('cpu')}, {hardware.get('threads')} threads",
        "encoder": (row.run.get("encoder") or {}).get("encoder"),
    }


# -- RecBole's own models ----------------------------------------------------


class _Keys(dict):
    """A configuration as RecBole's models read it: a key that is not there is None."""

    def __missing__(self, key: str) -> None:
        return None


class _Sizes:
    """All that RecBole's models of histories ask a data set."""

    def __init__(self, keys: _Keys, sizes: dict[str, int]) -> None:
        self._numbers = {keys["ITEM_ID_FIELD"]: sizes["items"], keys["USER_ID_FIELD"]: sizes["users"]}

    def num(self, field: str) -> int:
        return self._numbers[field]


class _RecBoleScorer:
    """A sequential model of RecBole, which ranks by a history alone."""

    def __init__(self, parts: Parts, device: torch.device) -> None:
        self.name, keys = parts.config["model"], _Keys(parts.config["keys"])
        keys["device"] = device
        try:
            self.model = get_model(self.name)(keys, _Sizes(keys, parts.config["sizes"])).to(device).eval()
            self.model.load_state_dict(parts.tensors)
        except (AttributeError, KeyError, TypeError, RuntimeError) as fault:
            raise self._unfit() from fault

    def _unfit(self) -> InputError:
        return InputError(
            f"{self.name} needs more than a history to rank by, so that it cannot leave its run: use "
            "recbole_stream.recommend with its checkpoint."
        )

    def check(self) -> None:
        """Whether it ranks one item's history.

        Raises:
            InputError: it asks for more, such as a vector of the user.
        """
        try:
            self._scores(torch.ones(1, 1, dtype=torch.long))
        except (AttributeError, KeyError, TypeError) as fault:
            raise self._unfit() from fault

    @torch.no_grad()
    def _scores(self, histories: Tensor) -> Tensor:
        longest = self.model.max_seq_length
        histories = right_padded(histories, longest)
        lengths = (histories > 0).sum(1)
        histories = torch.nn.functional.pad(histories, (0, longest - histories.shape[1]))
        rows = Interaction({self.model.ITEM_SEQ: histories, self.model.ITEM_SEQ_LEN: lengths})
        scores = self.model.full_sort_predict(rows).view(len(histories), -1)
        scores[:, 0] = -torch.inf
        return scores

    def rank(self, histories: Tensor, top: int, seen: Seen | None = None) -> tuple[Tensor, Tensor]:
        scores = self._scores(histories)
        if seen is not None:
            scores[seen.index()] = -torch.inf
        best, items = scores.topk(min(top, scores.shape[1] - 1), 1)
        return items, best

    def scores(self, histories: Tensor, items: Tensor) -> Tensor:
        return self._scores(histories).gather(1, items)


def _open_run(run: str | Path) -> Path:
    """The folder of a run's best row, exported into the run when first asked for."""
    row = _row(Path(run), None, None, None)
    folder = Path(run) / "models" / f"{row.model}-seed{row.seed}{'-' + row.stage if row.stage else ''}"
    if folder.is_dir() and folder.stat().st_mtime < _checkpoint(Path(run), row).stat().st_mtime:
        shutil.rmtree(folder)  # of a checkpoint that was trained further
    return folder if folder.is_dir() else export(run, folder, row.model, row.stage or None, row.seed)


OPENERS.update({"run": _open_run, "recbole": _RecBoleScorer})
