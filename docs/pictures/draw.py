"""Draws the pictures of README.md and docs/concepts.md: ``python docs/pictures/draw.py``.

The bars read their figures from the first table of RESULTS.md; change them there, then run this again.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FOLDER = Path(__file__).parent
INK, SOFT, PALE, ACCENT, WARM = "#1f2933", "#7b8794", "#e4e9ef", "#1769aa", "#d9822b"
LEVELS = ("#1769aa", "#2e9b8f", "#d9822b", "#8e5ea2")
VIEWS = ("likelihood", "matching", "transitions", "text", "repeats")

# the same picture gives the same file
plt.rcParams.update({"svg.hashsalt": "recbole-stream", "font.family": "DejaVu Sans", "text.color": INK})


def read_headline() -> dict[str, list[list[tuple[str, float]]]]:
    """The first table of RESULTS.md: data set -> for each column the figures in it, with the models that it names.

    The columns are STREAM-Rec, TIGER, SASRec, the better of both without the history's items, nearest published. A
    cell with a dash has no figure, one of the first four names no model.
    """
    text = (FOLDER.parents[1] / "RESULTS.md").read_text(encoding="utf-8")
    rows = {}
    for line in re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]:
        name, *cells = (cell.strip().replace("*", "") for cell in line.strip("|").split("|"))
        found = [re.findall(r"([A-Z][\w-]+)? ?(?<![\d%])(\.\d+)", cell) for cell in cells]
        rows[re.sub(r"\[(.*?)\].*", r"\1", name)] = [[(model, float(figure)) for model, figure in f] for f in found]
    return rows


def canvas(width: float, height: float) -> tuple[plt.Figure, Axes]:
    """A white sheet whose units are inches."""
    figure = plt.figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def save(figure: plt.Figure, name: str, figures: str | None = None) -> None:
    """Write ``name``.svg beside this file; ``figures`` are what it shows, so that a test sees when they are old."""
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Description": figures})
    plt.close(figure)


def box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str = "", *,
    face: str = PALE, ink: str = INK, edge: str = "none", size: float = 10, weight: str = "normal",
) -> None:  # fmt: skip
    """A rounded box with a text in its middle; x, y is its lower left corner."""
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", facecolor=face, edgecolor=edge
    )
    axes.add_patch(shape)
    axes.text(
        x + width / 2, y + height / 2 - 0.01, text, ha="center", va="center", color=ink, fontsize=size, weight=weight
    )


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = SOFT) -> None:
    """A straight arrow."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=color, linewidth=1.4))


def tokens(axes: Axes, x: float, y: float, codes: tuple[int, ...], size: float = 0.42) -> None:
    """One square for each token of a semantic ID, a colour for each level."""
    for level, code in enumerate(codes):
        box(axes, x + level * size * 1.08, y, size, size * 0.8, str(code), face=LEVELS[level], ink="white", size=8.5)


def draw_overview() -> None:
    """README's picture: history, tokens, thinking, ranking; below them the bars of the headline."""
    figure, axes = canvas(12, 6.6)
    for x, title, note in (
        (0.35, "1  history", "what a user had, in order"),
        (2.6, "2  tokens", "each item is 4 tokens"),
        (5.75, "3  thinking", "look from several sides, weigh, check"),
        (9.6, "4  ranking", "of all items"),
    ):
        axes.text(x, 6.2, title, fontsize=14, weight="bold")
        axes.text(x, 5.93, note, fontsize=9.5, color=SOFT)
    codes = ((12, 7, 201, 3), (12, 40, 9, 88), (133, 7, 56, 21))
    for place, (item, ids) in enumerate(zip(("guitar", "strings", "tuner"), codes)):
        y = 5.25 - place * 0.55
        box(axes, 0.35, y, 1.45, 0.4, item)
        arrow(axes, (1.85, y + 0.2), (2.5, y + 0.2))
        tokens(axes, 2.6, y + 0.02, ids, 0.46)
    arrow(axes, (4.75, 4.9), (5.6, 4.9))
    box(axes, 5.75, 5.25, 3.0, 0.4, "reasoning tokens  (the paper)", face="#d7e7f5", size=9.5)
    for place, view in enumerate(VIEWS):
        column, row = place % 3, place // 3
        box(axes, 5.75 + column * 1.02, 4.75 - row * 0.42, 0.96, 0.34, view, face="#fbe6d0", size=9)
    axes.text(7.83, 4.5, "five views, weighed", fontsize=9, color=SOFT, va="center")
    box(axes, 5.75, 3.85, 3.0, 0.34, "verifier: a second look at the best", face="#dcefec", size=9.5)
    arrow(axes, (8.85, 4.9), (9.5, 4.9))
    for place, (item, share) in enumerate((("capo", 1.0), ("picks", 0.72), ("strap", 0.5), ("stand", 0.3))):
        y = 5.28 - place * 0.42
        axes.text(9.6, y + 0.15, f"{place + 1}", fontsize=10, va="center", color=SOFT)
        box(axes, 9.85, y, 1.85 * share, 0.32, face=ACCENT if place == 0 else "#a9c7e2")
        axes.text(9.95, y + 0.15, item, fontsize=9.5, va="center", color="white" if place == 0 else INK)
    draw_bars(figure.add_axes((0.055, 0.075, 0.925, 0.4)))
    save(figure, "overview", str(read_headline()))


def draw_bars(axes: Axes) -> None:
    """Grouped bars of the headline table, a dash for the nearest published figure."""
    series = ((0, "STREAM-Rec, this project", ACCENT), (3, "the better of TIGER and SASRec, told the rule on repeats", "#8fb8dc"),
              (2, "SASRec", "#b8c2cc"), (1, "TIGER", "#d5dbe1"))  # fmt: skip
    headline = {name: row for name, row in read_headline().items() if name.startswith(("amazon", "ml"))}
    for group, row in enumerate(headline.values()):
        for place, (column, label, color) in enumerate(series):
            x = group + (place - 1.5) * 0.2
            if not row[column]:
                axes.text(x, 0.002, "not run", ha="center", fontsize=7.5, color=SOFT, rotation=90)
                continue
            ((_, value),) = row[column]
            axes.bar(x, value, 0.18, color=color, label=label if group == 0 else None)
            axes.text(x, value + 0.0022, f"{value:.4f}"[1:], ha="center", fontsize=8.5, zorder=4,
                      weight="normal" if column else "bold", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3})  # fmt: skip
        for peer, value in row[4]:
            axes.hlines(value, group - 0.42, group + 0.42, color=WARM, linestyle=(0, (4, 2)), linewidth=1.4, zorder=3)
            below = value < max(figure for _, figure in row[4])
            x, y, side = (group + 0.13, value - 0.001, "center") if below else (group + 0.43, value + 0.0012, "right")
            text = f"{peer} {value:.4f}".replace(" 0.", " .")
            axes.text(
                x,
                y,
                text,
                ha=side,
                va="top" if below else "bottom",
                fontsize=7.5 if below else 8.5,
                color=WARM,
                zorder=4,
            )
    axes.hlines([], 0, 1, color=WARM, linestyle=(0, (4, 2)), label="nearest published, not run here")
    axes.set_xticks(range(len(headline)), headline, fontsize=10)
    axes.set(ylim=(0, 0.122), xlim=(-0.5, len(headline) - 0.5))
    axes.set_title("test NDCG@10, ranked against all items", loc="left", fontsize=11, weight="bold")
    axes.set_yticks([])
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    axes.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, 1.04))


def draw_semantic_id() -> None:
    """Text, embedding, and one code a level."""
    figure, axes = canvas(8, 1.9)
    box(axes, 0.2, 0.75, 1.9, 0.5, "“acoustic guitar”")
    arrow(axes, (2.15, 1.0), (2.75, 1.0))
    box(axes, 2.8, 0.75, 1.5, 0.5, "embedding", face="#d7e7f5")
    arrow(axes, (4.35, 1.0), (4.95, 1.0))
    tokens(axes, 5.0, 0.78, (12, 7, 201, 3), 0.55)
    for level, meaning in enumerate(("broad", "", "", "fine")):
        axes.text(5.27 + level * 0.594, 0.55, meaning, ha="center", fontsize=9, color=SOFT)
    axes.text(5.0, 1.4, "4 levels, 256 codes each", fontsize=9, color=SOFT)
    save(figure, "semantic-id")


def draw_state() -> None:
    """A history becomes one vector, which is compared with the vector of every item."""
    figure, axes = canvas(8, 1.9)
    for place, item in enumerate(("guitar", "strings", "tuner")):
        box(axes, 0.2 + place * 0.9, 0.75, 0.82, 0.5, item, size=9.5)
    arrow(axes, (2.95, 1.0), (3.5, 1.0))
    box(axes, 3.55, 0.75, 1.2, 0.5, "state", face=ACCENT, ink="white", weight="bold")
    for place, (item, size) in enumerate((("capo", 2.0), ("picks", 1.0), ("drum", 0.4))):
        y = 1.35 - place * 0.5
        arrow(axes, (4.8, 1.0), (5.45, y + 0.17))
        box(axes, 5.5, y, 0.8, 0.36, item, size=9.5)
        box(axes, 6.4, y + 0.08, 0.55 * size, 0.2, face="#a9c7e2")
    save(figure, "state")


def draw_view() -> None:
    """Five views of one history, each a score of every item."""
    figure, axes = canvas(8, 2.5)
    heights = ((0.3, 0.5, 0.2, 0.4), (0.9, 0.5, 0.3, 0.1), (0.6, 0.9, 0.1, 0.2), (0.5, 0.4, 0.8, 0.1), (0, 0, 0, 0.9))
    asks = ("is it likely to\nbe written?", "does it fit\nthe state?", "did it follow\nfor others?", "does it read\nalike?",
            "is it owned\nalready?")  # fmt: skip
    for place, (view, ask, bars) in enumerate(zip(VIEWS, asks, heights)):
        x = 0.2 + place * 1.55
        box(axes, x, 1.95, 1.35, 0.38, view, face="#fbe6d0", weight="bold")
        axes.text(x + 0.67, 1.65, ask, ha="center", va="center", fontsize=8.5, color=SOFT)
        axes.plot((x, x + 1.35), (0.35, 0.35), color=SOFT, linewidth=0.8)
        for item, (name, bar) in enumerate(zip(("capo", "picks", "strap", "tuner"), bars)):
            if bar:
                box(axes, x + 0.06 + item * 0.33, 0.35, 0.24, bar, face=WARM if view == "repeats" else "#a9c7e2")
            axes.text(x + 0.18 + item * 0.33, 0.22, name, ha="center", va="center", fontsize=6.5)
    save(figure, "view")


def draw_deliberation() -> None:
    """The views, times their weights, summed to one ranking."""
    figure, axes = canvas(8, 2.6)
    for place, (view, weight) in enumerate(zip(VIEWS, ("0", ".6", ".6", ".8", "−3"))):
        y = 2.1 - place * 0.46
        box(axes, 0.2, y, 1.4, 0.36, view, face="#fbe6d0")
        axes.text(2.05, y + 0.17, f"×  {weight}", va="center", ha="center", fontsize=11, weight="bold")
        arrow(axes, (2.5, y + 0.18), (3.6, 1.33))
    box(axes, 3.65, 1.1, 0.6, 0.46, "+", size=15, weight="bold")
    arrow(axes, (4.3, 1.33), (4.9, 1.33))
    for place, (item, share) in enumerate((("capo", 1.0), ("picks", 0.8), ("strap", 0.55))):
        box(axes, 4.95, 1.75 - place * 0.55, 2.3 * share, 0.4, item, face=ACCENT if place == 0 else "#a9c7e2",
            ink="white" if place == 0 else INK)  # fmt: skip
    axes.text(4.95, 0.25, "weights are fitted on validation users", fontsize=9, color=SOFT)
    save(figure, "deliberation")


def draw_verifier() -> None:
    """The best candidates get a second look, and change places."""
    figure, axes = canvas(8, 2.2)
    before, after = ("capo", "picks", "strap"), ("picks", "capo", "strap")
    for place, (left, right) in enumerate(zip(before, after)):
        y = 1.35 - place * 0.48
        box(axes, 0.2, y, 1.3, 0.38, f"{place + 1}   {left}")
        arrow(axes, (1.55, y + 0.19), (2.35, 1.06))
        arrow(axes, (5.4, 1.06), (6.2, y + 0.19))
        box(axes, 6.25, y, 1.5, 0.38, f"{place + 1}   {right}", face=ACCENT if place == 0 else "#a9c7e2",
            ink="white" if place == 0 else INK)  # fmt: skip
    box(axes, 2.4, 0.55, 2.95, 1.0, "verifier\nviews, closest text,\npopularity, length", face="#dcefec")
    save(figure, "verifier")


def draw_recipe() -> None:
    """What overrides what: the model's file, the data set's, the recipe's, the command line."""
    figure, axes = canvas(8, 1.9)
    layers = {
        "model's YAML": "defaults",
        "data set's YAML": "columns, filters",
        "recipe": "tuned",
        "--key=value": "yours",
    }
    for place, (name, note) in enumerate(layers.items()):
        x = 0.2 + place * 1.95
        face, ink = (WARM, "white") if name == "recipe" else (PALE, INK)
        box(axes, x, 0.75, 1.5, 0.5, name, face=face, ink=ink)
        axes.text(x + 0.75, 0.53, note, ha="center", fontsize=9, color=SOFT)
        if place:
            arrow(axes, (x - 0.42, 1.0), (x - 0.04, 1.0))
    axes.text(0.2, 1.45, "the later one wins", fontsize=9, color=SOFT)
    save(figure, "recipe")


def draw_repeats() -> None:
    """The same ranking with and without what the user has."""
    figure, axes = canvas(8, 2.2)
    ranking, owned = ("tuner", "capo", "strings", "picks"), ("tuner", "strings")
    axes.text(0.2, 1.85, "not told", fontsize=10, weight="bold")
    axes.text(4.2, 1.85, "told the rule on repeats", fontsize=10, weight="bold")
    for place, item in enumerate(ranking):
        face, ink = (WARM, "white") if item in owned else ("#a9c7e2", INK)
        box(axes, 0.2 + place * 0.9, 1.2, 0.82, 0.45, item, face=face, ink=ink)
    for place, item in enumerate(item for item in ranking if item not in owned):
        box(axes, 4.2 + place * 0.9, 1.2, 0.82, 0.45, item, face="#a9c7e2")
    box(axes, 0.2, 0.45, 0.25, 0.2, face=WARM)
    axes.text(0.55, 0.55, "is in the history already", fontsize=9, va="center", color=SOFT)
    save(figure, "repeats")


if __name__ == "__main__":
    for draw in (draw_overview, draw_semantic_id, draw_state, draw_view, draw_deliberation, draw_verifier, draw_recipe,
                 draw_repeats):  # fmt: skip
        draw()
