"""Plots as figures: what they show, read from the artists; the interval and the bins against values by hand."""

import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from recbole_stream.errors import InputError
from recbole_stream.reporting.plots import (
    COLOURS,
    HISTORY_BINS,
    INK,
    POPULARITY_BINS,
    metric_by_bin,
    plot_bins,
    plot_costs,
    plot_curves,
    plot_scaling,
    plot_thinking,
    svg,
    wilson_interval,
)
from recbole_stream.reporting.results import Row


def row(model, ndcg, seconds, stage="", seed=1, rank=1.0):
    return Row(model, stage, "ml-100k", seed, {}, {"ndcg@10": ndcg}, seconds, rank, 1000)


def labels(axis):
    return axis.get_xlabel(), axis.get_ylabel()


def panel(figure, title):
    (axis,) = [axis for axis in figure.axes if axis.get_title() == title]
    return axis


def frame(ranks, popularity, depth=10):
    data = pd.DataFrame(
        {
            "user": [f"u{i}" for i in range(len(ranks))],
            "popularity": popularity,
            "rank": pd.array(ranks, dtype="Int32"),
        }
    )
    data.attrs["depth"] = depth
    return data


class TestColours:
    @staticmethod
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    @pytest.mark.parametrize("colour", [colour for colour in COLOURS if colour != INK])
    def test_are_readable_on_paper_and_on_a_dark_page(self, colour):
        # WCAG 2, contrast of graphics: (lighter + .05) / (darker + .05) >= 3
        assert 1.05 / (self.luminance(colour) + 0.05) >= 3
        assert (self.luminance(colour) + 0.05) / (self.luminance("#15181c") + 0.05) >= 3

    def test_stay_apart_without_red_or_green_cones(self):
        # Viénot, Brettel and Mollon 1999: what is left of linear RGB without L or without M cones. The closest pair is
        # Okabe and Ito's own blue and purple, which differ in lightness too.
        views = {
            "protanope": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
            "deuteranope": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
        }
        for view in views.values():
            seen = [np.clip(view @ np.array(to_rgb(colour)) ** 2.2, 0, 1) ** (1 / 2.2) for colour in COLOURS]
            assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.14


class TestCurves:
    def stage(self, best=1):
        return {
            "valid": {"ndcg@10": 0.25},
            "epoch": best,
            "curves": [
                {"loss": 3.0, "sft": 2.0, "reward_format": -1.0, "distinct_1": 9, "unheard_of": 1.0},
                {"loss": 2.0, "sft": 1.0, "reward_format": 0.0, "valid": 0.25, "unheard_of": None},
            ],
        }

    def test_scalars_of_a_kind_share_a_panel(self):
        figure = plot_curves({1: self.stage()}, "ndcg@10")
        assert [axis.get_title() for axis in figure.axes] == [
            "Loss and its parts", "Validation", "Rewards", "Tokens in use at each reasoning step", "Other scalars",
        ]  # fmt: skip
        loss, sft = panel(figure, "Loss and its parts").lines
        assert loss.get_xydata().tolist() == [[0, 3], [1, 2]] and sft.get_xydata().tolist() == [[0, 2], [1, 1]]
        assert [text.get_text() for text in panel(figure, "Loss and its parts").get_legend().get_texts()] == [
            "loss",
            "sft",
        ]

    def test_a_reward_alone_is_named(self):
        legend = panel(plot_curves({1: self.stage()}, "ndcg@10"), "Rewards").get_legend()
        assert [text.get_text() for text in legend.get_texts()] == ["format"]

    def test_epochs_without_a_value_have_no_point(self):
        figure = plot_curves({1: self.stage()}, "ndcg@10")
        assert panel(figure, "Tokens in use at each reasoning step").lines[0].get_xydata().tolist() == [[0, 9]]
        assert panel(figure, "Other scalars").lines[0].get_xydata().tolist() == [[0, 1]]

    @pytest.mark.parametrize("best", [1, -1])
    def test_a_star_marks_the_epoch_that_was_kept(self, best):
        axis = panel(plot_curves({1: self.stage(best)}, "ndcg@10"), "Validation")
        curve, star = axis.lines
        assert curve.get_xydata().tolist() == [[1, 0.25]]
        assert star.get_marker() == "*" and star.get_xydata().tolist() == [[best, 0.25]]
        assert labels(axis) == ("epoch", "NDCG@10")

    def test_seeds_are_lines_of_one_colour_and_one_entry(self):
        axis = panel(plot_curves({1: self.stage(), 2: self.stage()}, "ndcg@10"), "Loss and its parts")
        assert len(axis.lines) == 4 and len(axis.get_legend().get_texts()) == 2
        assert axis.lines[0].get_color() == axis.lines[1].get_color() != axis.lines[2].get_color()

    def test_every_axis_says_what_it_shows(self):
        curves = [{"loss": 1.0, "valid": 0.1, "kl": 0.1, "gradient_norm": 1.0, "seconds": 3.0, "entropy_1": 1.0}]
        figure = plot_curves({1: {"valid": {"recall@5": 0.1}, "epoch": 0, "curves": curves}}, "recall@5")
        assert all(x == "epoch" and y for x, y in map(labels, figure.axes))
        assert {"since training began [s]", "entropy [nats]", "KL [nats per token]"} <= {
            y for _, y in map(labels, figure.axes)
        }


class TestCosts:
    def test_a_point_is_the_mean_over_seeds_and_a_bar_its_deviation(self):
        rows = [row("A", 0.1, 10.0, seed=1, rank=1.0), row("A", 0.3, 30.0, seed=2, rank=2.0)]
        train, rank = plot_costs(rows).axes
        # deviations over two values: |a - b| / sqrt(2)
        for axis, (x, dx) in ((train, (20, 20 / math.sqrt(2))), (rank, (1.5, 1 / math.sqrt(2)))):
            (container,) = axis.containers
            point, _, bars = container.lines
            assert point.get_xydata() == pytest.approx(np.array([[x, 0.2]]))
            across, along = (bar.get_segments()[0] for bar in bars)
            assert across == pytest.approx(np.array([[x - dx, 0.2], [x + dx, 0.2]]))
            dy = 0.2 / math.sqrt(2)
            assert along == pytest.approx(np.array([[x, 0.2 - dy], [x, 0.2 + dy]]))
        assert labels(train) == ("training time [s]", "test NDCG@10")
        assert labels(rank) == ("ranking time [s per 1000 users]", "test NDCG@10")

    def test_points_are_named_by_model_and_stage_and_one_seed_has_no_bar(self):
        axis = plot_costs(
            [row("TIGER", 0.1, 10.0), row("STREAMRec", 0.2, 20.0, "PT"), row("STREAMRec", 0.3, 25.0, "RL")]
        ).axes[0]
        assert [text.get_text() for text in axis.texts] == ["TIGER", "STREAMRec PT", "STREAMRec RL"]
        assert all(not container.has_xerr and not container.has_yerr for container in axis.containers)
        colours = [container.lines[0].get_color() for container in axis.containers]
        assert colours[0] != colours[1] == colours[2]
        assert len({container.lines[0].get_marker() for container in axis.containers}) == 3

    def test_labels_cover_neither_points_nor_each_other(self):
        rows = [row(f"Model{i}", 0.1 + 0.001 * i, 10.0 + i) for i in range(5)]
        figure = plot_costs(rows)
        renderer, axis = figure.canvas.get_renderer(), figure.axes[0]
        for text in axis.texts:
            text.update_positions(renderer)
        boxes = [Text.get_window_extent(text, renderer) for text in axis.texts]  # without the line to the point
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        points = axis.transData.transform([(10.0 + i, 0.1 + 0.001 * i) for i in range(5)])
        assert not any(box.contains(*point) for box in boxes for point in points)

    def test_what_was_not_measured_is_left_out(self):
        train, rank = plot_costs([row("A", 0.1, None), row("B", None, 5.0), row("C", 0.2, 5.0)]).axes
        assert [text.get_text() for text in train.texts] == ["C"]
        assert [text.get_text() for text in rank.texts] == ["A", "C"]

    def test_the_metric_is_the_one_that_chose_the_epochs(self):
        rows = [row("A", 0.1, 10.0), row("B", 0.2, 20.0)]
        for number, each in enumerate(rows):
            each.test["mrr@20"] = 0.5 + number
            each.run["configuration"] = {"valid_metric": "MRR@20"}
        train = plot_costs(rows).axes[0]
        assert train.get_ylabel() == "test MRR@20"
        assert [container.lines[0].get_xydata()[0][1] for container in train.containers] == [0.5, 1.5]

    def test_the_axis_is_logarithmic_where_times_differ_tenfold(self):
        assert plot_costs([row("A", 0.1, 10.0), row("B", 0.1, 101.0)]).axes[0].get_xscale() == "log"
        assert plot_costs([row("A", 0.1, 10.0), row("B", 0.1, 99.0)]).axes[0].get_xscale() == "linear"


class TestWilson:
    def test_by_hand(self):
        # z² = 3.841459. Nobody of 10: up to z² / (10 + z²) = 3.841459 / 13.841459
        assert wilson_interval(0.0, 10) == (0.0, pytest.approx(0.277533, abs=1e-6))
        # half of 4: 0.5 ± z / (1 + z²/4) · sqrt(0.25/4 + z²/64) = 0.5 ± 1 · sqrt(z²/(4 (4 + z²))) = 0.5 ± 0.349961
        assert wilson_interval(0.5, 4) == pytest.approx((0.150039, 0.849961), abs=1e-5)

    @given(st.floats(0, 1), st.integers(1, 10**6))
    def test_holds_the_share_and_stays_a_share(self, share, n):
        low, high = wilson_interval(share, n)
        assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
        assert high - low > 0


class TestBins:
    def test_recall_by_hand(self):
        # popularity 0: u0 misses; 1-5: u1 at 10 hits, u2 at 11 misses, u3 unranked misses; above 50: u4 hits
        got = metric_by_bin([frame([11, 10, 11, None, 1], [0, 1, 5, 3, 51], depth=99)], "popularity", POPULARITY_BINS)
        assert got["bin"].tolist() == ["0", "1–5", "> 50"]
        assert got.users.tolist() == [1, 3, 1]
        assert got["mean"].tolist() == pytest.approx([0, 1 / 3, 1])
        assert (got.low[1], got.high[1]) == pytest.approx(wilson_interval(1 / 3, 3))

    def test_users_are_counted_once_however_many_seeds(self):
        # u0 hits with one of two seeds, u1 with both: (1/2 + 1) / 2
        got = metric_by_bin([frame([1, 2], [3, 3]), frame([None, 5], [3, 3])], "popularity", POPULARITY_BINS)
        assert got.users.tolist() == [2] and got["mean"].tolist() == [0.75]

    def test_a_user_counts_once_in_each_bin_that_has_a_row(self):
        # u0 has three rows in the bin 1-5, two of them hits, and one in 6-20, a miss; u1 one in 1-5, a miss
        rows = frame([1, 2, None, None, None], [1, 2, 3, 9, 4]).assign(user=["u0", "u0", "u0", "u0", "u1"])
        rows.attrs["depth"] = 10
        got = metric_by_bin([rows], "popularity", POPULARITY_BINS)
        assert got["bin"].tolist() == ["1–5", "6–20"] and got.users.tolist() == [2, 1]
        assert got["mean"].tolist() == pytest.approx([(2 / 3 + 0) / 2, 0])
        assert (got.low[0], got.high[0]) == pytest.approx(wilson_interval(1 / 3, 2))

    def test_any_metric_of_ranks(self):
        got = metric_by_bin([frame([1, 4, None], [1, 2, 3])], "popularity", POPULARITY_BINS, "mrr@3")
        assert got["mean"].tolist() == pytest.approx([1 / 3])
        assert plot_bins({"A": got}, "x", "mrr@3").axes[0].get_ylabel() == "test MRR@3"

    def test_ranks_that_are_not_known_so_far_down_are_refused(self):
        with pytest.raises(InputError, match="recall@10"):
            metric_by_bin([frame([1], [1], depth=5)], "popularity", POPULARITY_BINS)

    @pytest.mark.parametrize("bins", [HISTORY_BINS, POPULARITY_BINS])
    def test_every_number_is_in_one_bin(self, bins):
        for value in range(200):
            assert sum(first <= value <= (math.inf if last is None else last) for first, last in bins) == 1

    def test_the_plot_shows_recall_interval_and_users(self):
        data = metric_by_bin([frame([1, None, 2], [1, 2, 60])], "popularity", POPULARITY_BINS)
        above, below = plot_bins({"A": data, "B": data}, "training events of the target item").axes
        for container, place in zip(above.containers, (-0.175, 0.175)):  # two models beside each other, 0.35 apart
            points, _, (bars,) = container.lines
            assert points.get_xydata() == pytest.approx(np.array([[place, 0.5], [1 + place, 1.0]]))
            ends = np.array([segment[:, 1] for segment in bars.get_segments()])
            assert ends == pytest.approx(np.array([wilson_interval(0.5, 2), wilson_interval(1.0, 1)]))
        assert [patch.get_height() for patch in below.patches] == [2, 1]
        assert [text.get_text() for text in below.get_xticklabels()] == ["1–5", "> 50"]
        assert above.get_ylabel() == "test Recall@10"
        assert labels(below) == ("training events of the target item", "users")

    def test_a_bin_of_few_users_does_not_set_the_scale(self):
        # 1 user of popularity 0 (interval up to 0.79), 400 users of popularity 60 of whom 40 are hit
        data = metric_by_bin([frame([None] + [1] * 40 + [None] * 360, [0] + [60] * 400)], "popularity", POPULARITY_BINS)
        above = plot_bins({"A": data}, "x").axes[0]
        assert above.get_ylim()[1] == pytest.approx(1.05 * wilson_interval(0.1, 400)[1])
        alone = plot_bins({"A": data[:1]}, "x").axes[0]
        assert alone.get_ylim()[1] > wilson_interval(0.0, 1)[1]


class TestScaling:
    def test_a_panel_for_each_way_to_spend(self):
        table = pd.DataFrame(
            [
                ("reasoning steps", 4, 0.3, 0.01, "S"),
                ("reasoning steps", 0, 0.2, None, "S"),
                ("paths", 1, 0.2, 0.0, "S"),
                ("paths", 16, 0.4, 0.1, "S"),
            ],
            columns=["axis", "amount", "mean", "std", "series"],
        )
        steps, paths = plot_scaling(table, "ndcg@10").axes
        line, _, (bars,) = steps.containers[0].lines
        assert line.get_xydata().tolist() == [[0, 0.2], [4, 0.3]]
        assert bars.get_segments()[1][:, 1] == pytest.approx([0.29, 0.31])
        assert (steps.get_xscale(), paths.get_xscale()) == ("linear", "log")
        assert [text.get_text() for text in paths.get_xticklabels()] == ["1", "16"]
        assert (labels(steps), labels(paths)) == (("reasoning steps", "test NDCG@10"), ("paths", "test NDCG@10"))


class TestThinking:
    def test_a_line_for_each_way_with_named_points_and_errors(self):
        points = [
            ("looks", "text", 0.1, 0.04, 0.01),
            ("looks", "both", 0.2, 0.06, 0.01),
            ("states", "States", 5, 0.05, 0.02),
        ]
        figure = plot_thinking(pd.DataFrame(points, columns=["series", "parts", "ms a user", "ndcg@10", "error"]))
        (axis,) = figure.axes
        assert labels(axis) == ("CPU milliseconds a user, one thread", "test NDCG@10") and axis.get_xscale() == "log"
        looks, states = (container.lines for container in axis.containers)
        assert looks[0].get_xydata().tolist() == [[0.1, 0.04], [0.2, 0.06]]
        assert states[2][0].get_segments()[0][:, 1] == pytest.approx([0.03, 0.07])
        assert [note.get_text() for note in axis.texts] == ["text", "both", "States"]


class TestSvg:
    def figure(self):
        return plot_costs([row("A<b>", 0.1, 10.0), row("B", 0.2, 20.0)])

    def test_is_an_element_with_references_into_itself_only(self):
        text = svg(self.figure(), "costs", 'a "b" <c>')
        root = ElementTree.fromstring(text)
        assert root.get("aria-label") == 'a "b" <c>' and root.get("role") == "img"
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(ids) == len(set(ids)) and all(name.startswith("costs-") for name in ids)
        references = re.findall(r'href="([^"]*)"|url\(([^)]*)\)', text)
        assert references and all((a or b).startswith("#") and (a or b)[1:] in ids for a, b in references)
        assert "metadata" not in text and "<text" not in text

    def test_ink_is_the_colour_of_the_text_around_it_on_no_ground(self):
        text = svg(self.figure(), "costs", "")
        assert "currentColor" in text and INK not in text and "#ffffff" not in text

    def test_is_the_same_every_time(self):
        assert svg(self.figure(), "costs", "") == svg(self.figure(), "costs", "")
