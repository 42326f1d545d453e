"""What became of a tokenizer: use of the codebooks, collisions, reconstruction error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recbole_stream.tokenizer.collisions import group_ids
from recbole_stream.tokenizer.residual import row_chunks

__all__ = ["collision_summary", "level_usage", "perplexity", "reconstruction_error", "save_report"]


def perplexity(counts: np.ndarray) -> float:
    """`exp(−Σ p ln p)` of the shares p: the number of codes that, used equally, would be as varied."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def level_usage(codes: np.ndarray, codebook_sizes: tuple[int, ...]) -> list[dict]:
    """Per level: `codebook_size`, `used` and `dead` codes, `perplexity`, `counts` (items per code, `[K]`)."""
    levels = []
    for column, size in zip(codes.T, codebook_sizes, strict=True):
        counts = np.bincount(column, minlength=size)
        used = int((counts > 0).sum())
        levels.append(
            {
                "codebook_size": size,
                "used": used,
                "dead": size - used,
                "perplexity": perplexity(counts),
                "counts": counts.tolist(),
            }
        )
    return levels


def collision_summary(codes: np.ndarray) -> dict:
    """Of `[n, m]` codes: `rate` (1 − distinct IDs / items), `items` that share an ID, `groups`, `largest_group`."""
    sizes = np.bincount(group_ids(codes))
    shared = sizes[sizes > 1]
    return {
        "rate": 1 - len(sizes) / len(codes),
        "items": int(shared.sum()),
        "groups": len(shared),
        "largest_group": int(sizes.max()),
    }


def reconstruction_error(embeddings: np.ndarray, reconstruct: Callable[[slice], np.ndarray]) -> dict:
    """`absolute`: the mean of `‖x − x̂‖²`; `relative`: the same as a share of the mean of `‖x − x̄‖²`.

    Args:
        embeddings: x, `[n, D]`.
        reconstruct: a slice of rows -> their x̂, `[b, D]`.
    """
    n = len(embeddings)
    mean = sum(embeddings[rows].sum(0, dtype=np.float64) for rows in row_chunks(n)) / n
    error = sum(float(np.square(embeddings[rows] - reconstruct(rows)).sum()) for rows in row_chunks(n)) / n
    variance = sum(float(np.square(embeddings[rows] - mean).sum()) for rows in row_chunks(n)) / n
    return {"absolute": error, "relative": error / variance if variance > 0 else 0.0}


def save_report(report: dict, folder: str | Path) -> None:
    """Writes `tokenizer.json` and `tokenizer.png` (items per code at each level, sorted) into the folder.

    Raises:
        OSError: the folder cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    levels = report["levels"]
    before = report["levels_before"]
    figure = Figure(figsize=(3.2 * len(levels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, len(levels), squeeze=False)[0])
    for number, (axis, level) in enumerate(zip(axes, levels, strict=True), start=1):
        counts = np.sort(level["counts"])[::-1]
        axis.fill_between(np.arange(len(counts)), counts, step="mid", alpha=0.5, label="final IDs")
        if number <= len(before):
            trained = np.sort(before[number - 1]["counts"])[::-1]
            axis.step(np.arange(len(trained)), trained, where="mid", color="black", linewidth=0.8, label="as quantised")
        axis.set_title(
            f"level {number}: {level['used']} of {level['codebook_size']} used,\nperplexity {level['perplexity']:.0f}",
            fontsize=9,
        )
        axis.set_xlabel("code, by use")
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("items")
    axes[0].legend(fontsize=8)
    collisions = report["collisions_before"]
    figure.suptitle(
        f"{report['method']}, {report['unique']}: {report['items']:,} items, "
        f"{collisions['rate']:.1%} collisions before, {report['items_moved']:,} items moved",
        fontsize=10,
    )
    figure.savefig(folder / "tokenizer.png", dpi=120)
