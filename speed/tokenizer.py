"""Item 6: embeddings to unique semantic IDs."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans

from recbole_stream.tokenizer.rq_vae import RQVAEOptions
from recbole_stream.tokenizer.semantic_ids import build_semantic_ids
from speed.harness import alternate, report, seconds

__all__ = ["FULL", "TINY_SIZES", "Sizes", "clustered", "large_catalogue", "residual_kmeans", "run"]


@dataclass(frozen=True)
class Sizes:
    """``items`` of ``dimensions`` for both methods; ``many`` items in a process of its own, whose memory is read."""

    items: int = 12_000
    dimensions: int = 384
    levels: int = 4
    codebook_size: int = 256
    rq_vae_epochs: int = 200
    rounds: int = 3
    many: int = 1_000_000


FULL = Sizes()
TINY_SIZES = Sizes(300, 16, 3, 8, 2, 1, 500)


def run(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """One k-means of scikit-learn a level against RQ-KMeans; RQ-VAE and the large catalogue by the clock."""
    vectors = clustered(sizes.items, sizes.dimensions)
    made: dict[str, object] = {}

    def rq_kmeans() -> None:
        made["kmeans"] = build_semantic_ids(
            vectors, levels=sizes.levels, codebook_size=sizes.codebook_size, seed=0, show_progress=False
        )

    def rival() -> None:
        made["sklearn"] = residual_kmeans(vectors, sizes.levels, sizes.codebook_size)

    times = alternate({"sklearn": rival, "rq_kmeans": rq_kmeans}, sizes.rounds)
    # as properties/model/TIGER.yaml sets it
    options = RQVAEOptions((256, 128), 64, sizes.rq_vae_epochs, 1e-3, 1024, 0.25)
    times["rq_vae"] = [
        seconds(
            lambda: made.update(
                vae=build_semantic_ids(
                    vectors,
                    method="rq_vae",
                    levels=sizes.levels,
                    codebook_size=sizes.codebook_size,
                    seed=0,
                    show_progress=False,
                    options=options,
                )
            )
        )
    ]
    large = json.loads(
        subprocess.run(
            [sys.executable, "-m", "speed.tokenizer", json.dumps(asdict(sizes)), str(torch.get_num_threads())],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
        ).stdout.splitlines()[-1]
    )
    median = {side: statistics.median(values) for side, values in times.items()}
    figures = {
        "rq_kmeans_seconds": median["rq_kmeans"],
        "rq_vae_seconds": median["rq_vae"],
        "distinct_ids_rq_kmeans": len(np.unique(made["kmeans"].codes, axis=0)),
        "distinct_ids_rq_vae": len(np.unique(made["vae"].codes, axis=0)),
        "squared_error_sklearn": made["sklearn"],
        "squared_error_rq_kmeans": made["kmeans"].report["reconstruction_before"]["absolute"],
        **large,
    }
    return report("tokenizer", median["sklearn"] / median["rq_kmeans"], figures, times, asdict(sizes), file)


def clustered(items: int, dimensions: int) -> np.ndarray:
    """Vectors of unit length around centres of several scales, as text embeddings are: float32 [items, dimensions]."""
    rng = np.random.default_rng(0)
    vectors = np.zeros((items, dimensions), dtype=np.float32)
    means = [
        rng.normal(size=(centres, dimensions)).astype(np.float32) * spread
        for centres, spread in ((30, 1.0), (600, 0.7), (max(1, min(items // 4, 50_000)), 0.5))
    ]
    for start in range(0, items, 1 << 14):  # whole arrays of centres and noise would multiply the memory
        part = vectors[start : start + (1 << 14)]
        for level in means:
            part += level[rng.integers(len(level), size=len(part))]
        part += rng.normal(size=part.shape).astype(np.float32) * 0.3
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def residual_kmeans(vectors: np.ndarray, levels: int, codebook_size: int) -> float:
    """The usual residual quantisation with scikit-learn; the mean squared error that is left."""
    residual = vectors.copy()
    for level in range(levels):
        fitted = KMeans(codebook_size, n_init=1, max_iter=50, random_state=level).fit(residual)
        residual -= fitted.cluster_centers_[fitted.labels_]
    return float(np.square(residual).sum(1).mean())


def large_catalogue(sizes: Sizes) -> dict[str, object]:
    """Seconds and memory of this process for IDs of ``many`` items, the embeddings themselves included."""
    vectors = clustered(sizes.many, sizes.dimensions)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ids = []
    elapsed = seconds(
        lambda: ids.append(
            build_semantic_ids(
                vectors, levels=sizes.levels, codebook_size=sizes.codebook_size, seed=0, show_progress=False
            )
        )
    )
    distinct = len(np.unique(ids[0].codes, axis=0))
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "large_items": sizes.many,
        "large_seconds": elapsed,
        "large_distinct_ids": distinct,
        "large_memory_gib": kib / 2**20,
        "large_memory_gib_before": before / 2**20,
    }


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print(json.dumps(large_catalogue(Sizes(**json.loads(sys.argv[1])))))
