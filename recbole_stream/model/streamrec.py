"""STREAM-Rec: history -> reasoning tokens -> the m tokens of the next item.

Zhang et al., "Slow Thinking for Sequential Recommendation". Eq. 3 factorises
``P(i, O | S) = P(O | S) · P(i | O, S)``; one decoder, the slow one, writes both
parts. The direct decoder beside it is the fast reference of Eq. 16-18 and 26.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from recbole_stream.model.backbone import BackboneConfig, Encoder, Memory
from recbole_stream.model.deliberation import Deliberation
from recbole_stream.model.prefix import Prefix, TokenDecoder
from recbole_stream.model.reasoning import ReasoningHead, nearest_token
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.model.tokens import ItemTokens

__all__ = ["STREAMRecModel"]


class STREAMRecModel(nn.Module):
    """Encoder, slow decoder and reasoning head, and the direct decoder as reference.

    In Stage 1 the direct decoder (``reference.decoder``) trains over this model's own
    encoder and vocabulary. :meth:`freeze_reference` then copies both into
    ``reference``, so that π_ref stays one fixed distribution afterwards.

    Args:
        config: sizes of the backbone.
        tokens: the vocabulary and the items' semantic IDs.
        reasoning_mlp, reasoning_scale: see :class:`ReasoningHead`.
        deliberation: the other views of a history, which the generative one is weighed against at the end; None
            leaves the model to its likelihood, as in the paper.
    """

    def __init__(
        self,
        config: BackboneConfig,
        tokens: ItemTokens,
        reasoning_mlp: str = "residual",
        reasoning_scale: str = "raw",
        deliberation: Deliberation | None = None,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.encoder = Encoder(config)
        self.decoder = TokenDecoder(config)
        self.reasoning = ReasoningHead(config.hidden_size, reasoning_mlp, reasoning_scale)
        self.reference = TIGERModel(config, copy.deepcopy(tokens))
        self.deliberation = deliberation
        # reasoning tokens to write before the item: 0 until a stage has trained some (then q or l)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.share_reference()

    def share_reference(self) -> None:
        """Stage 1: only the direct decoder of the reference is a part of its own."""
        self.reference.requires_grad_(False)
        self.reference.decoder.requires_grad_(True)

    def freeze_reference(self, one_decoder: bool = False) -> None:
        """End of Stage 1: give the reference its own encoder and vocabulary, and fix it.

        Args:
            one_decoder: that stage had no similar items to write and trained the slow decoder as the direct one.
        """
        if one_decoder:
            self.reference.decoder.load_state_dict(self.decoder.state_dict())
        self.reference.encoder.load_state_dict(self.encoder.state_dict())
        self.reference.tokens.load_state_dict(self.tokens.state_dict())
        self.reference.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> STREAMRecModel:
        """As in torch, but a frozen reference never drops units: it is one fixed distribution."""
        super().train(mode)
        if not self.reference.decoder.start.requires_grad:
            self.reference.eval()
        return self

    def start_from_direct(self) -> None:
        """Let the slow decoder start from the direct one (``finetune_init: direct``)."""
        self.decoder.load_state_dict(self.reference.decoder.state_dict())

    def encode(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Item ids [B, L] (0 is padding, on the right) -> encoder states and padding bias."""
        inputs, bias = self.tokens.history(histories)
        return self.encoder(inputs, bias), bias

    def memory(self, histories: Tensor) -> Memory:
        """What the slow decoder attends to."""
        return self.decoder.stack.memory(*self.encode(histories))

    def begin(self, histories: Tensor) -> Prefix:
        """The prefix before the first reasoning token."""
        return self.decoder.begin(self.tokens, self.memory(histories))

    def think(self, prefix: Prefix, steps: int | None = None) -> tuple[Tensor, Prefix]:
        """Write the most likely reasoning, token by token.

        Args:
            prefix: before the first reasoning token, one sequence a history.
            steps: tokens to write; by default as many as the last stage trained.

        Returns:
            tokens [B, l] and the prefix after them, whose ``hidden`` [B, 1, l + 1, H] holds d_0 .. d_l.
        """
        written, hidden = [], [prefix.hidden]
        for _ in range(int(self.steps) if steps is None else steps):
            token = self.tokens.logits(prefix.hidden[:, :, -1]).argmax(-1)  # [B, 1]
            prefix = prefix.read(token[..., None])
            written.append(token)
            hidden.append(prefix.hidden)
        prefix.hidden = torch.cat(hidden, 2)
        tokens = torch.cat(written, 1) if written else prefix.hidden.new_zeros(len(prefix.hidden), 0, dtype=torch.long)
        return tokens, prefix

    @torch.no_grad()
    def collect(self, histories: Tensor, targets: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Residual reasoning traces for samples whose target is known (Eq. 12).

        Args:
            histories: item ids [B, L].
            targets: item ids [B].
            steps: l.

        Returns:
            tokens o_1 .. o_l [B, l], and which of them are codes of the target itself [B, l]: a trace made
            of those gives the answer away and cannot be reproduced when the target is not known.
        """
        target = self.tokens.representation(targets)  # t, [B, H]
        embeddings = self.tokens.embedding.weight
        prefix = self.begin(histories)
        hidden, traces = prefix.hidden[:, 0], []  # d_0 .. d_i, [B, i + 1, H]
        for _ in range(steps):
            state = self.reasoning.states(hidden)[:, -1:]
            residual = self.reasoning.residuals(target, state)
            traces.append(nearest_token(residual, embeddings))  # [B, 1]
            prefix = prefix.read(traces[-1][:, None])
            hidden = torch.cat([hidden, prefix.hidden[:, 0]], 1)
        tokens = torch.cat(traces, 1)
        own = (tokens[..., None] == self.tokens.table[targets][:, None]).any(-1)
        return tokens, own
