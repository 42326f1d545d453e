"""The measurement of growing sizes: what it writes, and what it says of a step that does not fit."""

import json
import math

import pytest

from recbole_stream.errors import InputError
from speed.__main__ import main
from speed.large import slopes, table

pytestmark = pytest.mark.long


def test_slopes_are_exponents():
    assert slopes([(10, 3), (100, 300), (1000, 30_000)]) == pytest.approx(2)
    assert slopes([(10, 5), (1000, 5)]) == pytest.approx(0)
    assert math.isnan(slopes([(10, 5)]))


def test_steps_run_apart_and_a_memory_limit_ends_one_with_its_error(tmp_path, capsys):
    file, picture = tmp_path / "large.json", tmp_path / "large.svg"
    common = ["large", "--events", "500", "--items", "40", "--data_path", str(tmp_path), "--json", str(file)]
    main([*common, "--steps", "check"])
    main([*common, "--steps", "lookups", "--limit-gib", "0.01", "--label", "small"])
    runs = json.loads(file.read_text())["runs"]
    assert [(run["step"], run["label"]) for run in runs] == [("check", ""), ("lookups", "small")]
    figures = runs[0]["parts"]["check"]
    assert figures["seconds"] > 0 and figures["peak_mib"] > 50
    assert set(runs[1]["parts"]["lookups"]) == {"failed"}
    assert "failed" in capsys.readouterr().out
    main([*common, "--plot", str(picture)])
    assert picture.stat().st_size > 1000
    assert table(runs, "seconds") == {"check": [(500, figures["seconds"])]}


def test_an_unknown_step_is_refused(tmp_path):
    with pytest.raises(InputError, match="'sleep'"):
        main(["large", "--steps", "check,sleep", "--json", str(tmp_path / "none.json")])
