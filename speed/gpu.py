"""Item 8: one epoch of Stage 1 at the paper's size on a CUDA device."""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass

import torch

from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.tokenizer.neighbours import nearest_by_ids
from recbole_stream.training.pretrain import Pretrain
from speed.data import load
from speed.harness import alternate, report
from speed.models import PAPER, TINY, make_streamrec, optimise

__all__ = ["FULL", "TINY_SIZES", "Sizes", "run", "stage_1_epoch"]


@dataclass(frozen=True)
class Sizes:
    """One epoch in batches of ``batch``, of at most ``samples`` samples (0: all)."""

    config: BackboneConfig = PAPER
    codebook_size: int = 256
    batch: int = 256
    samples: int = 0
    rounds: int = 3
    max_users: int | None = None


FULL = Sizes()
TINY_SIZES = Sizes(TINY, 8, 16, 64, 1, 60)


def run(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """float32 against bfloat16 on the device; stops with status 3 where there is none."""
    if not torch.cuda.is_available():
        print(
            "There is no CUDA device on this machine: run `python -m speed gpu` on one that has a GPU.", file=sys.stderr
        )
        raise SystemExit(3)
    times, samples = stage_1_epoch(sizes, data_path, dataset, "cuda")
    median = {side: statistics.median(values) for side, values in times.items()}
    figures = {f"samples_per_second_{side}": samples / value for side, value in median.items()}
    figures["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return report("gpu", median["float32"] / median["bfloat16"], figures, times, asdict(sizes), file)


def stage_1_epoch(sizes: Sizes, data_path: str | None, dataset: str, device: str) -> tuple[dict[str, list[float]], int]:
    """Seconds of an epoch of Stage 1 in float32 and bfloat16, and its samples."""
    corpus = load(data_path, dataset, sizes.codebook_size, sizes.max_users)
    neighbours = nearest_by_ids(corpus.codes.numpy(), 2) + 1
    neighbours = torch.cat([torch.zeros(1, 2, dtype=torch.long), torch.from_numpy(neighbours)]).to(device)
    corpus.train = corpus.train.to(device)
    batches = corpus.train.shuffled(sizes.batch, 0)
    if sizes.samples:
        batches = batches[: -(-sizes.samples // sizes.batch)]
    sides = {}
    for mode in ("float32", "bfloat16"):
        model = make_streamrec(corpus.codes, corpus.codebook_size, sizes.config, "tokens").to(device).train()
        objective = Pretrain(model, neighbours, 0.0)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=True)
        sides[mode] = lambda m=model, j=objective, o=optimizer, p=mode: optimise(m, j, o, corpus, batches, p)
    return alternate(sides, sizes.rounds), sum(len(rows) for rows in batches)
