"""Training on whole sequences: one pass predicts the next item of every position."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from recbole_stream.data.samples import Batch
from recbole_stream.training.loop import Objective

__all__ = ["AllPositions", "next_items"]


def next_items(histories: Tensor, targets: Tensor) -> Tensor:
    """What follows each item of a history, the target after the latest.

    Args:
        histories: item ids [B, L], 0 as padding on the right.
        targets: the next item [B].

    Returns:
        item ids [B, L], 0 at padding.
    """
    labels = torch.cat([histories[:, 1:], torch.zeros_like(histories[:, :1])], 1)
    last = (histories > 0).sum(1, keepdim=True).sub(1).clamp(min=0)
    return labels.scatter(1, last, targets[:, None])


class AllPositions(Objective):
    """The model's own loss of the next item, at every position of each sequence.

    Args:
        model: its ``loss(histories, labels)``, [B, L] each, is the mean over positions with a label.
        name: of the stage.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self.model, self.name = model, name

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        yield self.model.loss(batch.histories, next_items(batch.histories, batch.targets)), {}
