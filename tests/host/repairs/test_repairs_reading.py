"""What RecBole has read, whoever asks it to: names, quotes, dates, times that are missing, ready histories."""

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation

from recbole_stream.errors import InputError
from tests.cases import EVENTS, TITLES, write_atomic, write_case, write_split

SPLIT = {
    "benchmark_filename": ["train", "valid", "test"],
    "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
    "alias_of_item_id": ["item_id_list"],
}
OWN = {
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "title"]},
}


def load(folder, name, **keys):
    keys = {"train_neg_sample_args": None, "show_progress": False, "state": "error", "data_path": folder} | OWN | keys
    config = Config(model="GRU4Rec", dataset=name, config_dict=keys)
    return config, create_dataset(config)


@pytest.mark.parametrize("case", ["naids", "quoted", "halfquote", "iso"])
def test_a_set_written_otherwise_gives_the_same_inputs(tmp_path, case):
    parts = {}
    for name in ("toy", case):
        config, dataset = load(write_case(tmp_path / name, name), name)
        assert (dataset.user_num - 1, dataset.item_num - 1) == (60, 30)
        built = [loader._dataset for loader in data_preparation(config, dataset)]
        parts[name] = [built[0].item_feat, *(data.inter_feat for data in built)]
    for ours, plain in zip(parts[case], parts["toy"]):
        assert list(ours.interaction) == list(plain.interaction)
        assert all(torch.equal(ours[field], plain[field]) for field in plain.interaction)


def test_names_that_pandas_takes_for_missing(tmp_path):
    dataset = load(write_case(tmp_path, "naids"), "naids")[1]
    assert {"NA", "null"} < set(dataset.field2id_token["item_id"])
    assert {"None", "nan"} < set(dataset.field2id_token["user_id"])


def test_a_quote_that_is_a_part_of_a_name(tmp_path):
    dataset = load(write_case(tmp_path, "halfquote"), "halfquote")[1]
    assert {'"i10', '"i15'} < set(dataset.field2id_token["item_id"])


def test_empty_names_are_missing_still(tmp_path):
    folder = write_atomic(tmp_path, "own", [*EVENTS, ("", "i01", 5), ("u01", "", 6)], list(TITLES.items()))
    assert load(folder, "own")[1].inter_num == len(EVENTS)


def test_events_without_a_time_never_get_the_mean(tmp_path):
    folder = write_case(tmp_path, "notime")
    without = sum(n % 25 == 7 for n in range(len(EVENTS)))
    with pytest.raises(InputError, match=f"{without} events of notime have no timestamp"):
        load(folder, "notime")


def histories(data):
    lists, lengths = data.inter_feat["item_id_list"].numpy(), data.inter_feat["item_length"].numpy()
    names = data.field2id_token["item_id"]
    return [[str(name) for name in names[row[:length]]] for row, length in zip(lists, lengths)]


@pytest.mark.parametrize("width", [3, 20])
def test_ready_histories_hold_the_latest_items(tmp_path, width):
    folder = write_split(tmp_path, "own")
    config, dataset = load(folder, "own", MAX_ITEM_LIST_LENGTH=width, **SPLIT)
    for part, loader in zip(("train", "valid", "test"), data_preparation(config, dataset)):
        data = loader._dataset
        rows = [line.split("\t") for line in (tmp_path / "own" / f"own.{part}.inter").read_text().splitlines()[1:]]
        assert histories(data) == [row[1].split()[-width:] for row in rows]
        assert data.inter_feat["item_id_list"].shape == (len(rows), width)
        # past the history there is nothing
        past = np.arange(width) >= data.inter_feat["item_length"].numpy()[:, None]
        assert not data.inter_feat["item_id_list"].numpy()[past].any()
