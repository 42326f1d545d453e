"""The rival: ``T5ForConditionalGeneration`` of transformers, used as its documentation shows."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.model.tokens import ItemTokens

__all__ = ["allowed_tokens", "decoder_inputs", "generate_items", "give_weights", "history_ids", "make_t5"]


def make_t5(config: BackboneConfig, vocabulary: int) -> T5ForConditionalGeneration:
    """T5 of our sizes. Its token 0 is padding and start, its token v + 1 is our token v."""
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocabulary + 1,
            d_model=config.hidden_size,
            d_kv=config.head_size,
            d_ff=config.inner_size,
            num_layers=config.encoder_layers,
            num_decoder_layers=config.decoder_layers,
            num_heads=config.n_heads,
            relative_attention_num_buckets=config.buckets,
            relative_attention_max_distance=config.max_distance,
            dropout_rate=config.dropout,
            layer_norm_epsilon=1e-6,
            tie_word_embeddings=False,
            pad_token_id=0,
            decoder_start_token_id=0,
            eos_token_id=None,
        )
    )
    # our vocabulary has no padding token to predict: a bias keeps it out of the softmax
    t5.lm_head = torch.nn.Linear(config.hidden_size, vocabulary + 1)
    with torch.no_grad():
        t5.lm_head.bias.zero_()[0] = -1e9
    return t5


@torch.no_grad()
def give_weights(model: TIGERModel | STREAMRecModel, t5: T5ForConditionalGeneration) -> None:
    """Make T5 the same function as the model (history_input ``tokens``)."""
    tokens, stack = model.tokens, model.decoder.stack
    t5.shared.weight.copy_(torch.cat([model.decoder.start[None], tokens.embedding.weight]))
    for part in (t5.encoder, t5.decoder):
        part.embed_tokens.weight.copy_(t5.shared.weight)
    t5.lm_head.weight.copy_(F.pad(tokens.embedding.weight * tokens.scale, (0, 0, 1, 0)))
    remembered = stack.remember.weight.chunk(2 * stack.layers)
    for ours, theirs in ((model.encoder, t5.encoder), (stack, t5.decoder)):
        theirs.block[0].layer[0].SelfAttention.relative_attention_bias.weight.copy_(ours.bias.weight)
        theirs.final_layer_norm.weight.copy_(ours.norm.weight)
        for number, block in enumerate(theirs.block):
            attend, layer = ours.attention[number], block.layer[0]
            for name, weight in zip("qkv", attend.qkv.weight.chunk(3)):
                getattr(layer.SelfAttention, name).weight.copy_(weight)
            layer.SelfAttention.o.weight.copy_(attend.out.weight)
            layer.layer_norm.weight.copy_(attend.norm.weight)
            feed, layer = ours.feed_forward[number], block.layer[-1]
            layer.DenseReluDense.wi.weight.copy_(feed.wide.weight)
            layer.DenseReluDense.wo.weight.copy_(feed.narrow.weight)
            layer.layer_norm.weight.copy_(feed.norm.weight)
            if theirs is t5.decoder:
                cross, layer = ours.cross[number], block.layer[1]
                layer.EncDecAttention.q.weight.copy_(cross.query.weight)
                layer.EncDecAttention.k.weight.copy_(remembered[2 * number])
                layer.EncDecAttention.v.weight.copy_(remembered[2 * number + 1])
                layer.EncDecAttention.o.weight.copy_(cross.out.weight)
                layer.layer_norm.weight.copy_(cross.norm.weight)


def history_ids(tokens: ItemTokens, histories: Tensor) -> tuple[Tensor, Tensor]:
    """Item ids [B, L] -> T5's input ids [B, L * m] and attention mask."""
    ids = (tokens.table[histories] + 1).flatten(1)
    mask = (histories > 0).repeat_interleave(tokens.levels, 1)
    return ids * mask, mask.long()


def decoder_inputs(labels: Tensor) -> Tensor:
    """T5's decoder input ids for teacher forcing: the start token, then all labels but the last."""
    return F.pad(labels[..., :-1] + 1, (1, 0))


def allowed_tokens(codes: Tensor, tokens: ItemTokens) -> Callable[[int, Tensor], list[int]]:
    """The usual ``prefix_allowed_tokens_fn``: a dictionary from prefixes to the tokens that may follow."""
    following: dict[tuple[int, ...], set[int]] = {}
    for row in (codes + tokens.offsets + 1).tolist():
        for depth, token in enumerate(row):
            following.setdefault(tuple(row[:depth]), set()).add(token)
    lists = {prefix: sorted(found) for prefix, found in following.items()}
    return lambda _, sent: lists[tuple(sent.tolist()[1:])]


@torch.no_grad()
def generate_items(
    t5: T5ForConditionalGeneration,
    tokens: ItemTokens,
    histories: Tensor,
    beams: int,
    top: int,
    allowed: Callable[[int, Tensor], list[int]],
) -> Tensor:
    """The tokens [B, top, m] of the best items by ``generate``, as our tokens."""
    ids, mask = history_ids(tokens, histories)
    written = t5.generate(
        input_ids=ids,
        attention_mask=mask,
        num_beams=beams,
        num_return_sequences=top,
        do_sample=False,
        max_new_tokens=tokens.levels,
        min_new_tokens=tokens.levels,
        length_penalty=0.0,
        prefix_allowed_tokens_fn=allowed,
    )
    return (written[:, 1:] - 1).unflatten(0, (len(histories), top))
