"""The command line from end to end: rows, files, resume, and one sentence for bad input."""

import json
from pathlib import Path

import pytest
import torch

from recbole_stream.host.run.commands import main


def test_streamrec_gives_a_row_for_each_stage_and_all_files(small, capsys):
    assert main(["--model=STREAMRec", "--output_dir=out", *small]) == 0
    rows = json.loads(Path("out/results.json").read_text())
    assert [(row["model"], row["stage"]) for row in rows] == [
        ("TIGER", ""), ("STREAMRec", "PT"), ("STREAMRec", "SFT"), ("STREAMRec", "RL"),
        ("STREAMRec", "States"), ("STREAMRec", "Deliberation"),
    ]  # fmt: skip
    for row in rows:
        assert set(row["test"]) == {"recall@5", "recall@10", "ndcg@5", "ndcg@10"}
        assert row["train_seconds"] > 0 and row["rank_seconds_per_1000_users"] > 0
        assert row["seed"] == 2020 and row["dataset"] == "tiny"
        assert {"versions", "encoder", "device", "command", "configuration"} <= set(row["run"])
    best = max((row for row in rows if row["model"] == "STREAMRec"), key=lambda row: row["valid"]["ndcg@10"])
    assert [row for row in rows if row["model"] == "STREAMRec" and row["final"]] == [best]
    # the twin has the same sizes and, beside its time, the same number of parameters that rank; the tower adds its own
    *written, states, deliberation = [row["parameters"] for row in rows]
    # where the generative view is dropped, the writer takes no part in the last row
    kept = torch.load("out/checkpoints/STREAMRec-seed2020-Deliberation.pth", weights_only=False)["state_dict"]
    generates = bool(kept["network.deliberation.weights"][0] != 0)
    assert set(written) == {written[0]} and deliberation == generates * written[0] + states
    for name in ("table.md", "table.tex", "table.csv", "tokenizer.json", "tokenizer.png", "report.html"):
        assert Path("out", name).stat().st_size > 0
    assert Path("out/run.log").exists()
    assert len(list(Path("out/checkpoints").glob("*.pth"))) == 6
    printed = capsys.readouterr().out
    assert "STREAMRec" in printed and "Written to out" in printed


def test_a_list_mixes_ours_with_recboles_in_the_order_given(small):
    assert main(["--model=SASRec,TIGER", "--output_dir=out", *small]) == 0
    rows = json.loads(Path("out/results.json").read_text())
    assert [row["model"] for row in rows] == ["SASRec", "TIGER"]
    assert rows[0]["run"]["configuration"]["MAX_ITEM_LIST_LENGTH"] == 20
    assert rows[0]["run"]["configuration"]["eval_args"] == rows[1]["run"]["configuration"]["eval_args"]


def test_resume_takes_finished_models_as_they_are(small, capsys):
    assert main(["--debug", "--model=TIGER", "--output_dir=out", *small]) == 0
    before = json.loads(Path("out/results.json").read_text())
    assert main(["--resume=out"]) == 0
    assert json.loads(Path("out/results.json").read_text()) == before
    Path("out/results.json").write_text("[]")  # as if it had been killed before its end
    assert main(["--resume=out"]) == 0
    again = json.loads(Path("out/results.json").read_text())
    # the record names the command that can be repeated, not the one that went on
    assert "--model=TIGER" in again[0]["run"]["command"] and again[0]["run"]["command"] == before[0]["run"]["command"]
    capsys.readouterr()
    assert main(["--model=TIGER", "--output_dir=out", *small]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["--resume=out", "--epochs=9"]) == 2
    assert "epochs is another one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=SASRec", "--topk=[5,20]"], "valid_metric is NDCG@10, which is not among metrics"),
        (["--model=STREAMREC"], "There is no model 'STREAMREC'"),
        (["--model=TIGER", "--learning_rat=1"], "did you mean 'learning_rate'"),
        (["--model=TIGER", "--dataset=nowhere"], "There is no data set 'nowhere'"),
        (["--model=TIGER", "--config_files=none.yaml"], "There is no configuration file none.yaml"),
        (["--model=TIGER", "oops"], "'oops' is not an option"),
        (["--model=TIGER", "--dropout=2"], "dropout is 2, but must be"),
        (["--resume=nothing"], "holds no run"),
        (["--dataset=ml-100k"], "No model is named"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_status_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert error.count("\n") == 1


def test_debug_shows_the_traceback(capsys):
    assert main(["--model=TIGER", "--dropout=2", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_download_that_fails_names_the_data_set_and_leaves_no_folder(monkeypatch, capsys):
    from urllib.error import URLError

    from recbole.data.dataset import dataset

    def no_network(url):
        raise URLError("no network")

    monkeypatch.setattr(dataset, "decide_download", no_network)  # the first step that asks the network
    Path("dataset").mkdir()
    assert main(["--model=SASRec", "--dataset=amazon-beauty", "--output_dir=out"]) == 2
    error = capsys.readouterr().err
    assert "The data set 'amazon-beauty' could not be downloaded (no network)" in error
    assert not Path("dataset/amazon-beauty").exists()
