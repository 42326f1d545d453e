"""Item 1: samples per second of training."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5ForConditionalGeneration

from recbole_stream.model.allocator import keep_freed_memory
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.training.losses import token_cross_entropy
from recbole_stream.training.pretrain import Direct
from speed.data import Corpus, load
from speed.harness import alternate, peak_product_rate, report
from speed.models import DEFAULT, PAPER, TINY, make_tiger, optimise, precision
from speed.rival import decoder_inputs, give_weights, history_ids, make_t5

__all__ = ["FULL", "TINY_SIZES", "Sizes", "loss_difference", "run"]


@dataclass(frozen=True)
class Sizes:
    """``batch`` samples a step; ``steps`` of ours and ``rival_steps`` of T5 are timed in each of ``rounds``.

    ``product``: width of the matrices whose product measures the peak; slow in bfloat16 on processors that lack it.
    """

    config: BackboneConfig = PAPER
    default: BackboneConfig = DEFAULT
    codebook_size: int = 256
    batch: int = 256
    steps: int = 6
    rival_steps: int = 1
    rounds: int = 5
    max_users: int | None = None
    product: int = 2048


FULL = Sizes()
TINY_SIZES = Sizes(TINY, TINY, 8, 16, 2, 1, 1, 60, 64)


def run(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """T5 in float32, padded to 20 items, against our loop's step: m tokens an item, one vector an item, default sizes."""
    keep_freed_memory()  # as train_stage does; T5 profits as well
    corpus = load(data_path, dataset, sizes.codebook_size, sizes.max_users)
    mode = precision()
    batches = corpus.train.shuffled(sizes.batch, 0)
    batches = [rows for rows in batches if len(rows) == sizes.batch]
    longest = corpus.train.histories  # [N, 20]
    names = {
        "tokens": (sizes.config, "tokens"),
        "item": (sizes.config, "item"),
        "default": (sizes.default, "item"),
    }
    sides, flops = {}, {}
    t5 = make_t5(sizes.config, corpus.codebook_size * corpus.codes.shape[1]).train()
    table = make_tiger(corpus.codes, corpus.codebook_size, sizes.config, "tokens").tokens
    rival_optimizer = torch.optim.AdamW(t5.parameters(), lr=1e-4)

    def rival() -> None:
        for rows in batches[: sizes.rival_steps]:
            ids, mask = history_ids(table, longest[rows])
            labels = table.table[corpus.train.targets[rows]]
            loss = t5_loss(t5, ids, mask, labels)
            rival_optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(t5.parameters(), 1.0)
            rival_optimizer.step()

    sides["t5"] = rival
    for name, (config, history_input) in names.items():
        model = make_tiger(corpus.codes, corpus.codebook_size, config, history_input).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        sides[name] = lambda m=model, o=optimizer: optimise(m, Direct(m, 0.0), o, corpus, batches[: sizes.steps], mode)
        with FlopCounterMode(display=False) as counter:
            sides[name]()
        flops[name] = counter.get_total_flops()
    times = alternate(sides, sizes.rounds)
    rate = {
        side: sizes.batch * (sizes.rival_steps if side == "t5" else sizes.steps) / statistics.median(values)
        for side, values in times.items()
    }
    peaks = {name: peak_product_rate(getattr(torch, name), size=sizes.product) for name in ("bfloat16", "float32")}
    figures: dict[str, object] = {f"samples_per_second_{side}": value for side, value in rate.items()}
    figures |= {f"ratio_{side}": rate[side] / rate["t5"] for side in names}
    figures |= {f"share_of_peak_{side}": flops[side] / statistics.median(times[side]) / peaks[mode] for side in names}
    figures |= {
        "peak_gflops_bfloat16": peaks["bfloat16"] / 1e9,
        "peak_gflops_float32": peaks["float32"] / 1e9,
        "precision": mode,
        "mean_history": float(corpus.train.lengths.float().mean()),
        "loss_difference": loss_difference(corpus, sizes.config, batches[0]),
        "data": corpus.name,
    }
    return report("training", rate["tokens"] / rate["t5"], figures, times, asdict(sizes), file)


def t5_loss(t5: T5ForConditionalGeneration, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of T5 over the tokens [B, m] of the targets."""
    logits = t5(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_inputs(labels)).logits
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten() + 1)


@torch.no_grad()
def loss_difference(corpus: Corpus, config: BackboneConfig, rows: Tensor) -> float:
    """|our loss - T5's loss| of one batch with the same weights, in float32 without dropout: they are one function."""
    model: TIGERModel = make_tiger(corpus.codes, corpus.codebook_size, config, "tokens").eval()
    t5 = make_t5(config, model.tokens.vocabulary).eval()
    give_weights(model, t5)
    batch = corpus.train.batch(rows)
    labels = model.tokens.table[batch.targets]
    ours = token_cross_entropy(model.item_logits(batch.histories, batch.targets), labels)
    theirs = t5_loss(t5, *history_ids(model.tokens, corpus.train.histories[rows]), labels)
    return float((ours - theirs).abs())
