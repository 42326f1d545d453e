"""``python -m speed large``: CPU seconds and peak memory of every step, from file to ranking, at growing sizes.

Each step runs in a process of its own. Where an epoch or the encoding of all texts would take hours, some steps or
texts are timed and the rest is computed; such rows say so. Results are added to a file of JSON, from which
``--plot`` draws seconds and memory against size, with the slopes between the smallest and the largest size.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from recbole_stream.errors import InputError
from recbole_stream.files import write_text
from speed.generate import Log, write
from speed.harness import hardware

__all__ = ["main", "slopes", "table"]

_STEPS = "check setup setup-recbole text tokenizer lookups pretrain match rank index".split()
_COMMON = ("seconds", "wall_seconds", "peak_mib")


def main(arguments: list[str]) -> dict[str, Any]:
    """The command ``large``; returns all that its file holds."""
    parser = argparse.ArgumentParser(prog="python -m speed large", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", default=",".join(_STEPS), help=f"some of {', '.join(_STEPS)}")
    parser.add_argument("--train-steps", type=int, default=20, help="optimiser steps that are timed")
    parser.add_argument("--users", type=int, default=256, help="users that are ranked")
    parser.add_argument("--limit-gib", type=float, help="private memory that a step may have; more ends it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data_path", default="dataset", help="folder into which the data sets are generated")
    parser.add_argument("--json", default="large.json", help="file to which the results are added")
    parser.add_argument("--label", default="", help="name of a variant, kept beside the others")
    parser.add_argument("--plot", help="draw what the file holds into this picture, and measure nothing")
    given = parser.parse_args(arguments)
    file = Path(given.json)
    known = json.loads(file.read_text()) if file.is_file() else {"runs": []}
    if given.plot:
        plot(known["runs"], given.plot)
        return known
    steps = given.steps.split(",")
    unknown = [step for step in steps if step not in _STEPS]
    if unknown:
        raise InputError(f"--steps names {unknown[0]!r}: there are {', '.join(_STEPS)}.")
    log = Log(given.events, given.items, given.seed)
    name = f"synthetic-{log.events}-{log.items}"
    folder = Path(given.data_path) / name
    if not (folder / f"{name}.item").is_file():
        write(log, given.data_path, name)
    options = {"log": asdict(log), "folder": str(folder.resolve()), "threads": given.threads}
    options |= {"steps": given.train_steps, "users": given.users, "limit_gib": given.limit_gib}
    torch.set_num_threads(given.threads)
    for step in steps:
        found = _measure(options | {"step": step})
        run = {"events": log.events, "items": log.items, "seed": log.seed, "step": step, "label": given.label}
        known["runs"] = [other for other in known["runs"] if any(other[key] != run[key] for key in run)]
        known["runs"].append(
            run
            | {"parts": found, "limit_gib": given.limit_gib, "hardware": hardware()}
            | {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
            | {"command": " ".join(["python -m speed", *sys.argv[1:]])}
        )
        write_text(file, json.dumps(known, indent=1) + "\n")
        for part, figures in found.items():
            print(f"{log.events:>9} {log.items:>8}  {part:40} {_told(figures)}", flush=True)
    return known


def _measure(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a step found in a process of its own; only ``failed``, the last line of its error, where it ended early."""
    ended = subprocess.run(
        [sys.executable, "-m", "speed.large_steps", json.dumps(options)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": str(options["threads"])},
    )
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"ended by signal {-ended.returncode}"]
        return {options["step"]: {"failed": lines[-1][:300]}}
    return json.loads(ended.stdout.splitlines()[-1])


def _told(figures: dict[str, Any]) -> str:
    if "failed" in figures:
        return f"failed: {figures['failed']}"
    more = " ".join(f"{key} {value:,.4g}" for key, value in figures.items() if key not in _COMMON)
    return f"{figures['seconds']:10.2f} s ({figures['wall_seconds']:.2f}) {figures['peak_mib']:8.0f} MiB  {more}"


def slopes(points: list[tuple[float, float]]) -> float:
    """Exponent of a power law through points (size, value), by least squares on logarithms; NaN for less than two sizes."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    if len(set(xs)) < 2:
        return math.nan
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys)) / sum((x - mean_x) ** 2 for x in xs)


def table(runs: list[dict[str, Any]], value: str) -> dict[str, list[tuple[float, float]]]:
    """Part and label -> (events, value) by size, of the parts that have the value."""
    found: dict[str, list[tuple[float, float]]] = {}
    for run in sorted(runs, key=lambda run: run["events"]):
        for part, figures in run["parts"].items():
            if figures.get(value):
                name = f"{part} [{run['label']}]" if run["label"] else part
                found.setdefault(name, []).append((run["events"], figures[value]))
    return found


def plot(runs: list[dict[str, Any]], file: str) -> None:
    """Seconds and peak memory against events, with the slopes in the legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    for axes, (value, title) in zip(
        figure.subplots(1, 2), (("seconds", "CPU seconds"), ("peak_mib", "peak memory, MiB"))
    ):
        for number, (name, points) in enumerate(table(runs, value).items()):
            marker = "os^Dv*"[number // 10 % 6]
            axes.plot(*zip(*points), marker=marker, label=f"{name}: {slopes(points):.2f}")
        axes.set(xscale="log", yscale="log", xlabel="events (items: a tenth)", title=f"{title}; slopes in the legend")
        axes.legend(fontsize=7)
    figure.savefig(file)
