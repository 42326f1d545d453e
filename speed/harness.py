"""What all speed benchmarks share: both sides in turn, medians, the machine's peak, the report."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy
import torch
import transformers
from torch import Tensor

__all__ = ["alternate", "hardware", "peak_product_rate", "report", "same_share", "seconds"]


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call; the queue of a GPU is emptied before and after."""
    _wait()
    began = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - began


def alternate(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Times every side once untimed and then ``rounds`` times in turn (A B A B ..), so that a machine that
    slows down or a neighbour that wakes up meets both.

    Returns:
        seconds of each call, by side.
    """
    for work in sides.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            times[name].append(seconds(work))
    return times


def peak_product_rate(dtype: torch.dtype, device: str = "cpu", size: int = 2048, repeats: int = 12) -> float:
    """The best rate of a large square matrix product on this machine, in FLOP/s."""
    a, b = torch.randn(size, size, device=device).to(dtype), torch.randn(size, size, device=device).to(dtype)
    a @ b
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(repeats))


def same_share(ours: Tensor, theirs: Tensor, our_scores: Tensor, tolerance: float = 1e-4) -> float:
    """Share of rows whose items are equal, up to the order of items whose scores tie within ``tolerance``.

    Args:
        ours, theirs: items [N, k], best first.
        our_scores: of ``ours`` [N, k].
    """
    same = 0
    for mine, other, scores in zip(ours.tolist(), theirs.tolist(), our_scores.tolist()):
        rank = dict(zip(mine, scores))
        same += all(
            a == b or (b in rank and abs(rank[b] - score) < tolerance) for a, b, score in zip(mine, other, scores)
        )
    return same / len(ours)


def hardware() -> dict[str, object]:
    """The machine and its versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    machine: dict[str, object] = {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": numpy.__version__,
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def report(
    name: str,
    ratio: float,
    figures: dict[str, object],
    times: dict[str, list[float]],
    sizes: dict[str, object],
    file: str | None,
) -> dict[str, object]:
    """Prints a result and writes it as JSON.

    Args:
        name: of the benchmark.
        ratio: the figure its goal speaks of.
        figures: everything else that was found, by name, units in the names.
        times: seconds of each timed call, by side.
        sizes: what was run.
        file: where to write; None writes nothing.
    """
    medians = {side: statistics.median(values) for side, values in times.items() if values}
    result = {
        "benchmark": name,
        "ratio": ratio,
        **figures,
        "median_seconds": medians,
        "seconds": times,
        "sizes": sizes,
        "hardware": hardware(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python -m speed", *sys.argv[1:]]),
    }
    print(f"{name}: ratio {ratio:.3g}")
    for key, value in {**figures, **{f"median seconds of {k}": v for k, v in medians.items()}}.items():
        print(f"  {key}: {value:.4g}" if isinstance(value, float) else f"  {key}: {value}")
    if file:
        Path(file).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
