"""The models that are timed, and weights that have seen the data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.model.tokens import ItemTokens
from recbole_stream.precision import automatic_precision
from recbole_stream.training.loop import Objective, autocast
from recbole_stream.training.pretrain import Direct
from speed.data import Corpus

__all__ = ["DEFAULT", "PAPER", "TINY", "make_streamrec", "make_tiger", "optimise", "precision", "train_briefly"]

# the paper's backbone, and that of properties/model/TIGER.yaml and STREAMRec.yaml
PAPER = BackboneConfig()
DEFAULT = BackboneConfig(128, 512, 4, 32, 2, 2)
TINY = BackboneConfig(16, 32, 2, 8, 2, 2)


def precision() -> str:
    """What ``precision: auto`` means on this CPU."""
    return automatic_precision("cpu")


def make_tiger(codes: Tensor, codebook_size: int, config: BackboneConfig, history_input: str) -> TIGERModel:
    torch.manual_seed(0)
    return TIGERModel(config, _tokens(codes, codebook_size, config, history_input))


def make_streamrec(codes: Tensor, codebook_size: int, config: BackboneConfig, history_input: str) -> STREAMRecModel:
    """A STREAM-Rec as it enters Stage 2: a frozen reference, the slow decoder a copy of the direct one."""
    torch.manual_seed(0)
    model = STREAMRecModel(config, _tokens(codes, codebook_size, config, history_input))
    model.freeze_reference()
    model.start_from_direct()
    return model


def optimise(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    corpus: Corpus,
    batches: list[Tensor],
    mode: str,
) -> None:
    """Training steps as the project's loop takes them, for the rows of each batch, in precision ``mode``."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for rows in batches:
        losses = objective.losses(corpus.train.batch(rows))
        with autocast(corpus.train.targets.device, mode):
            loss, _ = next(losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def train_briefly(model: TIGERModel, corpus: Corpus, steps: int, name: str, cache_dir: str | None) -> TIGERModel:
    """Weights whose probabilities look like those of a trained model; kept in ``cache_dir`` under ``name``.

    How many prefixes a search can leave out depends on how certain the model is, so random weights would mislead.
    """
    file = Path(cache_dir) / "speed" / f"{corpus.name}-{name}-{steps}.pt" if cache_dir else None
    if file and file.exists():
        model.load_state_dict(torch.load(file))
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1, pct_start=0.1)
        batches: list[Tensor] = []
        while len(batches) < steps:
            batches += corpus.train.shuffled(256, len(batches))
        for rows in tqdm(batches[:steps], desc=f"train {name}", ncols=100, leave=False, disable=None):
            optimise(model, Direct(model, 0.0), optimizer, corpus, [rows], precision())
            schedule.step()
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), file)
    return model.eval().requires_grad_(False)


def _tokens(codes: Tensor, codebook_size: int, config: BackboneConfig, history_input: str) -> ItemTokens:
    return ItemTokens(codes, [codebook_size] * codes.shape[1], config.hidden_size, 1.0, history_input)
