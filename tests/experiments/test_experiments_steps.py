"""ReaRec against its steps, from the rows of several runs."""

from pathlib import Path

import pandas as pd
import pytest

from experiments.steps import main
from recbole_stream.reporting.results import Row, write_results


def row(model: str, valid: float, seed: int = 1, **keys: object) -> Row:
    return Row(
        model=model, stage="", dataset="toy", seed=seed, valid={"ndcg@10": valid}, test={"ndcg@10": 0.5},
        train_seconds=1.0, rank_seconds_per_1000_users=1.0, parameters=1, final=True,
        run={"configuration": keys},
    )  # fmt: skip


def test_steps_and_layers_are_points_of_one_plot(tmp_path: Path, capsys):
    steps = [row("ReaRec", 0.10, 1, rearec="erl", rearec_steps=0), row("ReaRec", 0.20, 1, rearec="erl", rearec_steps=2)]
    other = [row("ReaRec", 0.24, 2, rearec="erl", rearec_steps=2), row("Pop", 0.9)]
    layers = [row("SASRec", 0.11, n_layers=2), row("SASRec", 0.12, n_layers=4)]
    for name, rows in (("a", steps), ("b", other), ("c", layers)):
        write_results(tmp_path / name, rows, {})
    assert main([*(str(tmp_path / name) for name in "abc"), "--output", str(tmp_path / "out")]) == 0
    points = pd.read_csv(tmp_path / "out.csv")
    assert points["series"].tolist() == ["ReaRec, erl"] * 2 + ["SASRec, layers instead"] * 2
    assert points["amount"].tolist() == [0, 2, 0, 2]
    assert points["mean"].tolist() == pytest.approx([0.10, 0.22, 0.11, 0.12])  # .22: the mean of two seeds
    assert (tmp_path / "out.png").stat().st_size > 1000
    assert "ReaRec, erl" in capsys.readouterr().out


def test_runs_without_rearec_are_refused(tmp_path: Path, capsys):
    write_results(tmp_path, [row("SASRec", 0.1, n_layers=2)], {})
    assert main([str(tmp_path)]) == 2
    assert "There is no row of ReaRec" in capsys.readouterr().err
