"""Small random catalogues and models, and slow plain counterparts to test them against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recbole_stream.data.samples import Samples
from recbole_stream.model.backbone import BackboneConfig, Decoder, Encoder
from recbole_stream.model.deliberation import VIEWS, Deliberation
from recbole_stream.model.lookup import Content, Transitions
from recbole_stream.model.matching import Matcher
from recbole_stream.model.pointer import Pairs, Pointer
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.model.tokens import ItemTokens
from recbole_stream.model.verifier import Verifier

__all__ = [
    "backbone",
    "catalogue",
    "copy_t5",
    "deliberating",
    "make_samples",
    "next_log_probs",
    "pad",
    "random_histories",
    "random_verifier",
    "sequence_log_prob",
    "streamrec",
    "tiger",
]


# on tensors of this size threads wait for each other; on busy cores that takes many times as long as the work
torch.set_num_threads(1)


def catalogue(n_items: int, sizes: Sequence[int], seed: int = 0) -> Tensor:
    """``n_items`` different random semantic IDs [n_items, m] of at least two levels."""
    every = torch.cartesian_prod(*(torch.arange(size) for size in sizes))
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:n_items]]


def backbone(dropout: float = 0.0, layers: int = 2) -> BackboneConfig:
    return BackboneConfig(16, 32, 2, 8, layers, layers, dropout)


def _tokens(codes: Tensor, sizes: Sequence[int], history_input: str, temperature: float, seed: int) -> ItemTokens:
    torch.manual_seed(seed)
    return ItemTokens(codes, sizes, 16, temperature, history_input)


def tiger(
    codes: Tensor,
    sizes: Sequence[int],
    history_input: str = "tokens",
    dropout: float = 0.0,
    temperature: float = 1.0,
    seed: int = 0,
) -> TIGERModel:
    """A random TIGER of hidden size 16, in evaluation mode."""
    tokens = _tokens(codes, sizes, history_input, temperature, seed)
    return TIGERModel(backbone(dropout), tokens).eval()


def streamrec(
    codes: Tensor,
    sizes: Sequence[int],
    history_input: str = "tokens",
    dropout: float = 0.0,
    temperature: float = 1.0,
    seed: int = 0,
    mlp: str = "residual",
) -> STREAMRecModel:
    """A random STREAM-Rec of hidden size 16, in evaluation mode, whose reference is a frozen random TIGER."""
    tokens = _tokens(codes, sizes, history_input, temperature, seed)
    model = STREAMRecModel(backbone(dropout), tokens, mlp).eval()
    model.freeze_reference()
    return model


def deliberating(
    codes: Tensor,
    sizes: Sequence[int],
    off: Sequence[str] = (),
    text: bool = True,
    verifier: Verifier | None = None,
    pointed: bool = False,
) -> STREAMRecModel:
    """A random STREAM-Rec of two reasoning steps with all views, of which some are switched off; ``pointed``: a pointer for the verifier."""
    n_items, model = len(codes), streamrec(codes, sizes)
    model.steps.fill_(2)
    torch.manual_seed(1)
    texts = torch.randn(n_items + 1, 6) if text else None
    seen = random_histories(n_items, [4] * 60, seed=3)

    def counted(window: int = 2, backward: float = 0.5) -> Transitions:
        return Transitions(seen[:, :3], torch.full((60,), 3), seen[:, 3], n_items + 1, window, 0.5, backward, 0.7)

    transitions, pointer = counted(), None
    matcher = Matcher(backbone(), model.tokens.table, model.tokens.vocabulary, texts)
    nn.init.normal_(matcher.own.weight)  # states that tell items apart
    content = Content(texts, 0.7) if text else None
    if pointed:
        pairs = Pairs.counted(transitions, counted)
        pointer = Pointer(4, pairs, verifier.events)
        for parameter in pointer.parameters():
            nn.init.normal_(parameter, std=0.1)  # scores that no verifier cuts off
    model.deliberation = Deliberation(matcher, transitions, content, off, verifier, pointer).eval()
    return model


def random_verifier(codes: Tensor, pointed: bool = False, seed: int = 0) -> Verifier:
    """A trusted verifier of random weights, which reads a pointer's scores if ``pointed``."""
    torch.manual_seed(seed)
    verifier = Verifier(len(VIEWS), 4, torch.randint(0, 9, (len(codes) + 1,)), pointed)
    for parameter in verifier.parameters():
        nn.init.normal_(parameter)
    verifier.trusted.fill_(True)
    return verifier.requires_grad_(False).eval()


def pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """Lists of ids -> [B, L], 0 on the right."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def random_histories(n_items: int, lengths: Sequence[int], seed: int = 0) -> Tensor:
    """Item ids 1 .. n_items [B, L], right-padded with 0."""
    generator = torch.Generator().manual_seed(seed)
    return pad([torch.randint(1, n_items + 1, (length,), generator=generator).tolist() for length in lengths])


def make_samples(histories: Tensor, targets: Tensor) -> Samples:
    return Samples(histories, (histories > 0).sum(1), targets)


def next_log_probs(model: TIGERModel | STREAMRecModel, history: Tensor, read: Sequence[int]) -> Tensor:
    """log P of the token after ``read``, [V]: one history [L] alone, its padding cut off, read from scratch."""
    history = history[history > 0][None]
    inputs = model.tokens.embedding(torch.tensor(read, dtype=torch.long))[None, None]
    hidden = model.decoder(inputs, model.memory(history))[0, 0, -1]
    return model.tokens.logits(hidden).log_softmax(-1)


def sequence_log_prob(
    model: TIGERModel | STREAMRecModel, history: Tensor, read: Sequence[int], written: Sequence[int]
) -> Tensor:
    """log P(written | read, history): every token from scratch."""
    read, total = list(read), torch.zeros(())
    for token in written:
        total = total + next_log_probs(model, history, read)[token]
        read.append(int(token))
    return total


def copy_t5(t5: nn.Module, encoder: Encoder, decoder: Decoder) -> None:
    """Give our stacks the weights of a transformers ``T5ForConditionalGeneration`` of the same sizes."""

    def self_attention(ours: nn.Module, layer: nn.Module) -> None:
        theirs = layer.SelfAttention
        ours.qkv.weight.copy_(torch.cat([theirs.q.weight, theirs.k.weight, theirs.v.weight]))
        ours.out.weight.copy_(theirs.o.weight)
        ours.norm.weight.copy_(layer.layer_norm.weight)

    def feed_forward(ours: nn.Module, layer: nn.Module) -> None:
        ours.wide.weight.copy_(layer.DenseReluDense.wi.weight)
        ours.narrow.weight.copy_(layer.DenseReluDense.wo.weight)
        ours.norm.weight.copy_(layer.layer_norm.weight)

    with torch.no_grad():
        for ours, theirs in ((encoder, t5.encoder), (decoder, t5.decoder)):
            ours.bias.weight.copy_(theirs.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
            ours.norm.weight.copy_(theirs.final_layer_norm.weight)
            for number, block in enumerate(theirs.block):
                self_attention(ours.attention[number], block.layer[0])
                feed_forward(ours.feed_forward[number], block.layer[-1])
        remembered = []
        for ours, block in zip(decoder.cross, t5.decoder.block):
            theirs = block.layer[1].EncDecAttention
            ours.query.weight.copy_(theirs.q.weight)
            ours.out.weight.copy_(theirs.o.weight)
            ours.norm.weight.copy_(block.layer[1].layer_norm.weight)
            remembered += [theirs.k.weight, theirs.v.weight]
        decoder.remember.weight.copy_(torch.cat(remembered))
