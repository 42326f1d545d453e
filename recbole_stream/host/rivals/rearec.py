"""ReaRec as a RecBole model: latent steps over RecBole's SASRec; see ``model.rivals.rearec`` for its source."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from recbole.config import Config
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.model.layers import MultiHeadAttention
from recbole.model.sequential_recommender.sasrec import SASRec
from torch import Tensor, nn

from recbole_stream.host.repairs.cost import in_groups
from recbole_stream.model.allocator import keep_freed_memory
from recbole_stream.model.rivals.rearec import (
    annealed_temperatures,
    loss_by_rows,
    ranking_state,
    reasoning_contrast,
    step_cross_entropy,
    step_diversity,
)

__all__ = ["ReaRec"]


@dataclass
class _Read:
    """What a layer has read: keys and values [B, heads, positions, size of a head]."""

    keys: Tensor
    values: Tensor


class ReaRec(SASRec):
    """SASRec whose last state is fed back: r_k = SASRec(history, r_0 + p_1, .., r_{k-1} + p_k) at the last position.

    p_k is the embedding of step k, which tells a latent step from an item. With 0 steps this is SASRec.
    """

    def __init__(self, config: Config, dataset: SequentialDataset) -> None:
        super().__init__(config, dataset)
        keep_freed_memory()  # scores of all items at all steps are large, and there are several copies of them
        self.way, self.steps = config["rearec"], config["rearec_steps"]
        self.temperature, self.base = config["rearec_temperature"], config["rearec_annealing"]
        self.kl_weight, self.noise = config["rearec_kl_weight"], config["rearec_noise"]
        self.step_embedding = nn.Embedding(self.steps, self.hidden_size)
        self._init_weights(self.step_embedding)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """The state that ranks the items [B, H], of histories [B, L] that are padded on the right."""
        return ranking_state(in_groups(self._states, item_seq, item_seq_len)[:, 0], self.way)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """ERL or PRL, of all steps."""
        targets = interaction[self.POS_ITEM_ID]
        contrasted = self.way == "prl" and self.steps and self.noise
        both = in_groups(
            functools.partial(self._states, noise=self.noise if contrasted else 0.0),
            interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN],
        )  # fmt: skip
        states = both[:, 0]  # [B, K + 1, H]
        if self.way == "erl":
            return loss_by_rows(self._ensemble, states / self.temperature, self.item_embedding.weight, targets)
        temperatures = annealed_temperatures(self.steps, self.temperature, self.base, states.device)
        vectors = self.item_embedding.weight
        loss = loss_by_rows(step_cross_entropy, states / temperatures[:, None], vectors, targets)
        if contrasted:
            loss = loss + reasoning_contrast(states[:, 1:], both[:, 1, 1:], self.temperature)
        return loss

    def _states(self, item_seq: Tensor, item_seq_len: Tensor, noise: float = 0.0) -> Tensor:
        """r_0 .. r_K of every history, [B, 1, K + 1, H]; with noise [B, 2, K + 1, H], without it and with it."""
        state, read, mask = self._read(item_seq, item_seq_len)
        ways = [self._reason(state, read, mask)]
        if noise:
            ways.append(self._reason(state, read, mask, noise))
        return torch.stack(ways, 1)

    def _ensemble(self, log_p: Tensor, targets: Tensor) -> Tensor:
        """ERL's loss of log-probabilities [B, K + 1, n_items]."""
        diversity = step_diversity(log_p) if self.steps and self.kl_weight else 0.0
        return step_cross_entropy(log_p, targets) + self.kl_weight * diversity

    def _read(self, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, list[_Read], Tensor]:
        """The history, as SASRec reads it: r_0 [B, H], what each layer keeps of it, and the mask of later positions."""
        places = self.position_embedding.weight[: item_seq.shape[1]]
        hidden = self.dropout(self.LayerNorm(self.item_embedding(item_seq) + places))
        mask, read = self.get_attention_mask(item_seq), []
        for layer in self.trm_encoder.layer:
            attention = layer.multi_head_attention
            read.append(_Read(_heads(attention, attention.key(hidden)), _heads(attention, attention.value(hidden))))
            hidden = layer(hidden, mask)
        state = self.gather_indexes(hidden, item_seq_len - 1)
        return state, read, torch.where(item_seq != 0, 0.0, -10000.0)[:, None, None]  # as get_attention_mask closes

    def _reason(self, state: Tensor, read: list[_Read], mask: Tensor, noise: float = 0.0) -> Tensor:
        """r_0 .. r_K [B, K + 1, H]; the inputs of the latent steps get Gaussian noise of this standard deviation."""
        states, read = [state], [_Read(layer.keys, layer.values) for layer in read]
        for step in range(self.steps):
            hidden = states[-1] + self.step_embedding.weight[step]
            hidden = self.dropout(self.LayerNorm(hidden))[:, None]  # [B, 1, H]
            if noise:
                hidden = hidden + noise * torch.randn_like(hidden)
            mask = F.pad(mask, (0, 1))
            for layer, seen in zip(self.trm_encoder.layer, read, strict=True):
                attention = layer.multi_head_attention
                seen.keys = torch.cat([seen.keys, _heads(attention, attention.key(hidden))], 2)
                seen.values = torch.cat([seen.values, _heads(attention, attention.value(hidden))], 2)
                hidden = layer.feed_forward(_attend(attention, hidden, seen, mask))
            states.append(hidden[:, 0])
        return torch.stack(states, 1)


def _heads(attention: MultiHeadAttention, vectors: Tensor) -> Tensor:
    """[B, L, H] -> [B, heads, L, size of a head]."""
    return attention.transpose_for_scores(vectors).transpose(1, 2)


def _attend(attention: MultiHeadAttention, hidden: Tensor, read: _Read, mask: Tensor) -> Tensor:
    """``MultiHeadAttention.forward`` (layers.py) of the last position [B, 1, H] alone, over all that was read."""
    scores = _heads(attention, attention.query(hidden)) @ read.keys.transpose(2, 3)  # [B, heads, 1, L]
    shares = attention.attn_dropout((scores / attention.sqrt_attention_head_size + mask).softmax(-1))
    context = (shares @ read.values).transpose(1, 2).flatten(2)  # [B, 1, H]
    return attention.LayerNorm(attention.out_dropout(attention.dense(context)) + hidden)
