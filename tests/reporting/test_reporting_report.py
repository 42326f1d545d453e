"""The page of a run, from a folder written by the project's own writers."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_stream.errors import InputError
from recbole_stream.reporting.__main__ import main
from recbole_stream.reporting.comparison import (
    Comparison,
    compare_entries,
    comparison_csv,
    entries_of,
    write_comparison,
)
from recbole_stream.reporting.curves import curves_file, write_curves
from recbole_stream.reporting.ranks import ranks_file, row_metric, write_ranks
from recbole_stream.reporting.report import write_report
from recbole_stream.reporting.results import Row, write_results
from recbole_stream.reporting.statistics import Paired
from recbole_stream.tokenizer.report import collision_summary, level_usage, save_report

COMMAND = "python run_recbole.py --model='A<b>&c' --note=\"</script>\""
# elements without content in HTML; all others of a page have to be closed
VOID = {"meta", "img", "br", "hr", "link", "input"}


def environment(**configuration):
    return {
        "versions": {"python": "3.11.7", "torch": "2.13.0", "ray": None},
        "hardware": {"cpu": "Some <CPU>", "cores": 2, "threads": 1, "gpu": None},
        "device": "cpu",
        "command": COMMAND,
        "date": "2026-11-20T20:51:54+00:00",
        "encoder": {"encoder": "MiniLM", "dimension": 384},
        "configuration": {"valid_metric": "NDCG@10", "eval_args": {"order": "TO"}, **configuration},
    }


def users(count=200):
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in range(count)],
            "target": [f"i{i}" for i in range(count)],
            "history_length": random.integers(1, 60, count),
            "popularity": random.integers(0, 100, count),
        }
    )


def places(seed, chance, count=200):
    random = np.random.default_rng(seed)
    return np.where(random.random(count) < chance, random.integers(1, 11, count), 0)


def epochs(seed, reinforced=False):
    random = np.random.default_rng(seed)
    for epoch in range(8):
        scalars = {"loss": 5 / (1 + epoch) + 0.1 * random.random(), "gradient_norm": 1 + random.random()}
        if reinforced:
            for name in ("format", "exact_match", "similarity", "likelihood", "ranking"):
                scalars[f"reward_{name}"] = random.random() - 0.5
                scalars[f"spread_{name}"] = random.random()
        if epoch % 2:
            scalars["valid"] = 0.02 + 0.001 * epoch
        yield scalars


@pytest.fixture
def run(tmp_path):
    """Three models, one of them with stages, two seeds: everything that a run's folder can hold."""
    folder = tmp_path / "run"
    rows = []
    for seed in (1, 2):
        for model, stage, chance, seconds in (
            ("A<b>&c", "", 0.1, 40.0), ("TIGER", "", 0.2, 300.0), ("STREAMRec", "PT", 0.15, 350.0), ("STREAMRec", "RL", 0.18, 600.0),
        ):  # fmt: skip
            ranks = places(10 * seed + len(rows), chance)
            write_ranks(ranks_file(folder, model, stage, seed), users(), ranks, depth=10)
            test = {name: float(row_metric(ranks, name).mean()) for name in ("recall@10", "ndcg@10")}
            rows.append(
                Row(model, stage, "ml-100k", seed, {"ndcg@10": 0.03}, test, seconds + seed, 0.3 + 0.1 * seed, 1000,
                    final=stage != "PT", run=environment(only_here="<i>") if model == "TIGER" else environment())
            )  # fmt: skip
        for model, stages in (("A<b>&c", [""]), ("TIGER", [""]), ("STREAMRec", ["PT", "RL"])):
            stored = [
                {"stage": stage, "valid": {"ndcg@10": 0.027}, "epoch": -1 if stage == "RL" else 7, "seconds": 9.5,
                 "curves": list(epochs(seed, stage == "RL"))}
                for stage in stages
            ]  # fmt: skip
            write_curves(curves_file(folder, model, seed), stored)
    write_results(folder, rows, {})
    result = Paired(200, 0.125, 0.0625, 0.0625, 1.0, 0.25, 0.01, 0.1, 0.012, 0.0001)
    (folder / "comparison.csv").write_text(
        comparison_csv([Comparison("TIGER", "A<b>&c", "ndcg@10", [1, 2], [1, 2], 200, result, 0.024, 0.0002)])
    )
    codes = np.random.default_rng(0).integers(0, 16, (300, 3))
    levels = level_usage(codes, (16, 16, 16))
    save_report(
        {"method": "rq_kmeans", "unique": "reassign", "items": 300, "levels": levels, "levels_before": levels,
         "collisions_before": collision_summary(codes), "items_moved": 7, "reconstruction": {"absolute": 1.0, "relative": 0.25}},
        folder,
    )  # fmt: skip
    return folder


class Page(HTMLParser):
    """What a browser would make of a page: elements closed in order, ids, references, tables, text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.references, self.elements, self.text = [], [], [], [], ""
        self.sections, self.rows, self.cell = [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.references += [values[name] for name in ("href", "xlink:href", "src", "data", "action") if name in values]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(value or "" for value in values.values()))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        self.text += data
        if self.cell is not None:
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "h2":
            self.sections.append(data)


def page_of(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


def line_of(page, *beginning):
    (line,) = [row for row in page.rows if row[: len(beginning)] == list(beginning)]
    return line


ALL = [
    "Results", "Paired tests", "Accuracy and time", "History length and popularity", "Training", "Semantic IDs", "How it was made",
    "Configuration",
]  # fmt: skip


def test_the_page_is_well_formed_and_asks_for_nothing_outside_it(run):
    path = write_report(run)
    assert path == run / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.sections == ALL
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.elements)
    for reference in page.references:
        assert reference.startswith("data:image/png;base64,") or reference[1:] in page.ids, reference[:80]
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    # two of costs, two of bins (two panels each), four stages of training
    assert page.elements.count("svg") == 1 + 2 + 4 and page.elements.count("img") == 1


def test_text_of_the_run_is_text_in_the_page(run):
    page = page_of(run)
    assert "A<b>&c" in page.text and COMMAND in page.text and "Some <CPU>" in page.text
    assert line_of(page, "only_here") == ["only_here", "–", "<i>", "–"]
    assert "i" not in page.elements and "c" not in page.elements


def test_means_and_marks_of_the_table(tmp_path):
    rows = [
        Row(model, "", "ml-100k", seed, {}, {"ndcg@10": value}, 10.0 * seed, None, 1000)
        for model, values in {"A": (0.1, 0.3), "B": (0.5, 0.5), "C": (0.15, 0.15)}.items()
        for seed, value in enumerate(values, 1)
    ]
    write_results(tmp_path, rows, {})
    text = write_report(tmp_path).read_text(encoding="utf-8")
    # A: mean 0.2, deviation sqrt((0.1² + 0.1²) / 1) = 0.1414; seconds 10 and 20: mean 15, sqrt(5² + 5²) = 7.1
    assert line_of(Page(text), "A") == ["A", "", "0.2000 ± 0.1414", "15.0 ± 7.1", "–", "1,000", "1, 2"]
    assert "<strong>0.5000 ± 0.0000</strong>" in text and "<u>0.2000 ± 0.1414</u>" in text
    assert text.count("<strong>") == 1 and text.count("<u>") == 1


def test_one_seed_has_no_deviation_and_one_model_no_mark(tmp_path):
    write_results(tmp_path, [Row("A", "", "d", 3, {"ndcg@10": 0.25}, {"ndcg@10": 0.125}, None, None, 7)], {})
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert line_of(Page(text), "A") == ["A", "", "0.1250", "0.2500", "–", "–", "7", "3"]
    assert "<strong>" not in text and Page(text).sections == ["Results", "How it was made"]


def test_seeds_that_keep_different_stages_get_a_line_of_what_they_keep(tmp_path):
    kept = {1: "RL", 2: "PT"}
    rows = [
        Row("S", stage, "d", seed, {}, {"ndcg@10": value}, 1.0, 1.0, 7, final=kept[seed] == stage)
        for seed in (1, 2)
        for stage, value in (("PT", 0.1), ("RL", 0.3))
    ]
    write_results(tmp_path, rows, {})
    # final: 0.3 of seed 1 and 0.1 of seed 2: mean 0.2, deviation sqrt(0.1² + 0.1²) = 0.1414
    assert [row[1:3] for row in page_of(tmp_path).rows[1:4]] == [
        ["PT", "0.1000 ± 0.0000"], ["RL", "0.3000 ± 0.0000"], ["final", "0.2000 ± 0.1414"],
    ]  # fmt: skip


def test_paired_tests_and_tokenizer_as_stored(run):
    page = page_of(run)
    assert line_of(page, "TIGER", "A<b>&c") == [
        "TIGER", "A<b>&c", "NDCG@10", "200", "0.1250", "0.0625", "+0.0625", "+0.0100 to +0.1000", "+100.0%", "+0.250",
        "0.024", "<0.001",
    ]  # fmt: skip
    assert line_of(page, "items moved") == ["items moved", "7"]
    assert line_of(page, "reconstruction error") == ["reconstruction error", "25.00% of the variance of the embeddings"]


def test_a_tokenizer_of_each_seed_is_shown_under_its_name(run):
    for seed in (1, 2):
        for name in ("tokenizer.json", "tokenizer.png"):
            target = run / f"tokenizer-seed{seed}" / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((run / name).read_bytes())
    for name in ("tokenizer.json", "tokenizer.png"):
        (run / name).unlink()
    page = page_of(run)
    assert page.sections == ALL and page.elements.count("img") == 2
    assert "Seed 1" in page.text and "Seed 2" in page.text


def test_the_page_shows_the_metrics_that_were_asked_for_and_counts_users(tmp_path):
    rows, several = [], pd.concat([users(40).assign(history_length=length) for length in (3, 30)], ignore_index=True)
    for number, model in enumerate(("A", "B")):
        ranks = places(number, 0.6, 80)
        write_ranks(ranks_file(tmp_path, model, "", 1), several, ranks, depth=20)
        test = {name: float(row_metric(ranks, name).mean()) for name in ("mrr@20", "hit@20")}
        rows.append(Row(model, "", "d", 1, {"mrr@20": 0.5}, test, 10.0, 1.0, 7, run=environment(valid_metric="MRR@20")))
    write_results(tmp_path, rows, {})
    entries = entries_of(tmp_path, rows)
    write_comparison(tmp_path, compare_entries([(entries["A"], entries["B"])], ["mrr@20"]))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert page.rows[0][2:5] == ["MRR@20", "Hit@20", "valid MRR@20"] and "NDCG@10" not in page.text
    assert line_of(page, "A", "B", "MRR@20")[2:4] == ["MRR@20", "40 (80 rows)"]
    assert "Test MRR@20 of every model" in page.text and "Hit@20 of test users by" in page.text
    assert "whose hits are averaged over the user's rows in the bin" in page.text


@pytest.mark.parametrize(
    ("files", "section"),
    [
        (["comparison.csv"], "Paired tests"),
        (["ranks"], "History length and popularity"),
        (["curves"], "Training"),
        (["tokenizer.json"], "Semantic IDs"),
    ],
)
def test_sections_without_data_are_left_out(run, files, section):
    for name in files:
        path = run / name
        for file in [path] if path.is_file() else list(path.iterdir()):
            file.unlink()
    assert page_of(run).sections == [name for name in ALL if name != section]


def test_the_same_folder_gives_the_same_bytes(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert sorted(path.name for path in run.iterdir()) == [
        "comparison.csv", "curves", "ranks", "report.html", "results.json", "tokenizer.json", "tokenizer.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "results.json",
        "comparison.csv",
        "ranks/TIGER-seed1.parquet",
        "curves/TIGER-seed1.json",
        "tokenizer.json",
        "tokenizer.png",
    ],
)
def test_a_torn_file_is_one_sentence_that_names_it(run, name):
    path = run / name
    # a comma-separated file is torn in the middle of its last line
    path.write_bytes(path.read_bytes()[: 40 if name.endswith("csv") else path.stat().st_size // 2])
    with pytest.raises(InputError, match=re.escape(name)) as caught:
        write_report(run)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["curves/TIGER-seed1.json", "tokenizer.json"])
def test_a_foreign_file_is_one_sentence_that_names_it(run, name):
    (run / name).write_text(json.dumps([{"something": "else"}]))
    with pytest.raises(InputError, match=re.escape(name)):
        write_report(run)


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(InputError, match="results.json does not exist"):
        write_report(tmp_path)
    write_results(tmp_path, [], {})
    with pytest.raises(InputError, match="has no rows"):
        write_report(tmp_path)


def test_the_command_writes_the_page_again_or_says_why_not(run, capsys):
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"Written to {run / 'report.html'}\n"
    assert (run / "report.html").stat().st_size > 0
    assert main(["report", str(run / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert "results.json does not exist" in error and error.count("\n") == 1


def test_light_dark_and_paper_have_a_style(run):
    text = Path(write_report(run)).read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    # plots take the colour of the page's text: no ink of their own, no ground of their own
    assert "currentColor" in text and "#1a1a1a" not in text.split("</style>")[1]
    assert "fill: #ffffff" not in text
