"""The picture of a search: what each trial reached, and how that depends on each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_stream.host.tuning.space import Domain, Trial, best_trial, short

__all__ = ["plot_search"]

COLUMNS = 3
DONE, STOPPED, BEST, LINE = "#1f5fa8", "#9db8d6", "#d1495b", "#444444"


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    rows = -(-len(space) // COLUMNS)
    figure = Figure(figsize=(9.6, 3.4 + 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=[1.4] + [1.0] * rows)
    winner = best_trial(trials, bigger)
    # (trial, value) of all that were validated at least once
    scores = [(trial, trial.best(bigger)["valid"]) for trial in trials if trial.best(bigger)]

    axis = figure.add_subplot(grid[0, :])
    for label, color, chosen in (
        ("finished", DONE, [(t.number, v) for t, v in scores if t.state == "finished" and t is not winner]),
        ("stopped early", STOPPED, [(t.number, v) for t, v in scores if t.state == "stopped"]),
        ("not finished", "white", [(t.number, v) for t, v in scores if t.state in ("planned", "running")]),
        (f"best: trial {winner.number}" if winner else "", BEST, [(t.number, v) for t, v in scores if t is winner]),
    ):
        if chosen:
            size = 70 if color == BEST else 36
            axis.scatter(*zip(*chosen), s=size, color=color, edgecolor=LINE, linewidth=0.5, label=label, zorder=3)
    failed = [trial.number for trial in trials if trial.state == "failed"]
    if failed:
        bottom = axis.get_xaxis_transform()  # x in trials, y in shares of the axis
        axis.scatter(
            failed, [0.04] * len(failed), marker="x", color=LINE, s=36, transform=bottom, label="failed", zorder=3
        )
    finished = [(trial.number, value) for trial, value in scores if trial.state == "finished"]
    if finished:
        numbers, so_far = [], []
        for number, value in finished:
            numbers.append(number)
            so_far.append(value if not so_far else (max if bigger else min)(value, so_far[-1]))
        numbers.append(trials[-1].number)
        axis.step(numbers, [*so_far, so_far[-1]], where="post", color=LINE, linewidth=1, label="best so far", zorder=2)
    axis.set_xlabel("trial", fontsize=9)
    axis.set_ylabel(f"valid {metric.upper()}", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.set_xlim(0.5, max(len(trials), 1) + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.margins(y=0.12)
    axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        axis.legend(
            handles,
            labels,
            fontsize=8,
            ncols=len(handles),
            loc="upper center",
            bbox_to_anchor=(0.5, 1.14),
            frameon=False,
        )

    first = None
    for number, (key, domain) in enumerate(space.items()):
        panel = figure.add_subplot(grid[1 + number // COLUMNS, number % COLUMNS], sharey=first)
        first = first or panel
        points = [(trial, trial.parameters[key], value) for trial, value in scores if key in trial.parameters]
        if domain.kind == "choice":
            places = {short(value): place for place, value in enumerate(domain.arguments)}
            # several trials share a choice: spread them a little so that none hides another
            points = [(t, places[short(x)] + 0.12 * ((t.number % 5) - 2) / 2, y) for t, x, y in points]
            panel.set_xticks(list(places.values()), list(places))
            panel.set_xlim(-0.5, len(places) - 0.5)
        elif domain.kind == "loguniform":
            panel.set_xscale("log")
            panel.set_xlim(domain.arguments[0] * 0.9, domain.arguments[1] * 1.1)
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(float(value))))
            panel.xaxis.set_minor_locator(NullLocator())
        for trial, x, y in points:
            color = BEST if trial is winner else DONE if trial.state == "finished" else STOPPED
            panel.scatter(x, y, s=45 if trial is winner else 20, color=color, edgecolor=LINE, linewidth=0.4, zorder=3)
        panel.set_xlabel(key, fontsize=9)
        panel.tick_params(labelsize=8)
        panel.margins(y=0.12)
        panel.grid(axis="y", linewidth=0.4, alpha=0.6)
        if number % COLUMNS:
            panel.tick_params(labelleft=False)
        else:
            panel.set_ylabel(f"valid {metric.upper()}", fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, dpi=120)
