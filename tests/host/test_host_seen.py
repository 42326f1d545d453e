"""leave_out_seen: the same rule for every sequential model and through every door, over the whole history."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils.case_study import full_sort_scores, full_sort_topk

import recbole_stream
from recbole_stream.errors import InputError
from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.run.commands import main
from recbole_stream.host.seen import seen_of

ARGUMENTS = [
    "--dataset=tiny", "--text_fields=[movie_title]", "--codebook_size=32", "--codebook_levels=3", "--hidden_size=16",
    "--inner_size=32", "--n_heads=2", "--head_size=8", "--encoder_layers=1", "--decoder_layers=1", "--beam_size=40",
    "--epochs=1", "--show_progress=False", "--use_gpu=False", "--MAX_ITEM_LIST_LENGTH=5",
]  # fmt: skip

SAMPLED = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni50"}


def had_before(data_path, user, hidden):
    """Items of a user in the file, but for those of the ``hidden`` last events."""
    rows = [line.split("\t") for line in Path(data_path, "tiny", "tiny.inter").read_text().splitlines()[1:]]
    events = sorted((row for row in rows if row[0] == user), key=lambda row: float(row[3]))
    return {row[1] for row in events[: len(events) - hidden]}


@pytest.fixture(scope="module")
def ranked(module_tiny_ml100k, tmp_path_factory):
    """Two runs with the same weights of one epoch: one with the rule and one without."""
    root = tmp_path_factory.mktemp("seen")
    for folder, key in (("all", "False"), ("unseen", "True")):
        arguments = [f"--output_dir={root / folder}", f"--leave_out_seen={key}", "--topk=[10,20]", *ARGUMENTS]
        arguments += [f"--data_path={module_tiny_ml100k}", f"--cache_dir={root / 'cache'}"]
        assert main(["--model=SASRec,TIGER", *arguments]) == 0
    return root


def test_a_run_ranks_the_targets_among_what_the_users_never_had(ranked, module_tiny_ml100k):
    file = "ranks/SASRec-seed2020.parquet"
    everything, unseen = (pd.read_parquet(ranked / folder / file).set_index("user") for folder in ("all", "unseen"))
    # SASRec ranks the whole catalogue: its scores say what is left out above each target
    with quiet_argv():
        _, model, dataset, _, _, test = load_data_and_model(str(ranked / "all" / "checkpoints" / "SASRec-seed2020.pth"))
    users = list(everything.index)
    scores = full_sort_scores(np.array(dataset.token2id("user_id", users)), model, test)
    for user, row in zip(users, scores):
        target = row[dataset.token2id("item_id", everything["target"][user])]
        had = torch.from_numpy(dataset.token2id("item_id", sorted(had_before(module_tiny_ml100k, user, 1))))
        assert everything["rank"][user] - unseen["rank"][user] == (row[had] > target).sum(), user
    assert (everything["rank"] - unseen["rank"]).max() > 5  # more than a history of 5 items holds
    for row in json.loads((ranked / "unseen" / "results.json").read_text()):
        assert row["run"]["configuration"]["leave_out_seen"] is True


@pytest.mark.parametrize("name", ["SASRec-seed2020", "TIGER-seed2020-TIGER"])
def test_a_checkpoint_keeps_the_rule(ranked, module_tiny_ml100k, name):
    file = ranked / "unseen" / "checkpoints" / f"{name}.pth"
    with quiet_argv():
        _, model, dataset, _, valid, test = load_data_and_model(str(file))
    users = ["1", "6", "13"]
    for split, hidden in ((valid, 2), (test, 1)):
        _, items = full_sort_topk(np.array(dataset.token2id("user_id", users)), model, split, 10)
        for user, best in zip(users, dataset.id2token("item_id", items)):
            assert not had_before(module_tiny_ml100k, user, hidden).intersection(best)
    table = recbole_stream.recommend(file, users, 10)
    for user, best in table.groupby("user")["item"]:
        assert len(best) == 10 and not had_before(module_tiny_ml100k, user, 0).intersection(best)


def test_a_ranking_is_the_one_without_the_rule_less_what_is_seen(ranked):
    """TIGER searches: what is left keeps its order and is filled up by wider searches."""
    with quiet_argv():
        _, model, _, _, _, test = load_data_and_model(str(ranked / "unseen/checkpoints/TIGER-seed2020-TIGER.pth"))
    model.eval()
    batch = samples_of(test._dataset).batch(torch.arange(20))
    few, _ = model.rank_batch(batch, 5)
    many, scores = model.rank_batch(batch, 40)  # as many as are searched, of which some are seen
    searched, _ = model.rank(batch.histories, 40)
    widened = 0
    for row in range(20):
        had = set(batch.seen.take(torch.tensor([row])).index()[1].tolist())
        left = [item for item in searched[row].tolist() if item not in had]
        widened += len(left) < 40
        if len(left) >= 5:
            assert few[row].tolist() == left[:5]
        assert len(set(many[row].tolist()) - had - {0}) == 40
    assert widened > 0 and scores.isfinite().all() and (scores.diff() <= 0).all()


def test_stock_recbole_takes_the_key(module_tiny_ml100k, tmp_path):
    keys = {
        "data_path": module_tiny_ml100k, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "epochs": 1,
        "train_neg_sample_args": None, "checkpoint_dir": str(tmp_path / "saved"), "hidden_size": 16, "use_gpu": False,
        "leave_out_seen": True, "MAX_ITEM_LIST_LENGTH": 5, "show_progress": False, "topk": [5], "valid_metric": "MRR@5",
    }  # fmt: skip
    result = run_recbole(model="GRU4Rec", dataset="tiny", config_dict=keys)
    (file,) = (tmp_path / "saved").iterdir()
    _, model, dataset, _, _, test = load_data_and_model(str(file))
    users = test._dataset.inter_feat["user_id"]
    scores, items = full_sort_topk(users.numpy(), model, test, 5)
    for user, best in zip(dataset.id2token("user_id", users), dataset.id2token("item_id", items)):
        assert not had_before(module_tiny_ml100k, user, 1).intersection(best)
    hits = (items == test._dataset.inter_feat["item_id"][:, None]).any(1)
    assert result["test_result"]["recall@5"] == pytest.approx(hits.double().mean().item(), abs=1e-4)


def test_ready_histories_leave_out_what_their_files_say(tmp_path):
    folder = tmp_path / "ready"
    folder.mkdir()
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    rows = {"train": "u\ta b\tc\nv\tc\ta\n", "valid": "u\tb c\td\nv\tc a\tb\n", "test": "u\tc d\te\nv\ta b\td\n"}
    for part, lines in rows.items():
        (folder / f"ready.{part}.inter").write_text(head + lines)
    keys = {
        "data_path": str(tmp_path), "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id", "item_id_list"]}, "train_neg_sample_args": None, "use_gpu": False,
        "MAX_ITEM_LIST_LENGTH": 2, "leave_out_seen": True,
    }  # fmt: skip
    config = Config(model="SASRec", dataset="ready", config_dict=keys)
    dataset = create_dataset(config)
    for loader, expected in zip(data_preparation(config, dataset)[1:], (["abc", "ac"], ["abcd", "abc"])):
        seen = seen_of(loader._dataset, loader._dataset.inter_feat)
        for row, items in enumerate(expected):
            own = seen.take(torch.tensor([row])).index()[1]
            assert "".join(sorted(dataset.id2token("item_id", own))) == items


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"leave_out_seen": "maybe"}, "leave_out_seen is 'maybe', but must be True or False"),
        ({"repeatable": False}, "leave it out, and set leave_out_seen to True"),
        ({"leave_out_seen": True, "eval_args": SAMPLED}, "the mode of eval_args is uni50: set it to full"),
    ],
)
def test_what_cannot_be_is_one_sentence(module_tiny_ml100k, keys, message):
    keys = {"data_path": module_tiny_ml100k, "train_neg_sample_args": None, "use_gpu": False} | keys
    with pytest.raises(InputError, match=message):
        config = Config(model="SASRec", dataset="tiny", config_dict=keys)
        data_preparation(config, create_dataset(config))
