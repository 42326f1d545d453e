"""``python -m recbole_stream.reporting``, as it is typed."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_stream.reporting.__main__ import main
from recbole_stream.reporting.curves import curves_file, read_curves, write_curves
from recbole_stream.reporting.ranks import ranks_file, read_ranks, row_metric, write_ranks
from recbole_stream.reporting.results import Row, read_results, write_results

CHECKOUT = Path(__file__).parents[2]
N = 60


def store(folder, seed, models, offset=0):
    """A run of ``models`` (name or name-stage) with random ranks."""
    generator, rows = np.random.default_rng(seed), []
    names = [f"u{number}" for number in range(offset, N + offset)]
    users = pd.DataFrame({"user": names, "target": [f"i{n}" for n in names], "history_length": 5, "popularity": 3})
    for name in models:
        model, _, stage = name.partition("-")
        rows.append(Row(model, stage, "tiny", seed, {}, {}, 1.0, 1.0, 1, stage != "PT"))
        write_ranks(ranks_file(folder, model, stage, seed), users, generator.integers(0, 11, N), 10)
    write_results(folder, rows, {})


@pytest.fixture
def runs(tmp_path):
    store("a", 1, ["TIGER", "SASRec"])
    store("b", 2, ["TIGER", "STREAMRec-PT", "STREAMRec-RL"])
    store("other", 3, ["TIGER"], offset=1)
    return tmp_path


def table(folder):
    return [(line["a"], line["b"], line["metric"]) for line in csv.DictReader(Path(folder, "comparison.csv").open())]


def test_in_a_process_of_its_own(runs):
    result = subprocess.run(
        [sys.executable, "-m", "recbole_stream.reporting", "compare", "a", "b", "--metric=NDCG@10,recall@5", "--output=out"],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "TIGER (a)" in result.stdout and "Holm-corrected" in result.stdout
    assert result.stdout.rstrip().endswith("Written to out")
    assert table("out") == [("TIGER (a)", "TIGER (b)", "ndcg@10"), ("TIGER (a)", "TIGER (b)", "recall@5")]
    assert {path.name for path in Path("out").iterdir()} == {"comparison.md", "comparison.tex", "comparison.csv"}


def test_no_rank_is_read_by_recbole(runs):
    """The room itself knows nothing of RecBole; only the package's own import does."""
    for file in (CHECKOUT / "recbole_stream" / "reporting").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "import recbole\n" not in text and "from recbole." not in text and "recbole_stream.host" not in text, (
            file
        )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["a", "b", "--models=SASRec:TIGER,TIGER"], [("SASRec", "TIGER"), ("TIGER (a)", "TIGER (b)")]),
        (["b", "b", "--models=STREAMRec:TIGER,STREAMRec-RL:STREAMRec-PT"],
         [("STREAMRec", "TIGER"), ("STREAMRec-RL", "STREAMRec-PT")]),
    ],
)  # fmt: skip
def test_models_and_stages_by_name(runs, options, expected):
    assert main(["compare", *options, "--output=out"]) == 0
    assert [pair[:2] for pair in table("out")] == expected


def test_runs_that_share_no_model_are_compared_crosswise(runs):
    store("c", 4, ["GRU4Rec", "Caser"])
    assert main(["compare", "a", "c", "--output=out"]) == 0
    assert [pair[:2] for pair in table("out")] == [
        ("TIGER", "GRU4Rec"), ("TIGER", "Caser"), ("SASRec", "GRU4Rec"), ("SASRec", "Caser"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The following arguments are required: command"),
        (["compare", "a"], "The following arguments are required: RUN_B"),
        (["compare", "a", "b", "--metrik=x"], "Unrecognized arguments: --metrik=x"),
        (["compare", "a", "nowhere"], "nowhere/results.json does not exist"),
        (["compare", "a", "a"], "A run equals itself"),
        (["compare", "a", "b", "--metric=gauc"], "'gauc' does not follow from ranks"),
        (["compare", "a", "b", "--metric="], "--metric names none"),
        (["compare", "a", "b", "--metric=recall@50"], "Ranks are known down to 10"),
        (["compare", "a", "b", "--models=BERT4Rec"], "a has no model 'BERT4Rec' but TIGER, SASRec"),
        (["compare", "a", "b", "--models=A:B:C"], "must be MODEL or MODEL_OF_A:MODEL_OF_B"),
        (["compare", "a", "other"], "not tested on the same users and items"),
        (["compare", "a", "b", "--output=a/results.json"], "cannot be made"),
        (["table", "a", "nowhere"], "nowhere/results.json does not exist"),
        (["table", "a", "a"], "a has TIGER with seed 1 as a run before it"),
        (["table", "a:TIGER,STREAMRec", "b"], "a has no model 'STREAMRec' but TIGER, SASRec."),
        (["table", "nowhere:TIGER"], "nowhere/results.json does not exist"),
        (["report", "nowhere"], "nowhere/results.json does not exist"),
        (["table"], "The following arguments are required: RUN"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(runs, arguments, message, capsys):
    if arguments and arguments[0] != "report" and not arguments[-1].startswith("--output"):
        arguments = [*arguments, "--output=out"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("Error: ") and error.count("\n") == 1
    assert not Path("out").exists()


def test_a_table_of_several_runs(runs, capsys):
    assert main(["table", "a", "b", "--output=out"]) == 0
    lines = list(csv.DictReader(Path("out/table.csv").open()))
    assert [(line["model"], line["stage"], line["seed"]) for line in lines] == [
        ("TIGER", "", "1"), ("SASRec", "", "1"), ("TIGER", "", "2"), ("STREAMRec", "PT", "2"), ("STREAMRec", "RL", "2"),
        ("TIGER", "", "mean"), ("TIGER", "", "deviation"),
    ]  # fmt: skip
    tables = {"table.md", "table.tex", "table.csv"}
    assert {path.name for path in Path("out").iterdir()} == tables | {"results.json", "ranks"}
    assert "RL (final)" in capsys.readouterr().out


def test_the_folder_of_a_table_is_a_run_to_the_other_commands(runs):
    write_curves(
        curves_file("b", "STREAMRec", 2), [{"stage": "PT", "valid": {}, "epoch": 0, "seconds": 1.0, "curves": []}]
    )
    assert main(["table", "a", "b", "--output=out"]) == 0
    assert main(["compare", "out", "out", "--models=STREAMRec:SASRec,TIGER:SASRec", "--output=out"]) == 0
    (_, by_both) = csv.DictReader(Path("out/comparison.csv").open())
    ndcg = [
        np.mean(row_metric(read_ranks(run, model, "", seed)["rank"], "ndcg@10"))
        for run, model, seed in (("a", "TIGER", 1), ("b", "TIGER", 2), ("a", "SASRec", 1))
    ]
    assert float(by_both["mean_a"]) == pytest.approx((ndcg[0] + ndcg[1]) / 2)
    assert float(by_both["mean_b"]) == pytest.approx(ndcg[2])
    assert read_results("out") == read_results("a") + read_results("b")
    assert read_curves("out", "STREAMRec", 2) == read_curves("b", "STREAMRec", 2)
    assert main(["report", "out"]) == 0


def test_a_table_again_keeps_no_ranks_that_the_run_has_lost(runs):
    assert main(["table", "a", "b", "--output=out"]) == 0
    ranks_file("a", "SASRec", "", 1).unlink()
    assert main(["table", "b", "a", "--output=out"]) == 0
    assert [row.model for row in read_results("out")] == ["TIGER", "STREAMRec", "STREAMRec", "TIGER", "SASRec"]
    assert not ranks_file("out", "SASRec", "", 1).exists()


def test_a_table_again_of_fewer_runs_keeps_nothing_of_the_others(runs):
    write_curves(curves_file("b", "TIGER", 2), [{"stage": "", "valid": {}, "epoch": 0, "seconds": 1.0, "curves": []}])
    assert main(["table", "a", "b", "--output=out"]) == 0
    assert main(["compare", "out", "out", "--models=TIGER:STREAMRec", "--output=out"]) == 0
    assert main(["report", "out"]) == 0
    Path("out/notes.txt").write_text("mine")
    assert main(["table", "a", "--output=out"]) == 0
    assert {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()} == {
        "results.json", "table.md", "table.tex", "table.csv", "ranks/TIGER-seed1.parquet", "ranks/SASRec-seed1.parquet",
        "notes.txt",
    }  # fmt: skip


def test_some_models_of_a_run(runs):
    store("longer", 2, ["TIGER"])
    assert main(["table", "b", "longer", "--output=out"]) == 2
    assert main(["table", "b:STREAMRec", "longer", "a:SASRec,TIGER", "--output=out"]) == 0
    assert [(row.model, row.seed) for row in read_results("out")] == [
        ("STREAMRec", 2), ("STREAMRec", 2), ("TIGER", 2), ("TIGER", 1), ("SASRec", 1),
    ]  # fmt: skip
    assert read_ranks("out", "TIGER", "", 2).equals(read_ranks("longer", "TIGER", "", 2))


def test_a_run_is_not_written_over(runs, capsys):
    Path("other", "command.json").write_text("{}")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for folder in ("a", "other"):
        assert main(["table", "a", "b", f"--output={folder}"]) == 2
        assert (
            capsys.readouterr().err == f"Error: {folder} holds a run: name another folder for what several runs have.\n"
        )
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_report(runs, capsys):
    assert main(["report", "a"]) == 0
    assert capsys.readouterr().out == "Written to a/report.html\n"
    assert "SASRec" in Path("a/report.html").read_text(encoding="utf-8")


def test_missing_and_torn_ranks_are_one_sentence(runs, capsys):
    file = ranks_file("b", "TIGER", "", 2)
    file.write_bytes(file.read_bytes()[:80])
    assert main(["compare", "a", "b", "--output=out"]) == 2
    assert "TIGER-seed2.parquet is torn or holds no ranks: train TIGER again." in capsys.readouterr().err
    file.unlink()
    assert main(["compare", "a", "b", "--output=out"]) == 2
    assert "There is no b/ranks/TIGER-seed2.parquet" in capsys.readouterr().err
    assert not Path("out").exists()
