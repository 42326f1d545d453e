"""Paired tests from stored ranks: who is compared with whom, on what, and the tables."""

import csv
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_stream.errors import InputError
from recbole_stream.reporting.comparison import (
    Entry,
    compare_entries,
    comparison_csv,
    comparison_latex,
    comparison_markdown,
    comparison_text,
    entries_of,
    reference_pairs,
    stage_entry,
    write_comparison,
)
from recbole_stream.reporting.ranks import ranks_file, write_ranks
from recbole_stream.reporting.results import Row
from recbole_stream.reporting.statistics import holm


def users(n):
    names = [f"u{number}" for number in range(n)]
    return pd.DataFrame({"user": names, "target": [f"i{n}" for n in names], "history_length": 5, "popularity": 3})


def ranks(places, depth=10):
    frame = users(len(places)).assign(rank=pd.array([place or None for place in places], dtype="Int32"))
    frame.attrs["depth"] = depth
    return frame


def entry(name, *places, depth=10):
    return Entry(name, list(range(1, len(places) + 1)), [ranks(p, depth) for p in places])


def result_row(model, stage="", seed=1, final=True):
    return Row(model, stage, "ml-100k", seed, {}, {}, 1.0, 1.0, 1, final)


class TestPairs:
    def test_every_model_against_every_reference_once(self):
        assert reference_pairs(["TIGER", "SASRec", "STREAMRec"], ["TIGER", "SASRec"]) == [
            ("SASRec", "TIGER"), ("STREAMRec", "TIGER"), ("STREAMRec", "SASRec"),
        ]  # fmt: skip
        assert reference_pairs(["TIGER"], ["TIGER"]) == []


class TestCompare:
    def test_users_are_averaged_over_seeds_first(self):
        # ndcg@10 of A: (1 + 1/2) / 2, 1/2 of 1/2, 0; of B: 1/2, 0, 1
        a, b = entry("A", [1, 3, 0], [3, 0, 0]), entry("B", [3, 0, 1])
        (c,) = compare_entries([(a, b)], ["ndcg@10"])
        assert (c.result.mean_a, c.result.mean_b) == (pytest.approx(1 / 3), pytest.approx(1 / 2))
        assert c.result.difference == pytest.approx((0.25 + 0.25 - 1) / 3)
        assert (c.seeds_a, c.seeds_b, c.result.users) == ([1, 2], [1], 3)

    def test_users_are_joined_by_token_whatever_their_order(self):
        a, b = entry("A", [1, 2, 3, 0]), entry("B", [0, 2, 5, 1])
        shuffled = Entry("B", [1], [b.ranks[0].iloc[[2, 0, 3, 1]]])
        (straight,), (turned,) = (compare_entries([(a, other)], ["mrr@10"]) for other in (b, shuffled))
        assert turned.result == straight.result

    def test_users_are_the_units_however_many_rows_they_have(self):
        generator = np.random.default_rng(0)
        single, several = [], []
        for _ in range(2):
            ranked = ranks(generator.integers(0, 11, 80).tolist())
            repeated = pd.concat([ranked.assign(history_length=length) for length in range(9)], ignore_index=True)
            repeated.attrs["depth"] = 10
            single.append(Entry("A", [1], [ranked]))
            several.append(Entry("A", [1], [repeated]))
        (once,), (nine,) = compare_entries([single], ["ndcg@10"]), compare_entries([several], ["ndcg@10"])
        # nine equal rows of a user say what one does
        assert nine.result.users == 80 and (once.rows, nine.rows) == (80, 720)
        assert nine.result.p_wilcoxon == pytest.approx(once.result.p_wilcoxon)
        assert (nine.result.low, nine.result.high) == pytest.approx((once.result.low, once.result.high))
        assert "80 test users with 720 rows" in comparison_text([nine])
        assert "80 test users; " in comparison_text([once])

    def test_a_users_rows_are_averaged_before_users_are(self):
        def rows(places):
            frame = pd.DataFrame({"user": ["u", "u", "u", "v"], "target": list("abca"), "history_length": [3, 4, 5, 2],
                                  "popularity": 1, "rank": pd.array(places, dtype="Int32")})  # fmt: skip
            frame.attrs["depth"] = 10
            return frame

        pair = Entry("A", [1], [rows([1, 2, None, None])]), Entry("B", [1], [rows([None, None, None, 1])])
        (c,) = compare_entries([pair], ["recall@10"])
        # A hits two of three rows of u and none of v; B hits v alone
        assert (c.result.mean_a, c.result.mean_b) == (pytest.approx((2 / 3 + 0) / 2), pytest.approx((0 + 1) / 2))
        assert c.result.difference == pytest.approx((2 / 3 - 1) / 2)

    @pytest.mark.parametrize("change", [{"user": "other"}, {"target": "other"}])
    def test_other_users_or_targets_are_refused(self, change):
        other = ranks([1, 2, 3]).assign(**{name: ["u0", "u1", value] for name, value in change.items()})
        other.attrs["depth"] = 10
        with pytest.raises(InputError, match="A and B were not tested on the same users and items"):
            compare_entries([(entry("A", [1, 2, 3]), Entry("B", [1], [other]))], ["ndcg@10"])
        with pytest.raises(InputError, match="same users and items"):
            compare_entries([(entry("A", [1, 2, 3]), entry("B", [1, 2]))], ["ndcg@10"])

    def test_a_cut_off_beyond_what_one_of_them_ranked_is_refused(self):
        pair = entry("A", [1, 2], depth=1682), entry("B", [1, 2], depth=10)
        assert len(compare_entries([pair], ["recall@10"])) == 1
        with pytest.raises(InputError, match="Ranks are known down to 10"):
            compare_entries([pair], ["recall@20"])

    def test_p_values_are_corrected_over_the_whole_table(self):
        generator = np.random.default_rng(0)
        models = [
            entry(name, generator.integers(1, top, 200)) for name, top in (("A", 9), ("B", 20), ("C", 22), ("D", 60))
        ]
        pairs = [(model, models[0]) for model in models[1:]]
        table = compare_entries(pairs, ["ndcg@10", "recall@10"])
        assert [(c.a, c.metric) for c in table] == [
            ("B", "ndcg@10"), ("C", "ndcg@10"), ("D", "ndcg@10"), ("B", "recall@10"), ("C", "recall@10"), ("D", "recall@10"),
        ]  # fmt: skip
        for test in ("bootstrap", "wilcoxon"):
            raw = [getattr(c.result, f"p_{test}") for c in table]
            assert [getattr(c, f"holm_{test}") for c in table] == pytest.approx(list(holm(raw)))
            assert min(raw) < 0.01


class TestEntries:
    def test_a_model_stands_with_the_stage_it_keeps(self, tmp_path):
        rows = [result_row("S", "PT", 1), result_row("S", "RL", 1, final=False), result_row("S", "PT", 2, final=False),
                result_row("S", "RL", 2), result_row("T")]  # fmt: skip
        for number, row in enumerate(rows, 1):
            write_ranks(ranks_file(tmp_path, row.model, row.stage, row.seed), users(2), np.array([number, 0]), 10)
        kept = entries_of(tmp_path, rows)
        assert {name: (e.seeds, [int(r["rank"][0]) for r in e.ranks]) for name, e in kept.items()} == {
            "S": ([1, 2], [1, 4]), "T": ([1], [5]),
        }  # fmt: skip
        stage = stage_entry(tmp_path, rows, "S-RL")
        assert (stage.name, stage.seeds, [int(r["rank"][0]) for r in stage.ranks]) == ("S-RL", [1, 2], [2, 4])
        with pytest.raises(InputError, match="has no model 'X' but S, T, S-PT, S-RL"):
            stage_entry(tmp_path, rows, "X")


class TestTables:
    A = entry("A_1", [1] * 40 + [0] * 60)
    B = entry("B|2", [1] * 10 + [0] * 90)
    TABLE = compare_entries([(A, B), (A, A)], ["recall@10"])

    def test_markdown(self):
        head, _, first, second, _, note = comparison_markdown(self.TABLE).splitlines()
        cells = [cell.strip() for cell in first.strip("|").split(" | ")]
        # 30 of 100 users differ, all in favour of A; d_z = 0.3 / sqrt(0.3 * 0.7 * 100 / 99)
        assert cells[:7] == ["A_1", r"B\|2", "recall@10", "0.4000", "0.1000", "**+0.3000**", "+300.0%"]
        assert cells[8] == f"{0.3 / math.sqrt(0.21 * 100 / 99):+.3f}"
        # the bootstrap's smallest p-value is 1 / 10001, doubled by Holm; Wilcoxon's is below it
        assert cells[9:] == ["<0.001", "<0.001"]
        low, high = (float(bound) for bound in cells[7].strip("[]").split(","))
        # 0.3 -+ 1.96 * 0.0458
        assert (low, high) == (pytest.approx(0.21, abs=0.011), pytest.approx(0.39, abs=0.011))
        assert [cell.strip() for cell in second.strip("|").split(" | ")][5:] == [
            "+0.0000", "+0.0%", "[+0.0000, +0.0000]", "+0.000", "1.000", "1.000",
        ]  # fmt: skip
        assert note.startswith("100 test users") and "Holm-corrected over all lines of this table (2)" in note

    def test_latex_is_a_booktabs_tabular(self):
        lines = comparison_latex(self.TABLE).splitlines()
        assert lines[0].startswith("% 100 test users") and lines[1] == r"\begin{tabular}{lllrrrrrrrr}"
        assert lines[2] == r"\toprule" and lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
        assert r"A\_1 & B|2 & recall@10" in lines[5] and r"\textbf{+0.3000} & +300.0\%" in lines[5]
        assert lines[5].endswith(r"& $<$0.001 & $<$0.001 \\")
        assert lines[3].count(" & ") == lines[5].count(" & ") == 10

    def test_latex_sets_a_minus(self):
        text = comparison_latex(compare_entries([(self.B, self.A)], ["recall@10"]))
        assert r"\textbf{$-$0.3000} & $-$75.0\% & [$-$0." in text

    def test_csv_keeps_every_digit(self):
        first, second = csv.DictReader(comparison_csv(self.TABLE).splitlines())
        assert (first["a"], first["b"], first["seeds_a"], first["users"]) == ("A_1", "B|2", "1", "100")
        assert float(first["p_bootstrap"]) == 1 / 10_001 and float(first["holm_bootstrap"]) == 2 / 10_001
        assert float(second["p_wilcoxon"]) == 1

    def test_text_and_files(self, tmp_path):
        text = comparison_text(self.TABLE)
        assert "+0.3000" in text and "*" not in text and "Bold" not in text
        assert max(map(len, text.splitlines())) < 130
        write_comparison(tmp_path, self.TABLE)
        assert {path.name for path in Path(tmp_path).iterdir()} == {"comparison.md", "comparison.tex", "comparison.csv"}
