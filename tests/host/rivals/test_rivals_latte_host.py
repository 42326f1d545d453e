"""Latte through the command line."""

import json

import pytest

from recbole_stream.host.recommend import recommend
from recbole_stream.host.run.commands import main


@pytest.mark.long
def test_it_trains_and_recommends_like_any_model(small, tmp_path):
    arguments = ["--model=Latte", *small, "--latte_starts=3", f"--output_dir={tmp_path / 'out'}"]
    assert main(arguments) == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (row["model"], row["stage"]) == ("Latte", "")
    (checkpoint,) = (tmp_path / "out" / "checkpoints").glob("*.pth")
    table = recommend(checkpoint, ["7"], 5)
    assert table["item"].nunique() == 5 and table["score"].is_monotonic_decreasing and (table["score"] < 0).all()


def test_an_impossible_number_of_starts_is_refused(small, tmp_path, capsys):
    assert main(["--model=Latte", *small, "--latte_starts=0", f"--output_dir={tmp_path / 'out'}"]) == 2
    assert "latte_starts is 0" in capsys.readouterr().err
