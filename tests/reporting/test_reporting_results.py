import json
import math
import platform
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from recbole_stream.errors import InputError
from recbole_stream.reporting.results import (
    Row,
    read_results,
    run_environment,
    write_results,
)


def row(model="TIGER", **changes):
    values = dict(
        model=model, stage="", dataset="ml-100k", seed=7,
        valid={"ndcg@10": 0.25}, test={"recall@5": 0.5, "ndcg@10": 0.125},
        train_seconds=12.5, rank_seconds_per_1000_users=0.75, parameters=1000,
    )  # fmt: skip
    return Row(**{**values, **changes})


class Colour(Enum):
    RED = 1


class Size(IntEnum):
    LARGE = 3


class TestResultsFile:
    def test_is_a_list_with_the_agreed_keys(self, tmp_path):
        path = write_results(tmp_path / "new" / "folder", [row()], {"encoder": "MiniLM"})
        assert path == tmp_path / "new" / "folder" / "results.json"
        assert json.loads(path.read_text()) == [
            {
                "model": "TIGER", "stage": "", "dataset": "ml-100k", "seed": 7, "final": True,
                "valid": {"ndcg@10": 0.25}, "test": {"recall@5": 0.5, "ndcg@10": 0.125},
                "train_seconds": 12.5, "rank_seconds_per_1000_users": 0.75, "parameters": 1000,
                "run": {"encoder": "MiniLM"},
            }
        ]  # fmt: skip

    def test_is_read_back_in_its_order(self, tmp_path):
        rows = [row("B", run={"n": [1, 2]}), row("A", stage="PT", final=False, train_seconds=None)]
        write_results(tmp_path, rows, {})
        assert read_results(tmp_path) == rows

    def test_a_row_s_own_run_is_laid_over_the_common_one(self, tmp_path):
        rows = [row("A", run={"configuration": {"rate": 1}}), row("B")]
        write_results(tmp_path, rows, {"device": "cpu", "configuration": {}})
        first, second = read_results(tmp_path)
        assert first.run == {"device": "cpu", "configuration": {"rate": 1}}
        assert second.run == {"device": "cpu", "configuration": {}}

    def test_a_configuration_of_any_types_becomes_json(self, tmp_path):
        run = {
            "path": PurePosixPath("a/b"), "enum": Colour.RED, "whole": Size.LARGE,
            "device": torch.device("cuda", 1), "dtype": torch.bfloat16,
            "numpy": np.float32(0.5), "bool": np.bool_(True), "array": np.arange(3),
            "tensor": torch.tensor([1.5, float("nan")]), "set": {"b", "a"}, "tuple": (1, (2,)),
            "nan": math.nan, "infinite": -math.inf, "nothing": None, "true": True,
            "nested": {Colour.RED: {3: Path("c")}}, "class": "ü",
        }  # fmt: skip
        write_results(tmp_path, [row(test={"ndcg@10": np.float64(0.5), "recall@5": math.nan})], run)
        (got,) = read_results(tmp_path)
        assert got.test == {"ndcg@10": 0.5, "recall@5": None}
        assert got.run == {
            "path": "a/b", "enum": "RED", "whole": "LARGE",
            "device": "cuda:1", "dtype": "torch.bfloat16",
            "numpy": 0.5, "bool": True, "array": [0, 1, 2],
            "tensor": [1.5, None], "set": ["a", "b"], "tuple": [1, [2]],
            "nan": None, "infinite": None, "nothing": None, "true": True,
            "nested": {"RED": {"3": "c"}}, "class": "ü",
        }  # fmt: skip

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match="results.json does not exist"):
            read_results(tmp_path)

    @pytest.mark.parametrize("text", ["[", "{}x", '{"model": 1}', "[1]", '[{"model": "A"}]'])
    def test_a_file_of_something_else_is_named(self, tmp_path, text):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(InputError, match="results.json is not a list of result rows"):
            read_results(tmp_path)


def test_run_environment_says_what_ran_where():
    got = run_environment(["python", "run_recbole.py", "--model=A B"], "cpu")
    assert got["versions"]["python"] == platform.python_version()
    assert got["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"recbole", "numpy", "pandas", "transformers", "sentence-transformers"} < got["versions"].keys()
    assert got["hardware"]["cores"] >= 1
    assert got["hardware"]["cpu"]
    assert got["hardware"]["gpu"] is None
    assert got["device"] == "cpu"
    assert got["seeding"] == "sha256"  # what results from before it do not have
    assert got["command"] == "python run_recbole.py '--model=A B'"
    assert got["date"].endswith("+00:00")


def test_a_package_that_is_absent_has_no_version(monkeypatch):
    monkeypatch.setattr("recbole_stream.reporting.results.PACKAGES", ("no-such-package",))
    assert run_environment([], "cpu")["versions"]["no-such-package"] is None
