"""Metrics of ranks worked out by hand, and the files that hold ranks and curves."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_stream.errors import InputError
from recbole_stream.reporting.curves import curves_file, read_curves, write_curves
from recbole_stream.reporting.ranks import mean_metric, ranks_file, read_ranks, row_metric, split_metric, write_ranks

USERS = pd.DataFrame(
    {"user": ["u1", "u2", "7"], "target": ["a", "b", "a"], "history_length": [2, 30, 5], "popularity": [9, 0, 9]}
)


class TestMetrics:
    @pytest.mark.parametrize(
        ("metric", "expected"),
        [
            # ranks 1, 3, 10, 11 and one that was not reached
            ("recall@10", [1, 1, 1, 0, 0]),
            ("hit@3", [1, 1, 0, 0, 0]),
            # 1 / log2(1 + 1) = 1, 1 / log2(3 + 1) = 1/2
            ("ndcg@10", [1, 0.5, 1 / math.log2(11), 0, 0]),
            ("ndcg@5", [1, 0.5, 0, 0, 0]),
            # with one target the average precision is 1 / rank
            ("map@5", [1, 1 / 3, 0, 0, 0]),
            ("mrr@11", [1, 1 / 3, 0.1, 1 / 11, 0]),
            ("precision@4", [0.25, 0.25, 0, 0, 0]),
        ],
    )
    def test_by_hand(self, metric, expected):
        assert row_metric([1, 3, 10, 11, None], metric) == pytest.approx(expected, rel=1e-15)

    def test_all_words_for_a_rank_that_is_missing(self):
        for missing in (None, 0, pd.NA, math.nan):
            assert list(row_metric([missing, 2], "recall@5")) == [0, 1]

    @pytest.mark.parametrize("metric", ["gauc", "ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@ten", "ap@10", "@10", ""])
    def test_an_unknown_metric_is_refused(self, metric):
        with pytest.raises(InputError, match="does not follow from ranks"):
            split_metric(metric)

    def test_case_and_space_do_not_matter(self):
        assert split_metric(" NDCG@10") == ("ndcg", 10)

    def test_a_cut_off_below_the_known_ranks_is_refused(self):
        assert row_metric([1], "recall@10", depth=10) == 1
        with pytest.raises(InputError, match=r"Ranks are known down to 10, too few for recall@11: .*--topk=\[11\]"):
            row_metric([1], "recall@11", depth=10)

    def test_the_mean_is_the_mean(self):
        assert mean_metric(np.array([1.0, 0.0, 0.5, 0.5])) == 0.5

    @given(st.lists(st.integers(0, 60), min_size=1), st.integers(1, 30))
    def test_a_longer_list_never_scores_less(self, ranks, k):
        for name in ("recall", "ndcg", "mrr"):
            assert np.all(row_metric(ranks, f"{name}@{k}") <= row_metric(ranks, f"{name}@{k + 1}"))


class TestFiles:
    def test_the_names(self):
        assert ranks_file("run", "STREAMRec", "PT", 7).as_posix() == "run/ranks/STREAMRec-PT-seed7.parquet"
        assert ranks_file("run", "TIGER", "", 2020).as_posix() == "run/ranks/TIGER-seed2020.parquet"
        assert curves_file("run", "TIGER", 1).as_posix() == "run/curves/TIGER-seed1.json"

    def test_ranks_come_back(self, tmp_path):
        write_ranks(ranks_file(tmp_path, "TIGER", "", 1), USERS, np.array([4, 0, 1]), 10)
        back = read_ranks(tmp_path, "TIGER", "", 1)
        pd.testing.assert_frame_equal(back[list(USERS.columns)], USERS, check_dtype=False)
        assert list(back["user"]) == ["u1", "u2", "7"]  # a token stays a word
        assert back["rank"].dtype == "Int32" and list(back["rank"].fillna(-1)) == [4, -1, 1]
        assert back.attrs["depth"] == 10
        assert [path.name for path in (tmp_path / "ranks").iterdir()] == ["TIGER-seed1.parquet"]

    def test_a_missing_a_torn_and_a_foreign_file_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="There is no .*TIGER-seed1.parquet: train TIGER again"):
            read_ranks(tmp_path, "TIGER", "", 1)
        path = ranks_file(tmp_path, "TIGER", "", 1)
        write_ranks(path, USERS, np.array([4, 0, 1]), 10)
        whole = path.read_bytes()
        for part in (b"", whole[:50], whole[:-20]):
            path.write_bytes(part)
            with pytest.raises(InputError, match="is torn or holds no ranks"):
                read_ranks(tmp_path, "TIGER", "", 1)
        USERS.to_parquet(path)
        with pytest.raises(InputError, match="is torn or holds no ranks"):
            read_ranks(tmp_path, "TIGER", "", 1)

    def test_curves_come_back(self, tmp_path):
        stage = {"stage": "PT", "valid": {"ndcg@10": 0.5}, "epoch": 0, "seconds": 1.5, "curves": [{"loss": 2.0}]}
        diverged = {**stage, "curves": [{"loss": math.nan}]}
        write_curves(curves_file(tmp_path, "TIGER", 1), [stage, diverged])
        assert read_curves(tmp_path, "TIGER", 1) == [stage, {**stage, "curves": [{"loss": None}]}]

    def test_missing_and_torn_curves_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="There is no .*TIGER-seed1.json"):
            read_curves(tmp_path, "TIGER", 1)
        curves_file(tmp_path, "TIGER", 1).parent.mkdir()
        curves_file(tmp_path, "TIGER", 1).write_text('[{"stage"')
        with pytest.raises(InputError, match="TIGER-seed1.json cannot be read"):
            read_curves(tmp_path, "TIGER", 1)
