"""The picture of a search: what each trial reached, and how that depends on each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from recbole_stream.host.tuning.space import Domain, Trial, best_trial, short
from recbole_stream.reporting.metrics import metric_title

__all__ = ["plot_search"]

COLUMNS = 3
DONE, STOPPED, BEST, LINE = "#1f5fa8", "#9db8d6", "#d1495b", "#444444"

# a trial that was validated, and the metric of its best epoch
Scored = tuple[Trial, float]


def plot_search(
    trials: Sequence[Trial], space: Mapping[str, Domain], metric: str, bigger: bool, title: str, file: str | Path
) -> None:
    """Write a PNG: the metric of each trial with the best so far, and below a small panel for each parameter.

    A trial stands at its best epoch. Those that the scheduler stopped are pale, failed ones crosses at the bottom.

    Args:
        trials: by number.
        space: the parameters to show; those of a log-uniform distribution get a logarithmic axis.
        metric: the name of the one that selects.
        bigger: whether more of it is better.
        title: of the picture.
        file: where to write.

    Raises:
        OSError: the file cannot be written.
    """
    rows = -(-len(space) // COLUMNS)
    figure = Figure(figsize=(9.6, 3.4 + 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=[1.4] + [1.0] * rows)
    winner = best_trial(trials, bigger)
    scores = [(trial, trial.best(bigger)["valid"]) for trial in trials if trial.best(bigger)]

    axis = figure.add_subplot(grid[0, :])
    _draw_trials(axis, trials, scores, winner)
    _draw_best_so_far(axis, trials, scores, bigger)
    _finish_trials(axis, len(trials), metric)
    first = None
    for number, (key, domain) in enumerate(space.items()):
        panel = figure.add_subplot(grid[1 + number // COLUMNS, number % COLUMNS], sharey=first)
        first = first or panel
        _draw_parameter(panel, key, domain, scores, winner)
        if number % COLUMNS:
            panel.tick_params(labelleft=False)
        else:
            panel.set_ylabel(f"valid {metric_title(metric)}", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, dpi=120)


# -- the panel of all trials -------------------------------------------------


def _draw_trials(axis: Axes, trials: Sequence[Trial], scores: Sequence[Scored], winner: Trial | None) -> None:
    """A point for each trial that was validated, a cross for each that failed."""
    others = [(trial, value) for trial, value in scores if trial is not winner]
    _scatter(axis, [(t, v) for t, v in others if t.state == "finished"], DONE, "finished")
    _scatter(axis, [(t, v) for t, v in others if t.state == "stopped"], STOPPED, "stopped early")
    _scatter(axis, [(t, v) for t, v in others if t.state in ("planned", "running")], "white", "not finished")
    if winner:
        _scatter(axis, [(t, v) for t, v in scores if t is winner], BEST, f"best: trial {winner.number}", size=70)
    failed = [trial.number for trial in trials if trial.state == "failed"]
    if failed:
        bottom = axis.get_xaxis_transform()  # x in trials, y in shares of the axis
        axis.scatter(
            failed, [0.04] * len(failed), marker="x", color=LINE, s=36, transform=bottom, label="failed", zorder=3
        )


def _scatter(axis: Axes, scores: Sequence[Scored], color: str, label: str, size: int = 36) -> None:
    if scores:
        numbers, values = zip(*((trial.number, value) for trial, value in scores))
        axis.scatter(numbers, values, s=size, color=color, edgecolor=LINE, linewidth=0.5, label=label, zorder=3)


def _draw_best_so_far(axis: Axes, trials: Sequence[Trial], scores: Sequence[Scored], bigger: bool) -> None:
    """A line of steps: the best of the trials that finished, up to the last trial."""
    finished = [(trial.number, value) for trial, value in scores if trial.state == "finished"]
    if not finished:
        return
    numbers, values = (list(part) for part in zip(*finished))
    so_far = list(accumulate(values, max if bigger else min))
    axis.step(
        [*numbers, trials[-1].number], [*so_far, so_far[-1]], where="post", color=LINE, linewidth=1,
        label="best so far", zorder=2,
    )  # fmt: skip


def _finish_trials(axis: Axes, trials: int, metric: str) -> None:
    """Axes, grid and legend of the upper panel."""
    axis.set_xlabel("trial", fontsize=9)
    axis.set_ylabel(f"valid {metric_title(metric)}", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.set_xlim(0.5, max(trials, 1) + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.margins(y=0.12)
    axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.14)}
        axis.legend(handles, labels, fontsize=8, ncols=len(handles), frameon=False, **place)


# -- the panel of one parameter ----------------------------------------------


def _draw_parameter(panel: Axes, key: str, domain: Domain, scores: Sequence[Scored], winner: Trial | None) -> None:
    """The metric of each trial against its value of a parameter."""
    if domain.kind == "loguniform":
        _make_logarithmic(panel, domain)
    elif domain.kind == "choice":
        choices = _places(domain)
        panel.set_xticks(list(choices.values()), list(choices))
        panel.set_xlim(-0.5, len(choices) - 0.5)
    for trial, value in scores:
        if key not in trial.parameters:
            continue
        color = BEST if trial is winner else DONE if trial.state == "finished" else STOPPED
        panel.scatter(_place(trial, key, domain), value, s=45 if trial is winner else 20, color=color,
                      edgecolor=LINE, linewidth=0.4, zorder=3)  # fmt: skip
    panel.set_xlabel(key, fontsize=9)
    panel.tick_params(labelsize=8)
    panel.margins(y=0.12)
    panel.grid(axis="y", linewidth=0.4, alpha=0.6)


def _make_logarithmic(panel: Axes, domain: Domain) -> None:
    low, high = domain.extremes
    panel.set_xscale("log")
    panel.set_xlim(low * 0.9, high * 1.1)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(float(value))))
    panel.xaxis.set_minor_locator(NullLocator())


def _place(trial: Trial, key: str, domain: Domain) -> Any:
    """Where a trial stands on the axis of a parameter.

    Trials that share a choice are spread a little around it, so that none hides another.
    """
    value = trial.parameters[key]
    if domain.kind != "choice":
        return value
    return _places(domain)[short(value)] + 0.12 * ((trial.number % 5) - 2) / 2


def _places(domain: Domain) -> dict[str, int]:
    """The places of the choices on the axis, by what is written there."""
    return {short(value): place for place, value in enumerate(domain.arguments)}
