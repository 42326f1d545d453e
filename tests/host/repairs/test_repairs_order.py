"""Rows in the order of time: what RecBole loses by keeping times as float32."""

from pathlib import Path

import pandas as pd
import pytest
import recbole
import torch
from recbole.data import create_dataset
from recbole.data.interaction import Interaction

RECBOLE = Path(recbole.__file__).parent


def test_every_test_item_of_ml100k_is_the_users_last(config):
    file = RECBOLE / "dataset_example" / "ml-100k" / "ml-100k.inter"
    rows = pd.read_csv(file, sep="\t", dtype={"user_id:token": str, "item_id:token": str})
    rows.columns = ["user", "item", "rating", "time"]
    last = rows.assign(row=rows.index).sort_values(["user", "time", "row"]).groupby("user").item.last()

    dataset = create_dataset(config("ml-100k", normalize_all=False, MAX_ITEM_LIST_LENGTH=5))
    test = dataset.build()[2]
    users = dataset.id2token("user_id", test.inter_feat["user_id"])
    items = dataset.id2token("item_id", test.inter_feat["item_id"])
    different = sum(last[user] != item for user, item in zip(users, items))
    assert (len(users), different) == (943, 0)


def test_histories_are_in_the_order_of_time_then_of_the_file(tmp_path, toy):
    # float32 cannot tell 1600000000 from 1600000002: its step there is 128
    rows = "c\tx\t1600000005\nc\tz\t1600000005\nc\ty\t1600000005\n"
    with (tmp_path / "data" / "toy" / "toy.inter").open("a") as file:
        file.write(rows)
    test = create_dataset(toy()).build()[2]
    told = {
        str(test.id2token("user_id", user)): "".join(test.id2token("item_id", [*history, target]))
        for user, history, target in zip(
            test.inter_feat["user_id"], test.inter_feat["item_id_list"][:, :2], test.inter_feat["item_id"]
        )
    }
    assert told == {"a": "yxz", "b": "yzx", "c": "xzy"}


@pytest.mark.parametrize("keys", [{"numerical_features": ["timestamp"]}, {"rm_dup_inter": "first"}])
def test_other_ways_of_reading_times_keep_the_order(toy, keys):
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    test = create_dataset(toy(load_col=columns, **keys)).build()[2]
    last = dict(
        zip(
            test.id2token("user_id", test.inter_feat["user_id"]),
            test.id2token("item_id", test.inter_feat["item_id"]),
        )
    )
    assert last == {"a": "z", "b": "x"}


def test_duplicates_at_one_time_keep_the_first_row_of_the_file(tmp_path, config):
    folder = tmp_path / "data" / "double"
    folder.mkdir(parents=True)
    # 40 users who rate the same two items at the same time, 1 star first and then 5
    rows = [f"u{user}\t{item}\t{stars}\t7\n" for user in range(40) for stars in (1, 5) for item in "xy"]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "double.inter").write_text(head + "".join(rows))
    dataset = create_dataset(
        config(
            "double",
            data_path=str(folder.parent),
            rm_dup_inter="first",
            load_col={"inter": ["user_id", "item_id", "rating", "timestamp"]},
        )
    )
    assert dataset.inter_feat["rating"].tolist() == [1] * 80


def test_random_order_stays_recboles(toy):
    settings = toy(model="BPR", eval_args={"order": "RO", "split": {"RS": [1, 1, 1]}})
    dataset = create_dataset(settings)
    before = dataset.inter_feat["item_id"].tolist()
    dataset._change_feat_format()
    assert dataset.inter_feat["item_id"].tolist() == before


def test_sorting_is_stable_in_both_directions():
    interaction = Interaction({"key": torch.tensor([1, 2, 1, 2]), "row": torch.arange(4)})
    interaction.sort("key")
    assert interaction["row"].tolist() == [0, 2, 1, 3]
    interaction.sort("key", ascending=False)
    assert interaction["row"].tolist() == [1, 3, 0, 2]
