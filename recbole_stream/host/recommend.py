"""Recommendations from a checkpoint: what comes next after everything that is known of a user."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils.case_study import full_sort_topk
from torch import Tensor

from recbole_stream.atomic import read_header, read_table
from recbole_stream.errors import InputError
from recbole_stream.host.checkpoints import build, open_checkpoint
from recbole_stream.host.columns import file_form
from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.models import GenerativeRecommender
from recbole_stream.text.item_text import title_first

__all__ = ["recommend", "titles_of"]


def recommend(
    checkpoint: str | Path, users: Iterable[str], k: int = 10, data_path: str | Path | None = None
) -> pd.DataFrame:
    """The best next items of some users, by the model of a checkpoint and all events that the data set has of them.

    Evaluation hides each user's last events, and ranks what it can compare with them. Here nothing is hidden, and
    events that were added to the files after the training count. With ``leave_out_seen`` in the model's configuration,
    nothing is recommended that a user had before.

    Args:
        checkpoint: of any sequential model, such as ``results/.../checkpoints/STREAMRec-seed2020-Deliberation.pth``.
        users: their names in the data set.
        k: how many items a user.
        data_path: where the data set is now, if no longer where it was in training: its folder, or the one that holds
            it.

    Returns:
        a row for each user and place: ``user``, ``rank`` (1 is best), ``item``, ``title`` (the column of the .item file
        that is called so, else its first column of words; empty where there is none) and ``score``.

    Raises:
        InputError: no such checkpoint or data set, no users, a user that it does not have, or more items than there are.
    """
    if isinstance(users, str):  # a list of letters else
        raise InputError(f"users is {users!r}, but must be a list of names: write [{users!r}].")
    users = list(dict.fromkeys(map(str, users)))
    if not users:
        raise InputError("users is empty: name at least one user as the .inter file does.")
    with quiet_argv():
        opened, config, dataset = open_checkpoint(
            checkpoint, data_path, state="warning"
        )  # the configuration is no news
        if not isinstance(dataset, SequentialDataset) or config["benchmark_filename"]:
            raise InputError(
                f"{checkpoint} is of {config['model']} on {config['dataset']}: recommend needs a sequential model, and "
                "a data set that is one file of events."
            )
        _check(dataset, users, k)
        events = copy.copy(dataset)  # before they are split, the last ones included
        model, *_ = build(opened, config, dataset)
    model.eval()
    tables = [pd.DataFrame(columns=["user", "rank", "item", "score"])]
    for start in range(0, len(users), config["eval_batch_size"]):
        part = users[start : start + config["eval_batch_size"]]
        numbers = dataset.token2id(dataset.uid_field, part)
        scores, items = _rank(config, model, _histories(events, numbers), numbers, k)
        table = pd.DataFrame({"user": np.repeat(part, k), "rank": np.tile(np.arange(1, k + 1), len(part))})
        table["item"], table["score"] = items.flatten().numpy(), scores.flatten().numpy()
        tables.append(table[np.isfinite(table["score"])])
    table = pd.concat(tables[1:] or tables, ignore_index=True)
    table["item"] = dataset.id2token(dataset.iid_field, table["item"].to_numpy()).astype(str)
    table.insert(3, "title", table["item"].map(titles_of(config)).fillna(""))
    return table


def _check(dataset: SequentialDataset, users: list[str], k: int) -> None:
    unknown = [user for user in users if user not in dataset.field2token_id[dataset.uid_field]]
    if unknown:
        raise InputError(
            f"{dataset.dataset_name} has no user {unknown[0]!r} ({len(unknown)} of the {len(users)} asked for are "
            "unknown): name users as its .inter file does, and such as its filters keep."
        )
    if not isinstance(k, int) or not 1 <= k < dataset.item_num:
        raise InputError(
            f"k is {k!r}, but must be a whole number from 1 to the {dataset.item_num - 1} items there are."
        )


def _histories(events: SequentialDataset, users: np.ndarray) -> SequentialDataset:
    """A row for each user, in their order, whose history ends with the user's last event.

    RecBole makes a row of each event, with the history before it: here of one more event of each user.
    """
    whole, rows = copy.copy(events), events.inter_feat
    rows = rows[rows[events.uid_field].isin(users)].sort_values(events.time_field, kind="stable")
    last = rows.drop_duplicates(events.uid_field, keep="last")
    whole.inter_feat = pd.concat([rows, last], ignore_index=True)
    whole._change_feat_format()
    numbers = whole.inter_feat[events.uid_field].numpy()
    place = {user: row for row, user in enumerate(numbers.tolist())}  # the last row of each
    return whole.copy(whole.inter_feat[[place[user] for user in users.tolist()]])


@torch.no_grad()
def _rank(
    config: Config, model: AbstractRecommender, histories: SequentialDataset, users: np.ndarray, k: int
) -> tuple[Tensor, Tensor]:
    """Scores and item ids [U, k], best first; -inf where there is no further item."""
    if isinstance(model, GenerativeRecommender):  # which searches as wide as asked for
        samples = samples_of(histories).to(config["device"])
        items, scores = model.rank_batch(samples.batch(torch.arange(len(samples))), k)
        scores = scores.masked_fill(items == 0, -torch.inf)
    else:
        loader = FullSortEvalDataLoader(config, histories, None, shuffle=False)
        scores, items = full_sort_topk(users, model, loader, k, config["device"])
    return scores.cpu(), items.cpu()


def titles_of(config: Config) -> dict[str, str]:
    """Item -> its title; empty where the data set has no .item file or no column of words in it."""
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    if not path.is_file():
        return {}
    form = file_form(config)
    names = read_header(path, **form)
    words = [name for name in names if name.endswith((":token", ":token_seq"))]
    words = title_first(name for name in words if name.split(":")[0] != config["ITEM_ID_FIELD"])
    items = [name for name in names if name.split(":")[0] == config["ITEM_ID_FIELD"]]
    if not words or not items:
        return {}
    table = read_table(path, {items[0]: str, words[0]: str}, **form)
    return dict(zip(table[items[0]], table[words[0]]))
