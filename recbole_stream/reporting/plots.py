"""Plots of a run: pure functions from data to a Matplotlib ``Figure``, and a figure as text for a page.

Colours are told apart by eyes of every kind and carry at least 3:1 contrast against white and against a dark page;
markers and dashes repeat what colour says, for print in grey.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from recbole_stream.reporting.metrics import main_metric, metric_title
from recbole_stream.reporting.ranks import row_metric, user_means
from recbole_stream.reporting.results import Row
from recbole_stream.reporting.statistics import mean_and_deviation

__all__ = [
    "COLOURS",
    "FEW_USERS",
    "HISTORY_BINS",
    "INK",
    "POPULARITY_BINS",
    "metric_by_bin",
    "plot_bins",
    "plot_costs",
    "plot_curves",
    "plot_scaling",
    "plot_thinking",
    "svg",
    "wilson_interval",
]

# text, axes and the last colour; a page replaces it by the colour of its text
INK = "#1a1a1a"
# the colours of Okabe and Ito that are dark enough for white paper and light enough for a dark page, violet, ink
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7d5ef5", INK)
GREY = "#808080"
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

# first and last value of each bin, both included
HISTORY_BINS = ((0, 0), (1, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, None))
POPULARITY_BINS = ((0, 0), (1, 5), (6, 20), (21, 50), (51, None))
FEW_USERS = 30

# for each panel: title, label of the axis, and an expression for the names of its scalars; a scalar goes to the first
# panel whose expression matches
PANELS = (
    ("Loss and its parts", "loss", r"loss|slow|direct|sft|dpo|quant|state"),
    ("Validation", "", r"valid"),
    ("Rewards", "mean reward", r"reward_(.*)"),
    ("Spread of rewards in a group", "standard deviation", r"spread_(.*)"),
    ("Accuracy of the next token", "share of samples", r"accuracy_(.*)"),
    ("Tokens in use at each reasoning step", "distinct tokens", r"distinct_(\d+)"),
    ("Entropy of each reasoning step", "entropy [nats]", r"entropy_(.*)"),
    ("Reasoning traces", "distinct traces", r"distinct_traces"),
    ("Shares", "share", r"leak|clip_share|zero_spread|valid_rollouts|distinct_rollouts"),
    ("Distance from the reference", "KL [nats per token]", r"kl"),
    ("Importance ratio", "mean ratio", r"ratio"),
    ("Gradient", "norm before clipping", r"gradient_norm"),
    ("Time", "since training began [s]", r"seconds"),
    ("Other scalars", "value", r".*"),
)

SEVERAL = ("Rewards", "Spread of rewards in a group", "Accuracy of the next token", "Shares", "Other scalars")


@matplotlib.rc_context(STYLE)
def plot_curves(stages: Mapping[int, Mapping], metric: str) -> Figure:
    """What a stage logged epoch by epoch, one panel for each kind of scalar, one line for each seed.

    A star marks the validation metric of the epoch whose weights were kept; at epoch -1 it is the model as it
    entered the stage.

    Args:
        stages: seed -> the stage as a run's curves file keeps it: ``curves``, a dict of scalars an epoch,
            ``epoch``, the best one, counted from 0, and ``valid``, its metrics.
        metric: the validation metric under ``valid`` in each epoch, such as "ndcg@10".
    """
    names = list(dict.fromkeys(name for stage in stages.values() for epoch in stage["curves"] for name in epoch))
    panels: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name in names:
        title, label, match = next((p[0], p[1], m) for p in PANELS if (m := re.fullmatch(p[2], name)))
        short = match[1] if match.groups() else name
        panels.setdefault((title, metric_title(metric) if name == "valid" else label), []).append(
            (name, short.replace("_", " "))
        )
    ordered = sorted(panels.items(), key=lambda panel: [p[0] for p in PANELS].index(panel[0][0]))
    figure, axes = _figure(len(ordered))
    for axis, ((title, label), lines) in zip(axes, ordered, strict=True):
        for number, (name, short) in enumerate(lines):
            for stage in stages.values():
                points = [(e, s[name]) for e, s in enumerate(stage["curves"]) if s.get(name) is not None]
                if not points:
                    continue
                axis.plot(*zip(*points), color=COLOURS[number % len(COLOURS)], linewidth=1.1, marker="o", markersize=2.5,
                          linestyle=DASHES[number // len(COLOURS) % len(DASHES)], label=short)  # fmt: skip
                short = "_"  # one entry of the legend for all seeds
        if title == "Validation":
            for stage in stages.values():
                if stage["valid"][metric] is not None:
                    axis.plot(stage["epoch"], stage["valid"][metric], "*", color=COLOURS[1], markersize=9)
        # some panels can show several scalars: there even a single one needs its name
        if len(lines) > 1 or title in SEVERAL:
            columns = 2 if max(len(short) for _, short in lines) > 2 else 5
            axis.legend(loc="upper left", bbox_to_anchor=(-0.1, -0.2), ncols=columns, columnspacing=1, handlelength=1.5)
        axis.set(title=title, xlabel="epoch", ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return _drawn(figure)


@matplotlib.rc_context(STYLE)
def plot_costs(rows: Sequence[Row], metric: str | None = None) -> Figure:
    """A metric of the test split, by default :func:`main_metric`, against the time of training and that of ranking.

    A point is a model, or a stage of one, with its mean over seeds; bars are ± one standard deviation over seeds
    (n − 1), and absent with one seed. What was not measured is left out.
    """
    metric = metric or main_metric(rows) or "ndcg@10"
    figure, axes = _figure(2, width=5.2, height=4.0)
    colours = _colours(list(dict.fromkeys(row.model for row in rows)))
    stages = list(dict.fromkeys(row.stage for row in rows))
    for axis, attribute, label in (
        (axes[0], "train_seconds", "training time [s]"),
        (axes[1], "rank_seconds_per_1000_users", "ranking time [s per 1000 users]"),
    ):
        points: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for row in rows:
            cost, value = getattr(row, attribute), row.test.get(metric)
            if cost is not None and value is not None:
                points.setdefault((row.model, row.stage), []).append((cost, value))
        centres, labels = [], []
        for (model, stage), measured in points.items():
            (x, x_error), (y, y_error) = (mean_and_deviation(values) for values in zip(*measured))
            axis.errorbar(x, y, xerr=x_error, yerr=y_error, color=colours[model], linestyle="", capsize=2,
                          marker=MARKERS[stages.index(stage) % len(MARKERS)], markersize=6)  # fmt: skip
            centres.append((x, x_error or 0, y, y_error or 0))
            labels.append(f"{model} {stage}".strip())
        spread = [x for x, *_ in centres if x > 0]
        if spread and max(spread) > 10 * min(spread):
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
        else:
            axis.set_xlim(left=0)
        axis.margins(x=0.15, y=0.15)
        axis.set(xlabel=label, ylabel=f"test {metric_title(metric)}")
        _place_labels(axis, centres, labels)
    return _drawn(figure)


def wilson_interval(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a share seen in n trials, 95 % by default.

    Unlike a bootstrap it does not collapse to a point in a bin in which nobody was hit.
    """
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def metric_by_bin(
    ranks: Sequence[pd.DataFrame], column: str, bins: Sequence[tuple[int, int | None]], metric: str = "recall@10"
) -> pd.DataFrame:
    """A metric of a model in bins of test rows, with Wilson's 95 % interval over the users of a bin.

    A user's values are averaged over seeds, and over the rows that the user has in a bin, before users are counted, so
    that n is the number of users. The interval is that of hits, 0 or 1; values between them vary less, so that theirs
    is, if anything, too wide.

    Args:
        ranks: one frame a seed, of :func:`recbole_stream.reporting.ranks.read_ranks`.
        column: what to bin by, ``history_length`` or ``popularity``.
        bins: first and last value of each, both included; None is without end.
        metric: one that follows from ranks.

    Returns:
        for each bin that has rows: ``bin`` (its label), ``users``, ``mean``, ``low``, ``high``.

    Raises:
        InputError: no such metric, or ranks that are not known down to its cut-off.
    """
    values = [row_metric(frame["rank"], metric, frame.attrs["depth"]) for frame in ranks]
    every = pd.DataFrame(
        {
            "user": np.concatenate([frame["user"] for frame in ranks]),
            "bin": np.concatenate([frame[column] for frame in ranks]),
            "value": np.concatenate(values),
        }
    )
    lines = []
    for first, last in bins:
        inside = every[(every.bin >= first) & (every.bin <= (math.inf if last is None else last))]
        if len(inside):
            users = user_means(inside.value.to_numpy(), inside.user)
            label = f"> {first - 1}" if last is None else str(first) if first == last else f"{first}–{last}"
            lines.append((label, len(users), users.mean(), *wilson_interval(users.mean(), len(users))))
    return pd.DataFrame(lines, columns=["bin", "users", "mean", "low", "high"])


@matplotlib.rc_context(STYLE)
def plot_bins(models: Mapping[str, pd.DataFrame], label: str, metric: str = "recall@10") -> Figure:
    """A metric of each model in bins, and how many users a bin has.

    Args:
        models: name -> a frame of :func:`metric_by_bin`; all with the same bins.
        label: what the bins are of.
        metric: for the axis.

    The axis ends above the intervals of bins with at least :data:`FEW_USERS` users; those of smaller bins may leave it.
    """
    first = next(iter(models.values()))
    figure = Figure(figsize=(max(5.2, 1.1 * len(first) + 0.22 * len(first) * len(models)), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    places, colours = np.arange(len(first)), _colours(list(models))
    step = 0.7 / len(models)
    for number, (name, frame) in enumerate(models.items()):
        mean = frame["mean"]
        errors = [(mean - frame.low).clip(lower=0), (frame.high - mean).clip(lower=0)]
        above.errorbar(places + step * (number - (len(models) - 1) / 2), mean, yerr=errors, linestyle="",
                       color=colours[name], marker=MARKERS[number % len(MARKERS)], markersize=5, elinewidth=1,
                       capsize=2, label=name)  # fmt: skip
    above.set(ylabel=f"test {metric_title(metric)}")
    every = pd.concat(models.values())
    # the interval of a bin of few users is wide: it must not set the scale
    top = max(
        every["mean"].max(), every.high[every.users >= FEW_USERS].max() if (first.users >= FEW_USERS).any() else 1
    )
    above.set_ylim(-0.02 * top, min(1.02, 1.05 * top))  # room for the whole marker at 0 and at 1
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=min(4, len(models)))
    below.bar(places, first.users, width=0.7, color=GREY)
    for place, users in zip(places, first.users):
        below.annotate(f"{users:,}", (place, users), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    below.margins(y=0.25)
    below.set_xticks(places, first["bin"])
    below.set(xlabel=label, ylabel="users")
    for axis in (above, below):
        axis.grid(axis="x", visible=False)
    return _drawn(figure)


@matplotlib.rc_context(STYLE)
def plot_scaling(table: pd.DataFrame, metric: str, split: str = "test") -> Figure:
    """Test-time scaling: a metric against what is spent on a user, one panel for each way to spend it.

    Args:
        table: one line a point: ``axis`` (such as "reasoning steps" or "paths"), ``amount`` (of it), ``mean`` and
            ``std`` (over seeds, or an error over users; may be missing), and ``series``, the name of its line.
        metric, split: for the axis.
    """
    kinds = list(dict.fromkeys(table["axis"]))
    figure, axes = _figure(len(kinds), width=4.4, height=3.4, share_y=True)
    colours = _colours(list(dict.fromkeys(table["series"])))
    for axis, kind in zip(axes, kinds, strict=True):
        panel = table[table["axis"] == kind]
        for number, (name, line) in enumerate(panel.groupby("series", sort=False)):
            line = line.sort_values("amount")
            size = max(9 - 4 * number, 3)  # the markers of a line below another one stay visible
            axis.errorbar(line["amount"], line["mean"], yerr=line["std"].fillna(0), color=colours[name], capsize=2,
                          marker=MARKERS[number % len(MARKERS)], markersize=size, linewidth=1.1, label=name)  # fmt: skip
        if panel["amount"].min() > 0 and panel["amount"].max() >= 16 * panel["amount"].min():
            axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(set(panel["amount"])), [f"{amount:g}" for amount in sorted(set(panel["amount"]))])
        axis.minorticks_off()
        axis.set(xlabel=kind, ylabel=f"{split} {metric_title(metric)}")
    axes[0].legend()
    return _drawn(figure)


@matplotlib.rc_context(STYLE)
def plot_thinking(table: pd.DataFrame) -> Figure:
    """Accuracy on test users against the time that a user takes, a line for each way to spend it.

    Args:
        table: one line a point: ``series``, ``parts`` (the point's name), ``ms a user``, ``ndcg@10`` and its standard
            ``error`` over users.
    """
    figure, (axis,) = _figure(1, width=6.4, height=4.0)
    axis.set(xscale="log", xlabel="CPU milliseconds a user, one thread", ylabel=f"test {metric_title('ndcg@10')}")
    for number, (name, line) in enumerate(table.groupby("series", sort=False)):
        line = line.sort_values("ms a user")
        axis.errorbar(line["ms a user"], line["ndcg@10"], yerr=line["error"], label=name, linewidth=1.1, capsize=2,
                      color=COLOURS[number], marker=MARKERS[number], markersize=5)  # fmt: skip
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.margins(x=0.15, y=0.1)
    axis.legend(loc="lower right")
    points = [(x, 0.0, y, error) for x, y, error in table[["ms a user", "ndcg@10", "error"]].itertuples(index=False)]
    _place_labels(axis, points, table["parts"].tolist())
    return _drawn(figure)


def svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an ``<svg>`` element to stand in a page: no reference to anything outside, the same text for the
    same figure, ink in the colour of the page's text, no background.

    Args:
        figure: of this module.
        name: unique in its page; it starts every id.
        description: read out by a screen reader.
    """
    text = io.StringIO()
    # with a random salt or the date no two files would be equal; text as paths needs no font
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name, "svg.fonttype": "path"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    element = text.getvalue()
    element = element[element.index("<svg") :].strip().replace(INK, "currentColor")
    # Matplotlib numbers the ids of each figure from 1, but a page may have each id only once
    element = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", element)
    return element.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)


def _figure(panels: int, width: float = 3.5, height: float = 2.9, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of at most three panels a row; sizes in inches."""
    columns = min(3, panels)
    lines = math.ceil(panels / columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False, sharey=share_y).flatten()
    for axis in axes[panels:]:
        axis.remove()
    return figure, list(axes[:panels])


def _drawn(figure: Figure) -> Figure:
    """The figure with its ticks and its layout made now, while the style is in force, and not again when it is saved."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    return figure


def _colours(names: Sequence[str]) -> dict[str, str]:
    return dict(zip(names, cycle(COLOURS)))


def _place_labels(axis: Any, points: Sequence[tuple[float, float, float, float]], labels: Sequence[str]) -> None:
    """Write each label beside its point (x, its deviation, y, its deviation), at the first place where it covers
    neither a point, a bar nor another label."""
    axis.figure.draw_without_rendering()  # fixes the transform from the axis to the page
    renderer, to_page = axis.figure.canvas.get_renderer(), axis.transData.transform
    frame, taken = axis.get_window_extent(renderer), []
    for x, dx, y, dy in points:
        for start, end in (((max(x - dx, x / 100), y), (x + dx, y)), ((x, y - dy), (x, y + dy))):
            (x0, y0), (x1, y1) = to_page([start, end])
            taken.append(Bbox.from_extents(x0 - 5, y0 - 5, x1 + 5, y1 + 5))
    places = [
        (dx, dy)
        for far in (8, 14, 20, 28)
        for dx, dy in ((far, 0), (-far, 0), (6, far), (-6, far), (6, -far), (-6, -far), (0, far), (0, -far))
    ]
    for (x, _, y, _), label in zip(points, labels, strict=True):
        leader = {"arrowstyle": "-", "color": INK, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3}
        note = axis.annotate(label, (x, y), places[0], textcoords="offset points", fontsize=8, arrowprops=leader)
        for dx, dy in places:
            note.set_position((dx, dy))
            note.set_ha("left" if dx > 0 else "right" if dx < 0 else "center")
            note.set_va("bottom" if dy > 0 else "top" if dy < 0 else "center")
            note.update_positions(renderer)
            box = Text.get_window_extent(note, renderer)  # without the leader
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
