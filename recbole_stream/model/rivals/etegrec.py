"""ETEGRec: a generator and its tokenizer, which read each other's states.

Liu et al., "Generative Recommender with End-to-End Learnable Item Tokenization" (2024, arXiv:2409.05546), Section 3: the
RQ-VAE is the tokenizer, TIGER's encoder-decoder the generator. Two alignments join them. Sequence-item: the history's
mean state is quantised like an item, and its distributions over the codewords should be the target's. Preference-
semantic: the decoder's first state should recognise the target's reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.linear import Linear
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.model.tokens import ItemTokens
from recbole_stream.tokenizer.kmeans import squared_distances
from recbole_stream.tokenizer.residual import Quantised, residual_quantize
from recbole_stream.tokenizer.rq_vae import RQVAE
from recbole_stream.tokenizer.semantic_ids import make_unique

__all__ = ["ETEGRecModel", "Reading", "preference_alignment", "sequence_alignment", "token_log_probs"]


def token_log_probs(latents: Tensor, codebooks: Tensor) -> Tensor:
    """``log P(k | h_d)`` with ``P ~ exp(-|h_d - e_k|^2)`` at every level of a residual quantisation, [B, m, K].

    Args:
        latents: h_1, [B, d].
        codebooks: [m, K, d].
    """
    residuals = residual_quantize(latents, codebooks)[2]  # [B, m, d]
    distances = [squared_distances(residuals[:, level], codebook) for level, codebook in enumerate(codebooks)]
    return torch.stack([-distance for distance in distances], 1).log_softmax(-1)


def sequence_alignment(history: Tensor, target: Tensor) -> Tensor:
    """L_SIA: ``KL(P_target || P_history) + KL(P_history || P_target)``, mean over batch and levels.

    Args:
        history, target: log-probabilities of the codewords [B, m, K].
    """
    gap = target - history
    return ((target.exp() - history.exp()) * gap).sum(-1).mean()


def preference_alignment(preferences: Tensor, reconstructions: Tensor, items: Tensor, temperature: float) -> Tensor:
    """L_PSA: InfoNCE of cosines in both directions, mean over the batch; the same item in another row is no negative.

    Args:
        preferences: of the decoder's first state [B, D].
        reconstructions: of the target's embedding [B, D].
        items: numbers of the targets [B].
        temperature: above 0.
    """
    logits = F.normalize(preferences, dim=-1) @ F.normalize(reconstructions, dim=-1).T / temperature  # [B, B]
    own = torch.arange(len(items), device=items.device)
    same = (items[:, None] == items) & (own[:, None] != own)
    logits = logits.masked_fill(same, -torch.inf)
    return F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)


@dataclass
class Reading:
    """What the generator makes of a batch.

    Attributes:
        logits: of the target's tokens [B, m, V].
        latents: of the history, in the space that the tokenizer quantises [B, d].
        preferences: of the history, in the space of the items' embeddings [B, D].
    """

    logits: Tensor
    latents: Tensor
    preferences: Tensor


class ETEGRecModel(TIGERModel):
    """TIGER with an RQ-VAE that goes on learning.

    Args:
        config: sizes of the backbone.
        tokens: the vocabulary; its table changes when IDs are assigned anew.
        tokenizer: trained before.
        inputs: standardised embeddings of the items [n_items + 1, D], row 0 unused.
    """

    def __init__(self, config: BackboneConfig, tokens: ItemTokens, tokenizer: RQVAE, inputs: Tensor) -> None:
        super().__init__(config, tokens)
        self.tokenizer = tokenizer
        self.register_buffer("inputs", inputs)
        self.to_latent = Linear(config.hidden_size, tokenizer.codebooks.shape[-1])
        self.to_input = Linear(config.hidden_size, inputs.shape[1])

    def read(self, histories: Tensor, targets: Tensor) -> Reading:
        """Teacher forcing of the targets [B] after histories [B, L]."""
        inputs, bias = self.tokens.history(histories)
        states = self.encoder(inputs, bias)
        open_ = (bias == 0)[:, 0, 0, :, None].to(states.dtype)  # [B, L, 1]
        mean = (states * open_).sum(1) / open_.sum(1)
        labels = self.tokens.table[targets]
        read = self.tokens.embedding(labels[:, None, :-1])
        hidden = self.decoder(read, self.decoder.stack.memory(states, bias))[:, 0]  # [B, m, H]
        logits = self.tokens.logits(hidden)
        return Reading(logits, self.to_latent(mean).float(), self.to_input(hidden[:, 0]).float())

    @torch.no_grad()
    def assign(self, seed: int) -> int:
        """Give the items the IDs that the tokenizer has for them now, made unique; returns how many got another one."""
        latents = self.tokenizer.encoder(self.inputs[1:])
        codebooks = self.tokenizer.codebooks
        codes = residual_quantize(latents, codebooks)[0]
        found = Quantised(codes.cpu().numpy(), latents.cpu().numpy(), list(codebooks.cpu().numpy()), lambda q: q)
        unique = make_unique(found, codebooks.shape[1], "reassign", seed)[0]
        tokens = torch.from_numpy(unique).to(codes.device) + self.tokens.offsets
        changed = int((self.tokens.table[1:] != tokens).any(1).sum())
        self.tokens.table[1:] = tokens
        return changed

    def generator(self) -> list[nn.Parameter]:
        """All parameters but the tokenizer's."""
        own = {id(parameter) for parameter in self.tokenizer.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in own]
