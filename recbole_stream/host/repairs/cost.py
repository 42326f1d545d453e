"""What RecBole's baselines compute for nothing, left out: the same scores, losses and gradients in less time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from recbole_stream.host.repairs.edit import edit

__all__ = ["convolve_over_channels", "in_groups", "leave_padding_out", "length_groups", "score_masked_items_alone"]

# A smaller group is computed with the next longer one: below it a product costs its call, not its rows.
FEWEST = 64


def leave_padding_out() -> None:
    """SASRec, GRU4Rec and BERT4Rec spend most of their time on padding.

    With 20 items of history at most and 5 on average, three quarters of what
    they compute is thrown away: sasrec.py:84, gru4rec.py:87, bert4rec.py:113.
    Rows of one batch are computed in groups of about equal length. The scores
    are the same, and so are losses and gradients; dropout draws other numbers.
    On a GPU, where a batch takes as long as its launches, nothing changes.
    """
    from recbole.model.sequential_recommender import BERT4Rec, GRU4Rec, SASRec

    SASRec.forward = _last_states(SASRec.forward)
    GRU4Rec.forward = _last_states(GRU4Rec.forward)
    BERT4Rec.forward = _all_states(BERT4Rec.forward)


def score_masked_items_alone() -> None:
    """BERT4Rec scores all items in every slot for a masked item, also in empty ones, which it then multiplies by 0.

    bert4rec.py:206-214: a history has as many slots as the longest one has masked items.
    """
    from recbole.model.sequential_recommender.bert4rec import BERT4Rec

    filled = "masked_index > 0"
    edit(
        BERT4Rec.calculate_loss,
        {
            "torch.matmul(seq_output, test_item_emb.transpose(0, 1))":
                f"torch.matmul(seq_output[{filled}], test_item_emb.transpose(0, 1))",
            "loss_fct(logits.view(-1, test_item_emb.size(0)), pos_items.view(-1))":
                f"loss_fct(logits, pos_items[{filled}])",
            "targets = (masked_index > 0).float().view(-1)":
                f"targets = (masked_index[{filled}] > 0).float()",
        },
    )  # fmt: skip


def convolve_over_channels() -> None:
    """Caser's filters are as wide as an embedding, and its one channel makes each a slow two-dimensional convolution.

    caser.py:117: the dimensions of the embedding as channels make it a convolution over places alone.
    """
    from recbole.model.sequential_recommender.caser import Caser

    channels = "item_seq_emb.squeeze(1).mT, conv.weight.squeeze(1).mT, conv.bias"
    edit(Caser.forward, {"conv(item_seq_emb).squeeze(3)": f"F.conv1d({channels})"})


def _last_states(stock: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(stock)
    def forward(self: Any, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        return in_groups(lambda *rows: stock(self, *rows), item_seq, item_seq_len)

    return forward


def _all_states(stock: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(stock)
    def forward(self: Any, item_seq: Tensor) -> Tensor:
        def padded(items: Tensor, _: Tensor) -> Tensor:
            # The states of padding are read by nobody, whatever they are.
            states = stock(self, items)
            return torch.nn.functional.pad(states, (0, 0, 0, item_seq.shape[1] - items.shape[1]))

        places = torch.arange(1, item_seq.shape[1] + 1, device=item_seq.device)
        return in_groups(padded, item_seq, ((item_seq != 0) * places).amax(1))

    return forward


def in_groups(network: Callable[[Tensor, Tensor], Tensor], items: Tensor, lengths: Tensor) -> Tensor:
    """Call ``network`` on groups of rows that are cut to about their lengths.

    Args:
        network: of histories [b, l] and their lengths [b]; returns [b, ...], where a row depends on no other row.
        items: histories [B, L], padded on the right.
        lengths: [B].

    Returns:
        [B, ...], what the network gives for the whole batch.
    """
    if items.device.type != "cpu":
        return network(items, lengths)
    groups = list(length_groups(lengths, items.shape[1]))
    if len(groups) == 1:
        return network(items[:, : groups[0][1]], lengths)
    parts = [network(items[rows, :width], lengths[rows]) for rows, width in groups]
    return torch.cat(parts)[torch.cat([rows for rows, _ in groups]).argsort()]


def length_groups(lengths: Tensor, longest: int) -> Iterator[tuple[Tensor, int]]:
    """Yield (rows, width): every row once, in groups of widths 1, 2, 4, .. that hold their lengths.

    Args:
        lengths: [B].
        longest: L, the greatest width.
    """
    lengths = lengths.clamp(max=longest)
    longest, below, width = int(lengths.max()), -1, 1
    waiting = torch.zeros_like(lengths, dtype=torch.bool)
    while below < longest:
        width = min(width, longest)
        waiting |= (lengths > below) & (lengths <= width)
        if waiting.sum() >= FEWEST or width == longest:
            yield waiting.nonzero().squeeze(1), max(width, 1)
            waiting = torch.zeros_like(waiting)
        below, width = width, 2 * width
