"""Ranks of the test users: from scores, from a search, and against RecBole's own evaluator."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct

from recbole_stream.host.run import job
from recbole_stream.host.run.commands import main
from recbole_stream.host.run.ranking import hit_ranks, join_shares, rank_users, target_ranks
from recbole_stream.reporting.curves import read_curves
from recbole_stream.reporting.ranks import mean_metric, read_ranks, row_metric

SMALL = [
    "--dataset=tiny", "--text_fields=[movie_title]", "--codebook_size=32", "--codebook_levels=3", "--hidden_size=16",
    "--inner_size=32", "--n_heads=2", "--head_size=8", "--encoder_layers=1", "--decoder_layers=1", "--beam_size=10",
    "--epochs=2", "--metrics=[Recall,NDCG,MRR,Hit,Precision]", "--topk=[1,5,10]", "--show_progress=False",
    "--use_gpu=False",
]  # fmt: skip


def test_ranks_from_scores():
    scores = torch.tensor([[-torch.inf, 0.1, 0.4, 0.3, 0.2]]).repeat(4, 1)
    # best first: items 2, 3, 4, 1
    assert target_ranks(scores, torch.tensor([2, 3, 4, 1])).tolist() == [1, 2, 3, 4]


def test_among_equals_the_top_k_decides():
    scores = torch.tensor([[-torch.inf, 1.0, 1.0, 1.0, 0.0]]).repeat(3, 1)
    # top-2 took items 3 and 1: item 1 is second, item 3 first, item 2 the last of the three equals
    hits = torch.tensor([[0, 1], [0, 0], [1, 0]])
    assert target_ranks(scores, torch.tensor([1, 2, 3]), hits).tolist() == [2, 3, 1]


def test_ranks_from_hits():
    assert hit_ranks(torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, 0]])).tolist() == [3, 1, 0]


def test_shares_of_several_processes_become_one():
    # users 0 to 6 among three processes
    assert join_shares([torch.tensor([0, 3, 6]), torch.tensor([1, 4]), torch.tensor([2, 5])]).tolist() == list(range(7))


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_ranks_equal_recboles_to_the_last_bit(seed):
    n, topk, names = 997, [1, 3, 5, 10, 20], ["Recall", "NDCG", "MRR", "MAP", "Hit", "Precision"]
    ranks = np.random.default_rng(seed).integers(0, 41, n)  # 0 was not reached
    hits = torch.zeros(n, max(topk) + 1, dtype=torch.int)
    for row, rank in enumerate(ranks):
        if 1 <= rank <= max(topk):
            hits[row, rank - 1] = 1
    hits[:, -1] = 1
    struct = DataStruct()
    struct.set("rec.topk", hits)
    for places in (4, 6, 17):
        theirs = Evaluator({"metrics": names, "topk": topk, "metric_decimal_place": places}).evaluate(struct)
        assert len(theirs) == 30
        for metric, value in theirs.items():
            assert round(mean_metric(row_metric(ranks, metric)), places) == value, metric


def test_ranks_reproduce_the_results_of_both_kinds_of_model(tiny_ml100k, tmp_path):
    command = ["--model=TIGER,SASRec", "--output_dir=out", *SMALL, f"--data_path={tiny_ml100k}"]
    assert main([*command, f"--cache_dir={tmp_path}/cache", "--train_batch_size=256"]) == 0
    events = pd.read_csv(
        Path(tiny_ml100k, "tiny", "tiny.inter"), sep="\t", dtype={"item_id:token": str, "user_id:token": str}
    )
    events.columns = [column.split(":")[0] for column in events]
    events = events.sort_values(["user_id", "timestamp"], kind="stable")
    histories = events.groupby("user_id")["item_id"].agg(list)
    popularity = pd.Series(np.concatenate([items[:-2] for items in histories])).value_counts()

    rows = json.loads(Path("out/results.json").read_text())
    assert [row["model"] for row in rows] == ["TIGER", "SASRec"]
    for row in rows:
        ranks = read_ranks("out", row["model"], row["stage"], row["seed"])
        for metric, value in row["test"].items():
            assert round(mean_metric(row_metric(ranks["rank"], metric, ranks.attrs["depth"])), 6) == value, metric
        assert sorted(ranks["user"]) == sorted(histories.index)
        assert list(ranks["target"]) == [histories[user][-1] for user in ranks["user"]]
        assert list(ranks["history_length"]) == [len(histories[user]) - 1 for user in ranks["user"]]
        assert list(ranks["popularity"]) == [popularity.get(item, 0) for item in ranks["target"]]
    tiger, sasrec = (read_ranks("out", name, "", 2020) for name in ("TIGER", "SASRec"))
    assert tiger.attrs["depth"] == 10 and tiger["rank"].max() <= 10 and tiger["rank"].isna().any()
    # scores rank the whole catalogue
    assert sasrec.attrs["depth"] == events["item_id"].nunique() >= sasrec["rank"].max() > 10
    assert not sasrec["rank"].isna().any()

    for row in rows:
        (stage,) = read_curves("out", row["model"], row["seed"])
        assert stage["stage"] == "" and stage["valid"] == row["valid"] and 0 <= stage["epoch"] < 2
        assert len(stage["curves"]) == 2 and all(epoch["loss"] > 0 for epoch in stage["curves"])
        assert stage["curves"][stage["epoch"]]["valid"] == row["valid"]["ndcg@10"]
        assert stage["seconds"] == pytest.approx(row["train_seconds"], abs=0.06)


def test_users_with_several_test_rows_count_once_and_the_metrics_asked_for_are_shown(tiny_ml100k, monkeypatch, capsys):
    took = []

    def timed(*arguments):
        began = time.perf_counter()
        ranked = rank_users(*arguments)
        took.append(time.perf_counter() - began)
        return ranked

    monkeypatch.setattr(job, "rank_users", timed)
    options = [option for option in SMALL if not option.startswith(("--metrics", "--topk", "--epochs", "--text"))]
    split = "--eval_args={split: {RS: [0.8,0.1,0.1]}, order: TO, group_by: ~, mode: full}"
    asked = ["--metrics=[MRR,Hit]", "--topk=[20]", "--valid_metric=MRR@20", split, "--epochs=1"]
    options = [
        option
        for option in options
        if not option.startswith(("--codebook", "--head", "--encoder", "--decoder", "--beam"))
    ]
    assert main(["--model=SASRec,GRU4Rec", "--output_dir=out", f"--data_path={tiny_ml100k}", *options, *asked]) == 0

    events = pd.read_csv(Path(tiny_ml100k, "tiny", "tiny.inter"), sep="\t", dtype=str)
    events.columns = [column.split(":")[0] for column in events]
    events = events.assign(timestamp=events["timestamp"].astype(int)).sort_values(
        ["user_id", "timestamp"], kind="stable"
    )
    histories = events.groupby("user_id")["item_id"].agg(list)
    ranks = read_ranks("out", "SASRec", "", 2020)
    users = ranks["user"].nunique()
    assert 20 < users < len(ranks) / 5
    assert all(histories[row.user][row.history_length] == row.target for row in ranks.itertuples())

    rows = json.loads(Path("out/results.json").read_text())
    for row, seconds in zip(rows, took, strict=True):
        assert row["rank_seconds_per_1000_users"] == pytest.approx(
            1000 * seconds / users, rel=0.5
        )  # rows would be over 5 times as many
    lines = list(csv.DictReader(Path("out/comparison.csv").open()))
    assert [(line["metric"], line["users"], line["rows"]) for line in lines] == [
        ("mrr@20", str(users), str(len(ranks))), ("hit@20", str(users), str(len(ranks))),
    ]  # fmt: skip
    gained = np.where(ranks["rank"] <= 20, 1 / ranks["rank"].astype(float), 0.0)
    by_user = pd.Series(gained).groupby(ranks["user"]).mean()
    assert float(lines[0]["mean_b"]) == pytest.approx(by_user.mean())
    assert f"{users} test users with {len(ranks):,} rows" in " ".join(capsys.readouterr().out.split())
    headings = [cell.strip() for cell in Path("out/table.md").read_text().splitlines()[0].split("|")[3:6]]
    assert headings == ["MRR@20", "Hit@20", "valid MRR@20"]
    tex = Path("out/table.tex").read_text()
    assert "MRR@20 & Hit@20 & valid MRR@20" in tex and "NDCG" not in tex and tex.count("& - &") == 2  # the stage
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "Hit@20 of test users by" in page and "Test MRR@20 of every model" in page and "Recall@" not in page


def test_metrics_that_need_scores_leave_ranks_as_they_are(tiny_ml100k, tmp_path):
    command = [*SMALL, f"--data_path={tiny_ml100k}", f"--cache_dir={tmp_path}/cache", "--model=TIGER", "--epochs=1"]
    command = [option for option in command if not option.startswith(("--metrics", "--epochs=2", "--topk", "--beam"))]
    command += [
        "--topk=[50]",
        "--valid_metric=NDCG@50",
        "--beam_size=50",
    ]  # deep enough that even one epoch's model hits on any machine
    assert main([*command, "--output_dir=few", "--metrics=[Recall,NDCG]"]) == 0
    assert main([*command, "--output_dir=many", "--metrics=[Recall,NDCG,GAUC]"]) == 0
    few, many = (read_ranks(folder, "TIGER", "", 2020) for folder in ("few", "many"))
    assert few["rank"].notna().any() and few.equals(many)
    assert many.attrs["depth"] == 50
    rows = [json.loads(Path(folder, "results.json").read_text())[0]["test"] for folder in ("few", "many")]
    assert 0.2 < rows[1].pop("gauc") < 1 and rows[0] == rows[1]
