import csv
import math

import pytest

from recbole_stream.reporting.results import Row
from recbole_stream.reporting.tables import csv_table, latex_table, markdown_table, text_table


def row(model, ndcg, stage="", **changes):
    test = {"recall@5": 0.3, "recall@10": 0.4, "ndcg@5": 0.2, "ndcg@10": ndcg}
    values = dict(
        model=model, stage=stage, dataset="ml-100k", seed=7, valid={"ndcg@10": 0.1}, test=test,
        train_seconds=61.23, rank_seconds_per_1000_users=0.756, parameters=1234567,
    )  # fmt: skip
    return Row(**{**values, **changes})


def column(table, heading):
    """The cells of one column of a Markdown table."""
    head, _, *lines = ([c.strip() for c in line.strip("|").split(" | ")] for line in table.splitlines())
    return [line[head.index(heading)] for line in lines]


STAGES = [
    row("TIGER", 0.25),
    row("STREAMRec", 0.125, "PT", final=False),
    row("STREAMRec", 0.5, "SFT"),
    row("STREAMRec", 0.375, "RL", final=False),
]


class TestMarkdown:
    def test_a_line_as_printed(self):
        head, rule, line = markdown_table([row("TIGER", 0.25)]).splitlines()
        assert [c.strip() for c in head.strip("|").split(" | ")] == [
            "Model", "Stage", "Recall@5", "Recall@10", "NDCG@5", "NDCG@10", "valid NDCG@10",
            "train s", "rank s/1000 users", "parameters", "seed",
        ]  # fmt: skip
        assert [c.strip() for c in line.strip("|").split(" | ")] == [
            "TIGER", "-", "0.3000", "0.4000", "0.2000", "0.2500", "0.1000",
            "61.2", "0.76", "1,234,567", "7",
        ]  # fmt: skip

    def test_the_best_is_bold_and_the_order_kept(self):
        assert column(markdown_table(STAGES), "NDCG@10") == ["0.2500", "0.1250", "**0.5000**", "0.3750"]

    def test_the_checkpoint_that_is_kept_is_marked_among_stages_only(self):
        assert column(markdown_table(STAGES), "Stage") == ["-", "PT", "SFT (final)", "RL"]

    def test_equal_as_printed_is_equally_good(self):
        rows = [row("A", 0.12341), row("B", 0.12344), row("C", 0.1)]
        assert column(markdown_table(rows), "NDCG@10") == ["**0.1234**", "**0.1234**", "0.1000"]

    def test_what_was_not_measured_is_never_the_best(self):
        rows = [row("A", math.nan), row("B", 0.1), row("C", None), row("D", 0.05, valid={})]
        table = markdown_table(rows)
        assert column(table, "NDCG@10") == ["-", "**0.1000**", "-", "0.0500"]
        assert column(table, "valid NDCG@10") == ["**0.1000**"] * 3 + ["-"]
        assert column(markdown_table([row("A", 0.1, train_seconds=None)]), "train s") == ["-"]

    def test_the_metrics_asked_for_are_the_columns(self):
        run = {"configuration": {"valid_metric": "MRR@20"}}
        rows = [
            row(model, None, test={"mrr@20": mrr, "giniindex@20": gini}, valid={"mrr@20": 0.5, "hit@20": 0.9}, run=run)
            for model, mrr, gini in (("A", 0.25, 0.75), ("B", 0.125, 0.5))
        ]
        table = markdown_table(rows)
        assert [cell.strip() for cell in table.splitlines()[0].strip("|").split(" | ")][2:5] == [
            "MRR@20", "GiniIndex@20", "valid MRR@20",
        ]  # fmt: skip
        # the smaller index of Gini is the better one
        assert column(table, "MRR@20") == ["**0.2500**", "0.1250"]
        assert column(table, "GiniIndex@20") == ["0.7500", "**0.5000**"]
        assert next(csv.reader(csv_table(rows).splitlines()))[5:8] == [
            "test_mrr@20",
            "test_giniindex@20",
            "valid_mrr@20",
        ]
        assert r"MRR@20 & GiniIndex@20 & valid MRR@20" in latex_table(rows)

    def test_data_sets_are_told_apart(self):
        beauty = [row("A", 0.9, dataset="beauty"), row("B", 0.8, dataset="beauty")]
        rows = [row("A", 0.1), row("B", 0.2), *beauty]
        table = markdown_table(rows)
        assert column(table, "Dataset") == ["ml-100k", "ml-100k", "beauty", "beauty"]
        assert column(table, "NDCG@10") == ["0.1000", "**0.2000**", "**0.9000**", "0.8000"]

    def test_a_bar_in_a_name_does_not_end_the_cell(self):
        assert r"A\|B" in markdown_table([row("A|B", 0.1)])


class TestLatex:
    def test_best_is_bold_and_second_best_underlined(self):
        table = latex_table(STAGES)
        # TIGER is third, PT fourth
        got = [line.split(" & ")[5] for line in table.splitlines() if "STREAM" in line or "TIGER" in line]
        assert got == ["0.2500", "0.1250", r"\textbf{0.5000}", r"\underline{0.3750}"]

    def test_a_tie_for_the_best_leaves_the_next_value_second(self):
        rows = [row("A", 0.5), row("B", 0.5), row("C", 0.25), row("D", 0.125)]
        got = [line.split(" & ")[5] for line in latex_table(rows).splitlines()[4:8]]
        assert got == [r"\textbf{0.5000}", r"\textbf{0.5000}", r"\underline{0.2500}", "0.1250"]

    def test_is_a_booktabs_tabular_with_a_column_per_cell(self):
        lines = latex_table(STAGES).splitlines()
        assert lines[0] == r"\begin{tabular}{llrrrrrrrrr}"
        assert [lines[i] for i in (1, 3, -2, -1)] == [
            r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"
        ]  # fmt: skip
        # 11 columns: 10 separators
        assert all(line.count(" & ") == 10 and line.endswith(r" \\") for line in [lines[2], *lines[4:8]])

    def test_special_characters_are_escaped(self):
        assert r"my\_model \& 50\% \textbackslash{}x" in latex_table([row("my_model & 50% \\x", 0.1)])


def test_csv_keeps_every_digit():
    rows = [row("A, B", 1 / 3), row("C", None, "PT", final=False, train_seconds=None)]
    head, first, second = csv.reader(csv_table(rows).splitlines())
    assert head == [
        "model", "stage", "final", "dataset", "seed", "test_recall@5", "test_recall@10",
        "test_ndcg@5", "test_ndcg@10", "valid_ndcg@10", "train_seconds",
        "rank_seconds_per_1000_users", "parameters",
    ]  # fmt: skip
    assert first == [
        "A, B", "", "True", "ml-100k", "7", "0.3", "0.4", "0.2", "0.3333333333333333", "0.1",
        "61.23", "0.756", "1234567",
    ]  # fmt: skip
    assert [second[i] for i in (2, 8, 10)] == ["False", "", ""]


def test_text_is_aligned_and_unmarked():
    lines = text_table(STAGES).splitlines()
    assert len({len(line) for line in lines[-4:]}) == 1
    assert lines[-2].split() == [
        "STREAMRec", "SFT", "(final)", "0.3000", "0.4000", "0.2000", "0.5000", "0.1000",
        "61.2", "0.76", "1,234,567", "7",
    ]  # fmt: skip


class TestSeeds:
    # means 0.25 and 0.3; deviations: (0.05^2 + 0 + 0.05^2) / 2 = 0.0025, root 0.05; one seed has none
    ROWS = [row("A", ndcg, seed=seed) for seed, ndcg in ((1, 0.2), (2, 0.25), (3, 0.3))] + [row("B", 0.3, seed=1)]

    def test_a_line_gives_mean_and_deviation(self):
        table = markdown_table(self.ROWS)
        assert column(table, "NDCG@10") == ["0.2500 ± 0.0500", "**0.3000**"]
        assert column(table, "seeds") == ["1, 2, 3", "1"]

    def test_latex_marks_means(self):
        lines = latex_table(self.ROWS).splitlines()[4:6]
        assert [line.split(" & ")[5] for line in lines] == [r"\underline{0.2500} $\pm$ 0.0500", r"\textbf{0.3000}"]

    def test_times_and_parameters_are_means(self):
        rows = [
            row("A", 0.1, seed=1, train_seconds=10.0),
            row("A", 0.1, seed=2, train_seconds=20.0, parameters=1234577),
        ]
        table = markdown_table(rows)
        assert column(table, "train s") == ["15.0"] and column(table, "parameters") == ["1,234,572"]

    def test_a_seed_without_a_value_leaves_no_mean(self):
        assert column(markdown_table([row("A", 0.1, seed=1), row("A", None, seed=2)]), "NDCG@10") == ["-"]

    def test_stages_are_told_apart(self):
        rows = [
            row("S", ndcg, stage, seed=seed, final=stage == "RL")
            for seed in (1, 2) for stage, ndcg in (("PT", 0.1 * seed), ("RL", 0.3 * seed))
        ]  # fmt: skip
        table = markdown_table(rows)
        assert column(table, "Stage") == ["PT", "RL (final)"]
        assert [cell[:6] for cell in column(table, "NDCG@10")] == ["0.1500", "**0.45"]

    def test_where_seeds_keep_other_stages_a_line_takes_what_each_keeps(self):
        rows = [
            row("S", 0.1, "PT", seed=1, final=True), row("S", 0.2, "RL", seed=1, final=False),
            row("S", 0.3, "PT", seed=2, final=False), row("S", 0.5, "RL", seed=2, final=True),
        ]  # fmt: skip
        table = markdown_table(rows)
        assert column(table, "Stage") == ["PT", "RL", "final"]
        # 0.1 of seed 1 and 0.5 of seed 2
        assert [cell.strip("*")[:6] for cell in column(table, "NDCG@10")] == ["0.2000", "0.3500", "0.3000"]

    def test_csv_has_every_seed_then_means_and_deviations(self):
        head, *lines = csv.reader(csv_table(self.ROWS).splitlines())
        seed, ndcg, seconds = (head.index(name) for name in ("seed", "test_ndcg@10", "train_seconds"))
        assert [line[seed] for line in lines] == ["1", "2", "3", "1", "mean", "deviation"]
        assert [float(line[ndcg]) for line in lines] == pytest.approx([0.2, 0.25, 0.3, 0.3, 0.25, 0.05])
        assert [line[seconds] for line in lines[-2:]] == ["61.23", ""]

    def test_text_is_aligned(self):
        lines = text_table(self.ROWS).splitlines()
        assert len({len(line) for line in lines[-2:]}) == 1 and "0.2500 ± 0.0500" in lines[-2]
