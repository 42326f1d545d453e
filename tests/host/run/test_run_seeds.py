"""Several seeds: every model with each, resumed between them, and what their table and tests say."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from recbole_stream.host.run import runner
from recbole_stream.host.run.commands import main
from recbole_stream.reporting.curves import read_curves
from recbole_stream.reporting.ranks import mean_metric, ranks_file, read_ranks, row_metric
from recbole_stream.reporting.results import read_results


def test_two_seeds_the_second_after_an_interruption(small, monkeypatch, capsys):
    train = runner.run_job

    def only_the_first_seed(config, *others):
        if config["seed"] == 6:
            raise KeyboardInterrupt
        return train(config, *others)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_job", only_the_first_seed)
        assert main(["--model=TIGER,SASRec", "--seeds=5,6", "--output_dir=out", *small]) == 130
    before = read_results("out")
    assert [(row.model, row.seed) for row in before] == [("TIGER", 5), ("SASRec", 5)]
    assert not Path("out/comparison.md").exists()

    assert main(["--resume=out"]) == 0
    rows = read_results("out")
    assert [(row.model, row.seed) for row in rows] == [("TIGER", 5), ("TIGER", 6), ("SASRec", 5), ("SASRec", 6)]
    assert [row for row in rows if row.seed == 5] == before  # those were not trained again
    for model in ("TIGER", "SASRec"):
        one, other = (row for row in rows if row.model == model)
        assert one.test != other.test or one.valid != other.valid
    for row in rows:
        ranks = read_ranks("out", row.model, "", row.seed)
        for metric, value in row.test.items():
            assert round(mean_metric(row_metric(ranks["rank"], metric)), 6) == value
        assert len(read_curves("out", row.model, row.seed)) == 1

    printed = capsys.readouterr().out
    assert "SASRec" in Path("out/report.html").read_text(encoding="utf-8")
    assert "±" in printed and "Holm-corrected" in printed and "Written to out" in printed
    tiger = next(line for line in Path("out/table.md").read_text().splitlines() if "TIGER" in line)
    mean = np.mean([row.test["ndcg@10"] for row in rows if row.model == "TIGER"])
    deviation = abs(rows[0].test["ndcg@10"] - rows[1].test["ndcg@10"]) / np.sqrt(2)
    assert f"{mean:.4f}" in tiger and f"± {deviation:.4f}" in tiger and "5, 6" in tiger

    # by default against TIGER and SASRec; this pair is one pair
    lines = list(csv.DictReader(Path("out/comparison.csv").open()))
    assert [(line["a"], line["b"], line["metric"]) for line in lines] == [
        ("SASRec", "TIGER", "ndcg@10"), ("SASRec", "TIGER", "recall@10"),
    ]  # fmt: skip
    by_model = {name: [row.test["ndcg@10"] for row in rows if row.model == name] for name in ("TIGER", "SASRec")}
    # stored results are rounded to 6 places
    assert float(lines[0]["difference"]) == pytest.approx(
        np.mean(by_model["SASRec"]) - np.mean(by_model["TIGER"]), abs=2e-6
    )
    assert lines[0]["users"] == "120" and lines[0]["seeds_a"] == "5 6"


def test_semantic_ids_and_weights_follow_the_seed(small):
    assert main(["--model=TIGER", "--seeds=5,6", "--output_dir=both", *small]) == 0
    assert main(["--model=TIGER", "--seed=6", "--output_dir=one", *small]) == 0
    both, one = read_results("both"), read_results("one")
    assert (one[0].valid, one[0].test) == (both[1].valid, both[1].test)
    # a run with one model has nobody to be compared with
    assert not Path("one/comparison.md").exists()
    reports = [json.loads(Path("both", f"tokenizer-seed{seed}", "tokenizer.json").read_text()) for seed in (5, 6)]
    assert reports[0] != reports[1]
    assert reports[1] == json.loads(Path("one/tokenizer.json").read_text())


def test_streamrec_is_tested_with_the_stage_it_keeps(small):
    assert main(["--model=STREAMRec", "--seeds=5,6", "--references=STREAMRec", "--output_dir=out", *small]) == 0
    rows = read_results("out")
    assert [(row.model, row.stage, row.seed) for row in rows] == [
        ("TIGER", "", 5), ("TIGER", "", 6),
        *(("STREAMRec", stage, seed) for seed in (5, 6) for stage in ("PT", "SFT", "RL", "States", "Deliberation")),
    ]  # fmt: skip
    assert all(ranks_file("out", row.model, row.stage, row.seed).is_file() for row in rows)
    lines = list(csv.DictReader(Path("out/comparison.csv").open()))
    assert {(line["a"], line["b"]) for line in lines} == {("TIGER", "STREAMRec")}
    kept = [row.test["recall@10"] for row in rows if row.model == "STREAMRec" and row.final]
    assert len(kept) == 2 and float(lines[1]["mean_b"]) == pytest.approx(np.mean(kept), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds=a"], "--seeds must be whole numbers"),
        (["--seeds="], "--seeds must be whole numbers"),
        (["--seeds"], "--seeds must be whole numbers"),
        (["--seeds=1,-2"], "--seeds must be whole numbers"),
        (["--seeds=1.5"], "--seeds must be whole numbers"),
        (["--seeds=4294967296"], "--seeds must be whole numbers"),
        (["--seeds=1,2,1"], "--seeds names a seed twice"),
        (["--seeds=1,2", "--seed=3"], "Both --seed and --seeds are given"),
        (["--seeds=1,2", "--references=TIGER,Caser"], "--references names 'Caser', which is no model of this run"),
        (["--references"], "--references is True, but must name models"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(small, arguments, message, capsys):
    assert main(["--model=TIGER", "--output_dir=out", *arguments, *small]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("out").exists()
