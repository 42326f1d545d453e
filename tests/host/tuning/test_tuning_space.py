"""Spaces, points of them, records of trials, tables and the picture of a search."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from recbole_stream.errors import InputError
from recbole_stream.host.tuning.plot import plot_search
from recbole_stream.host.tuning.space import (
    Domain,
    Trial,
    best_trial,
    parse_space,
    read_trial,
    sample,
    trials_csv,
    trials_table,
    write_trial,
)

SPACE = {
    "learning_rate": {"loguniform": [1e-4, 1e-2]},
    "temperature": {"uniform": [0.5, 1.5]},
    "dropout": {"quniform": [0.0, 0.5, 0.1]},
    "n_layers": {"randint": [1, 3]},
    "hidden_size": {"choice": [64, 128]},
}


def line(epoch: int, valid: float) -> dict[str, float]:
    return {"epoch": epoch, "valid": valid, "seconds": 2.0 * epoch}


@pytest.fixture
def trials() -> list[Trial]:
    return [
        Trial(1, {"rate": 0.00123456, "size": 64}, "finished", epochs=[line(1, 0.1), line(2, 0.3), line(3, 0.2)],
              valid={"ndcg@10": 0.3, "recall@10": 0.5}, checkpoint="checkpoints/a.pth", nodes=["n1"]),
        Trial(2, {"rate": 0.01, "size": 128}, "failed", error="the loss became NaN", epochs=[line(1, math.nan)]),
        Trial(3, {"rate": 0.02, "size": 64}, "stopped", epochs=[line(1, 0.4)], nodes=["n1", "n2"]),
    ]  # fmt: skip


def test_points_lie_in_the_space_and_have_its_types():
    space = parse_space(SPACE, "space.yaml")
    points = [sample(space, 7, number) for number in range(300)]
    assert all(list(point) == list(SPACE) for point in points)
    rates = np.array([point["learning_rate"] for point in points])
    assert rates.min() >= 1e-4 and rates.max() <= 1e-2
    # log-uniform over two decades: half of the points lie below 1e-3; 300 coins give 150 +- 3 * 8.7
    assert 124 <= (rates < 1e-3).sum() <= 176
    assert all(0.5 <= point["temperature"] <= 1.5 for point in points)
    assert {point["dropout"] for point in points} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert {point["n_layers"] for point in points} == {1, 2, 3}
    assert {point["hidden_size"] for point in points} == {64, 128}
    assert all(type(point["n_layers"]) is int and type(point["learning_rate"]) is float for point in points)


def test_a_point_depends_on_seed_and_number_alone():
    space = parse_space(SPACE, "space.yaml")
    assert sample(space, 1, 5) == sample(space, 1, 5)
    assert sample(space, 1, 5) != sample(space, 1, 6)
    assert sample(space, 1, 5) != sample(space, 2, 5)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "space.yaml holds no space"),
        ({}, "space.yaml holds no space"),
        ([1], "space.yaml holds no space"),
        (
            "learning_rate loguniform -8,0 n_layers choice [1,2]",  # RecBole's hyper.test, as YAML reads it
            "space.yaml is written for RecBole's own tuner (learning_rate loguniform ..): write YAML",
        ),
        ({"dropout": 0.1}, "dropout in space.yaml is 0.1, but must be one distribution"),
        ({"dropout": {"choice": [1], "uniform": [0, 1]}}, "must be one distribution"),
        ({"dropout": {"unifrom": [0, 1]}}, "unknown distribution 'unifrom': did you mean uniform?"),
        ({"dropout": {"zipf": [2]}}, "there are choice, uniform, loguniform, quniform, randint."),
        ({"dropout": {"choice": []}}, "choice takes a list of values, not []"),
        ({"dropout": {"choice": 3}}, "choice takes a list of values, not 3"),
        ({"dropout": {"uniform": [1, 0]}}, "uniform takes [low, high] with low below high, not [1, 0]"),
        ({"dropout": {"uniform": [0, 1, 2]}}, "uniform takes [low, high]"),
        ({"dropout": {"uniform": ["a", "b"]}}, "uniform takes [low, high]"),
        ({"rate": {"loguniform": [0, 1]}}, "loguniform takes [low, high] with low above 0"),
        ({"dropout": {"quniform": [0, 1, 0]}}, "both multiples of the step, not [0, 1, 0]"),
        ({"dropout": {"quniform": [0.1, 0.7, 0.2]}}, "both multiples of the step, not [0.1, 0.7, 0.2]"),
        ({"n_layers": {"randint": [1.5, 3]}}, "randint takes [low, high] in whole numbers"),
    ],
)
def test_a_space_that_cannot_be_used_is_told_in_one_sentence(raw, message):
    with pytest.raises(InputError) as caught:
        parse_space(raw, "space.yaml")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_extremes_are_all_choices_or_both_ends():
    assert Domain("choice", (3, 1, 2)).extremes == (3, 1, 2)
    assert Domain("quniform", (0.0, 0.5, 0.1)).extremes == (0.0, 0.5)


def test_the_best_epoch_and_the_best_of_the_finished(trials):
    assert trials[0].best(bigger=True) == line(2, 0.3)
    assert trials[0].best(bigger=False) == line(1, 0.1)
    assert trials[1].best(bigger=True) is None  # its only validation is no number
    # trial 3 has more, but was stopped: no training of it has ended
    assert best_trial(trials, bigger=True) is trials[0]
    assert best_trial(trials[1:], bigger=True) is None


def test_a_record_is_read_as_it_was_written_but_for_a_torn_line(tmp_path, trials):
    write_trial(tmp_path / "003", trials[2])
    (tmp_path / "003" / "epochs.jsonl").write_text('{"epoch": 1, "valid": 0.4, "seconds": 2.0}\n{"epoch": 2, "val')
    assert read_trial(tmp_path / "003") == trials[2]
    with pytest.raises(InputError, match="holds no trial"):
        read_trial(tmp_path / "004")


def test_the_table_shows_every_trial_and_why_one_failed(trials):
    lines = trials_table(trials, "ndcg@10", bigger=True).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in lines[:5]]
    assert cells[0] == ["Trial", "State", "rate", "size", "valid NDCG@10", "best epoch", "epochs", "seconds"]
    assert cells[2] == ["1", "finished", "0.001235", "64", "**0.3000**", "2", "3", "6.0"]
    assert cells[3] == ["2", "failed", "0.01", "128", "-", "-", "1", "2.0"]
    assert cells[4] == ["3", "stopped", "0.02", "64", "0.4000", "1", "1", "2.0"]
    assert lines[-1] == "Trial 2 failed: the loss became NaN"


def test_the_csv_has_what_the_table_rounds_away(trials):
    first, failed, stopped = csv.DictReader(io.StringIO(trials_csv(trials, "ndcg@10", bigger=True)))
    assert first["rate"] == "0.00123456" and first["valid_recall@10"] == "0.5"
    assert first["checkpoint"] == "checkpoints/a.pth" and first["best_epoch"] == "2"
    assert failed["error"] == "the loss became NaN" and failed["best_ndcg@10"] == ""
    assert stopped["nodes"] == "n1 n2" and stopped["best_ndcg@10"] == "0.4"


def test_the_picture_is_drawn_whatever_became_of_the_trials(tmp_path, trials):
    space = parse_space({"rate": {"loguniform": [1e-3, 1e-1]}, "size": {"choice": [64, 128]}}, "s")
    for number, chosen in enumerate((trials, trials[1:], trials[1:2], [Trial(1, {"rate": 0.01, "size": 64})])):
        file = Path(tmp_path / f"{number}.png")
        plot_search(chosen, space, "ndcg@10", True, "SASRec", file)
        assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
