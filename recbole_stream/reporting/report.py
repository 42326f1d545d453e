"""``report.html``: all that a run's folder holds about its results, in one file that opens without network."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_stream.errors import InputError
from recbole_stream.files import write_text
from recbole_stream.reporting.curves import curves_file, read_curves
from recbole_stream.reporting.layout import p_value
from recbole_stream.reporting.metrics import (
    binned_metric,
    main_metric,
    metric_title,
    shown_metrics,
    smaller_is_better,
    valid_metric,
)
from recbole_stream.reporting.page import Cell, code, figure, heading, note, page, picture, table, terms
from recbole_stream.reporting.plots import (
    HISTORY_BINS,
    POPULARITY_BINS,
    metric_by_bin,
    plot_bins,
    plot_costs,
    plot_curves,
)
from recbole_stream.reporting.ranks import ranks_file, read_ranks
from recbole_stream.reporting.results import RESULTS_FILE, Row, read_results
from recbole_stream.reporting.statistics import mean_and_deviation
from recbole_stream.reporting.tables import heading as column_heading
from recbole_stream.reporting.tables import lines_of, place_among

__all__ = ["REPORT_FILE", "write_report"]

REPORT_FILE = "report.html"

# keys that differ between any two models because they name the model or its files
_OWN_KEYS = ("model", "seed", "checkpoint_dir", "resume_dir")

# columns of comparison.csv that hold the figures of a paired test
_COMPARED = (
    "mean_a", "mean_b", "difference", "relative", "effect", "low", "high", "holm_bootstrap", "holm_wilcoxon",
)  # fmt: skip


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` from what the run's folder holds; returns its path.

    A section for which nothing is stored is left out. The same files give the same page, to the byte.

    Raises:
        InputError: the folder has no results, or one of its files is torn.
    """
    folder = Path(folder)
    rows = read_results(folder)
    if not rows:
        raise InputError(f"{folder / RESULTS_FILE} has no rows: let the run finish a model first.")
    sections = [
        ("Results", _results(rows)),
        ("Paired tests", _comparison(folder / "comparison.csv")),
        ("Accuracy and time", _costs(rows)),
        ("History length and popularity", _bins(folder, rows)),
        ("Training", _curves(folder, rows)),
        ("Semantic IDs", _tokenizers(folder, rows)),
        ("How it was made", _environment(rows)),
        ("Configuration", _configuration(rows)),
    ]
    title = f"{', '.join(_distinct(row.dataset for row in rows))}: {', '.join(_distinct(row.model for row in rows))}"
    text = page(title, _summary(rows), [(name, content) for name, content in sections if content])
    path = folder / REPORT_FILE
    write_text(path, text)
    return path


def _summary(rows: Sequence[Row]) -> str:
    seeds = _distinct(str(row.seed) for row in rows)
    dates = sorted(_distinct(str(row.run["date"]) for row in rows if row.run.get("date")))
    devices = _distinct(str(row.run["device"]) for row in rows if row.run.get("device"))
    parts = [("seed " if len(seeds) == 1 else "seeds ") + ", ".join(seeds)]
    parts += [f"device {', '.join(devices)}"] if devices else []
    parts += [dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"] if dates else []
    return " · ".join(parts)


def _results(rows: Sequence[Row]) -> str:
    """The table of results: a line for each model and stage, means over seeds."""
    groups, columns = lines_of(rows), shown_metrics(rows)
    lines: list[list[Cell]] = [[group.model, group.shown] for group in groups]
    for split, name in columns:
        means = [group.metric(split, name) for group in groups]
        for line, mean in zip(lines, means, strict=True):
            text, place = _with_deviation(mean, ".4f"), place_among(mean, means, smaller_is_better(name))
            line.append((text, ("strong", "u")[place]) if place in (0, 1) else text)
    for line, group in zip(lines, groups, strict=True):
        line.append(_with_deviation(_mean(row.train_seconds for row in group.rows), ".1f"))
        line.append(_with_deviation(_mean(row.rank_seconds_per_1000_users for row in group.rows), ".2f"))
        line.append(" / ".join(_distinct(f"{row.parameters:,}" for row in group.rows)))
        line.append(", ".join(str(row.seed) for row in group.rows))
    headings = ["Model", "Stage", *(column_heading(split, name) for split, name in columns)]
    headings += ["train s", "rank s/1000 users", "parameters", "seeds"]
    return table(headings, lines) + note(
        "Test split, unless a column says valid. Best of a column bold, second underlined. With several seeds: mean ± "
        "standard deviation (n − 1). Training seconds count all stages up to the row's."
    )


def _comparison(path: Path) -> str:
    """The paired tests as they are stored; significant differences bold."""
    if not path.is_file():
        return ""
    lines: list[list[Cell]] = []
    with _whole(path), path.open(encoding="utf-8", newline="") as file:
        for test in csv.DictReader(file):
            number = {name: float(test[name]) for name in _COMPARED}
            users, rows = test["users"], test.get("rows")
            difference = f"{number['difference']:+.4f}"
            lines.append([
                test["a"],
                test["b"],
                metric_title(test["metric"]),
                users if rows in (None, users) else f"{users} ({rows} rows)",
                f"{number['mean_a']:.4f}",
                f"{number['mean_b']:.4f}",
                (difference, "strong") if max(number["holm_bootstrap"], number["holm_wilcoxon"]) < 0.05 else difference,
                f"{number['low']:+.4f} to {number['high']:+.4f}",
                "–" if math.isnan(number["relative"]) else f"{number['relative']:+.1%}",
                f"{number['effect']:+.3f}",
                p_value(number["holm_bootstrap"]),
                p_value(number["holm_wilcoxon"]),
            ])  # fmt: skip
        if not lines:
            raise ValueError("it has no tests")
    headings = ["A", "B", "metric", "users", "A mean", "B mean", "A − B", "95 % interval", "relative", "effect d_z"]
    return table([*headings, "p bootstrap", "p Wilcoxon"], lines) + note(
        "A metric is averaged over a model's seeds before users are paired. Interval: percentile bootstrap over users, of "
        "its line alone. d_z: the mean difference in units of its standard deviation over users. Both p-values are "
        "two-sided and Holm-corrected over all lines; differences are bold where both are below 0.05."
    )


def _costs(rows: Sequence[Row]) -> str:
    metric = main_metric(rows)
    if metric is None or all(row.train_seconds is None and row.rank_seconds_per_1000_users is None for row in rows):
        return ""
    return figure(
        plot_costs(rows, metric),
        "costs",
        f"Test {metric_title(metric)} of every model and stage against its training time, its own and that of the stages "
        "before it, and against the time of ranking 1000 users. Bars: ± one standard deviation over seeds, if several.",
    )


def _bins(folder: Path, rows: Sequence[Row]) -> str:
    """A metric by history length and by popularity, for the checkpoints that the run keeps."""
    metric = binned_metric(rows)
    models: dict[str, list[Row]] = {}
    for row in rows:
        if row.final and ranks_file(folder, row.model, row.stage, row.seed).is_file():
            models.setdefault(row.model, []).append(row)
    ranks, depths = {}, []
    for model, group in models.items():
        name = f"{model} {'/'.join(_distinct(row.stage for row in group))}".strip()
        ranks[name] = [read_ranks(folder, row.model, row.stage, row.seed) for row in group]
        depths += [frame.attrs["depth"] for frame in ranks[name]]
    if not ranks or metric is None:
        return ""
    # runs that were gathered may know ranks less far down than others
    name, _, cutoff = metric.partition("@")
    metric = f"{name}@{min(int(cutoff), *depths)}"
    several = any(frame["user"].duplicated().any() for group in ranks.values() for frame in group)
    rule = (
        "are averaged over the user's rows in the bin and over seeds first"
        if several
        else "are averaged over seeds first"
    )
    figures = ""
    for column, bins, label in (
        ("history_length", HISTORY_BINS, "interactions in the user's history"),
        ("popularity", POPULARITY_BINS, "training events of the target item"),
    ):
        frames = {name: metric_by_bin(group, column, bins, metric) for name, group in ranks.items()}
        figures += figure(
            plot_bins(frames, label, metric),
            column,
            f"{metric_title(metric)} of test users by {label}. Bars: Wilson's 95 % interval over the users of a bin, whose "
            f"hits {rule}. Bins without users are left out; bars of bins of few users may leave the frame.",
        )
    return figures


def _curves(folder: Path, rows: Sequence[Row]) -> str:
    content: list[str] = []
    for model in _distinct(row.model for row in rows):
        stages: dict[str, dict[int, Mapping]] = {}
        metric = valid_metric(next(row for row in rows if row.model == model))
        for seed in sorted({row.seed for row in rows if row.model == model}):
            path = curves_file(folder, model, seed)
            if not path.is_file():
                continue
            with _whole(path):
                for stage in read_curves(folder, model, seed):
                    if stage["curves"]:
                        best = stage["valid"][metric]
                        known = {
                            "epoch": stage["epoch"],
                            "valid": {metric: best},
                            "curves": list(map(dict, stage["curves"])),
                        }
                        stages.setdefault(stage["stage"], {})[seed] = known
        for name, by_seed in stages.items():
            title = f"{model} {name}".strip()
            seeds = ", ".join(map(str, by_seed))
            caption = f"{title}, epoch by epoch; one line for each seed ({seeds}). The star is the epoch whose weights were kept"
            entered = any(stage["epoch"] < 0 for stage in by_seed.values())
            caption += " (−1: the model as it entered the stage)." if entered else "."
            content.append(heading(title) + figure(plot_curves(by_seed, metric), f"curves-{len(content)}", caption))
    return "".join(content)


def _tokenizers(folder: Path, rows: Sequence[Row]) -> str:
    """The tokenizer of the run, or that of each of its seeds."""
    content = _tokenizer(folder)
    for seed in sorted({row.seed for row in rows}):
        own = _tokenizer(folder / f"tokenizer-seed{seed}")
        content += heading(f"Seed {seed}") + own if own else ""
    return content


def _tokenizer(folder: Path) -> str:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return ""
    with _whole(path):
        report = json.loads(path.read_text(encoding="utf-8"))
        collisions = report["collisions_before"]
        facts = [
            ["method", str(report["method"])],
            ["made unique by", str(report["unique"])],
            ["items", f"{report['items']:,}"],
            [
                "collisions before",
                f"{collisions['rate']:.2%} ({collisions['items']:,} items in {collisions['groups']:,} groups)",
            ],
            ["items moved", f"{report['items_moved']:,}"],
        ]
        for key, name in (
            ("reconstruction_before", "reconstruction error before"),
            ("reconstruction", "reconstruction error"),
        ):
            if key in report:
                facts.append([name, f"{report[key]['relative']:.2%} of the variance of the embeddings"])
        levels = [
            [str(number), f"{level['codebook_size']:,}", f"{level['used']:,}", f"{level['perplexity']:.1f}"]
            for number, level in enumerate(report["levels"], 1)
        ]
    content = table([], facts, style="values") + note("The codes in use at each level:")
    content += table(["level", "codebook size", "used", "perplexity"], levels)
    file = folder / "tokenizer.png"
    if file.is_file():
        data = file.read_bytes()
        if not (data.startswith(b"\x89PNG") and data[-8:-4] == b"IEND"):
            raise InputError(f"{file} is not a whole picture: delete it and write the report again.")
        content += picture(data, "Items per code at each level, the most used code first.")
    return content


def _environment(rows: Sequence[Row]) -> str:
    """Command, seeds, hardware, versions; where rows of a resumed run differ, every value."""

    def every(key: str, text: Callable[[Any], str] = str) -> list[str]:
        return _distinct(text(row.run[key]) for row in rows if row.run.get(key))

    def listed(values: Mapping) -> str:
        return ", ".join(f"{key} {_value(value)}" for key, value in values.items() if value is not None)

    commands = "".join(map(code, every("command")))
    facts = [
        ["seeds", ", ".join(_distinct(str(row.seed) for row in rows))],
        ["seeding", "; ".join(every("seeding"))],
        ["date", "; ".join(every("date"))],
        ["device", "; ".join(every("device"))],
        ["hardware", "; ".join(every("hardware", listed))],
        ["versions", "; ".join(every("versions", listed))],
        [
            "text encoder",
            "; ".join(every("encoder", lambda value: listed(value) if isinstance(value, Mapping) else str(value))),
        ],
    ]
    return commands + table([], [fact for fact in facts if fact[1]], style="values")


def _configuration(rows: Sequence[Row]) -> str:
    """Keys in which the models differ as a table, then those that all share."""
    models: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        keys = models.setdefault(row.model, {})
        for key, value in _flat(row.run.get("configuration") or {}):
            if key not in _OWN_KEYS and value not in keys.setdefault(key, []):
                keys[key].append(value)
    every = sorted({key for values in models.values() for key in values})
    shown = {key: [" / ".join(values.get(key, ["–"])) for values in models.values()] for key in every}
    differing = [[key, *values] for key, values in shown.items() if len(set(values)) > 1]
    common = [(key, values[0]) for key, values in shown.items() if len(set(values)) == 1]
    content = ""
    if differing:
        content += note("Keys in which the models differ; – where a model does not have the key.")
        content += table(["key", *models], differing, style="values")
    if common:
        content += heading("The same for all models" if len(models) > 1 else "Keys") + terms(common)
    return content


def _flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    """("a.b", value as text) for each leaf of nested objects."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _value(value)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _mean(values: Iterable[float | None]) -> tuple[float, float | None] | None:
    """Mean and standard deviation over seeds; None where a seed has no value."""
    values = list(values)
    return None if None in values else mean_and_deviation(values)


def _with_deviation(mean: tuple[float, float | None] | None, form: str) -> str:
    if mean is None:
        return "–"
    return format(mean[0], form) + ("" if mean[1] is None else f" ± {mean[1]:{form}}")


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """A file that is not what it should be becomes one sentence."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        words = f"no {fault}" if isinstance(fault, KeyError) else str(fault)
        raise InputError(f"{path} cannot be read ({words}): delete it and write the report again.") from None
