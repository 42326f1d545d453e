"""A T5-style encoder-decoder laid out for recommendation.

The arithmetic is that of T5 (Raffel et al., 2020): root-mean-square norm before
each block, bucketed relative positions, attention without scaling, ReLU
feed-forward, no biases. What differs is the layout:

* one history serves many decoder sequences (beams, rollouts, candidates), so
  decoder inputs are ``[B, G, T, H]`` and the encoder's keys and values are kept
  once per history and never copied per sequence;
* what all sequences of a history have read in common (the start token and the
  reasoning) is kept once as well, see :class:`Cache`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_stream.model.linear import Linear

__all__ = ["BackboneConfig", "Cache", "Decoder", "Encoder", "Memory", "attention", "relative_buckets"]


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes of encoder and decoder; METHOD: 4 + 4 layers, hidden 256, inner 1024, 4 heads of 64."""

    hidden_size: int = 256
    inner_size: int = 1024
    n_heads: int = 4
    head_size: int = 64
    encoder_layers: int = 4
    decoder_layers: int = 4
    dropout: float = 0.1
    buckets: int = 32
    max_distance: int = 128


@dataclass
class Memory:
    """What the decoder needs of the encoder, once per history.

    ``keys`` and ``values`` hold one ``[B, heads, L, head]`` tensor a layer;
    ``bias`` is ``[B, 1, 1, L]``: 0 where the history has a token, -inf at padding.
    """

    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor

    def repeat(self, times: int) -> Memory:
        """Every history ``times`` times in a row: [B, ...] -> [B * times, ...]."""
        again = lambda tensor: tensor.repeat_interleave(times, 0)  # noqa: E731
        return Memory([again(k) for k in self.keys], [again(v) for v in self.values], again(self.bias))

    def take(self, rows: Tensor) -> Memory:
        """The histories ``rows`` [R] only."""
        return Memory([k[rows] for k in self.keys], [v[rows] for v in self.values], self.bias[rows])


@dataclass
class Cache:
    """Self-attention keys and values of what was read so far, one entry a layer.

    ``shared`` is common to all sequences of a history (``[B, heads, P, head]``),
    ``own`` belongs to each sequence (``[B, G, heads, S, head]``); either may be None.
    """

    shared: list[tuple[Tensor, Tensor]] | None = None
    own: list[tuple[Tensor, Tensor]] | None = None

    @property
    def length(self) -> int:
        """Positions read so far."""
        return self.shared_length + (0 if self.own is None else self.own[0][0].shape[3])

    @property
    def shared_length(self) -> int:
        return 0 if self.shared is None else self.shared[0][0].shape[2]

    def as_shared(self) -> Cache:
        """Turn the past of single sequences (G = 1) into a prefix that many sequences can share."""
        if self.own is None:
            return self
        own = [(k[:, 0], v[:, 0]) for k, v in self.own]
        if self.shared is None:
            return Cache(shared=own)
        joined = [(torch.cat([ks, k], 2), torch.cat([vs, v], 2)) for (ks, vs), (k, v) in zip(self.shared, own)]
        return Cache(shared=joined)

    def flatten(self) -> Cache:
        """Make each of the G sequences a history of its own: own [B, G, ...] -> shared [B * G, ...]."""
        groups = self.own[0][0].shape[1]
        flat = Cache(own=[(k.flatten(0, 1)[:, None], v.flatten(0, 1)[:, None]) for k, v in self.own])
        if self.shared is not None:
            flat.shared = [(k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)) for k, v in self.shared]
        return flat.as_shared()

    def select(self, parents: Tensor) -> Cache:
        """Keep the sequences ``parents`` ([B, W], indices into G): [B, G, ...] -> [B, W, ...]."""
        if self.own is None:
            return self
        rows = torch.arange(parents.shape[0], device=parents.device)[:, None]
        return Cache(self.shared, [(k[rows, parents], v[rows, parents]) for k, v in self.own])

    def take(self, rows: Tensor) -> Cache:
        """The histories ``rows`` [R] only."""
        shared, own = (
            None if part is None else [(k[rows], v[rows]) for k, v in part] for part in (self.shared, self.own)
        )
        return Cache(shared, own)

    def join(self, other: Cache) -> Cache:
        """The sequences of both, which are of one length and share one past: [B, G + G', ...]."""
        if self.own is None:
            return self
        pairs = zip(self.own, other.own)
        return Cache(self.shared, [(torch.cat([k, k2], 1), torch.cat([v, v2], 1)) for (k, v), (k2, v2) in pairs])


class Dropout(nn.Module):
    """Dropout that costs little on the CPU.

    There PyTorch draws one number after another, a quarter of a training step at our sizes; here one draw of
    64 bits serves 8 elements. The rate is therefore rounded to 1/256, and the scale follows the rounded rate.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if not x.is_cpu:
            return F.dropout(x, self.rate)
        dropped = round(self.rate * 256)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        # 0 and 1 as bytes: turning bool into bfloat16 takes eight times as long
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape).ge_(dropped)
        return x * kept.to(x.dtype).mul_(256 / (256 - dropped))


def relative_buckets(distance: Tensor, bidirectional: bool, buckets: int, max_distance: int) -> Tensor:
    """T5's bucket of a relative position (key minus query): exact when near, logarithmic when far."""
    offset = torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    far = (
        exact
        + (torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)).long()
    )
    return offset + torch.where(distance < exact, distance, far.clamp(max=buckets - 1))


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: Dropout) -> Tensor:
    """``softmax(q k' + bias) v`` for q [.., Tq, D], k and v [.., Tk, D], bias broadcastable to [.., Tq, Tk].

    On the CPU the backward of the fused kernel costs several times that of the
    plain product at these sizes (speed/), on CUDA the fused kernel wins.
    """
    if not q.is_cpu:
        rate = dropout.rate if dropout.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype), dropout_p=rate, scale=1.0)
    weights = torch.softmax(q @ k.transpose(-1, -2) + bias, -1, dtype=torch.float32)
    return dropout(weights.to(v.dtype)) @ v


class RMSNorm(nn.Module):
    """T5's layer norm: scale by the root mean square, no shift."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, 1e-6)


class FeedForward(nn.Module):
    """norm -> wide -> ReLU -> narrow, added to the input."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size)
        self.wide = Linear(config.hidden_size, config.inner_size)
        self.narrow = Linear(config.inner_size, config.hidden_size)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.wide.weight, std=config.hidden_size**-0.5)
        nn.init.normal_(self.narrow.weight, std=config.inner_size**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.narrow(self.dropout(F.relu(self.wide(self.norm(x)), inplace=True))))


class SelfAttention(nn.Module):
    """Attention of a sequence to itself and to what was read before it."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads, self.size = config.n_heads, config.head_size
        width = self.heads * self.size
        self.norm = RMSNorm(config.hidden_size)
        self.qkv = Linear(config.hidden_size, 3 * width)
        self.out = Linear(width, config.hidden_size)
        self.dropout = Dropout(config.dropout)
        q, k, v = self.qkv.weight.chunk(3)
        nn.init.normal_(q, std=(config.hidden_size * self.size) ** -0.5)
        nn.init.normal_(k, std=config.hidden_size**-0.5)
        nn.init.normal_(v, std=config.hidden_size**-0.5)
        nn.init.normal_(self.out.weight, std=width**-0.5)

    def forward(
        self,
        x: Tensor,  # [N, T, H] or [B, G, T, H]
        bias: Tensor,  # broadcastable to [.., heads, T, P + S + T]
        shared: tuple[Tensor, Tensor] | None = None,  # [B, heads, P, D]
        own: tuple[Tensor, Tensor] | None = None,  # [B, G, heads, S, D]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, self.size)).movedim(-3, 0).transpose(-2, -3)
        if own is not None:
            k, v = torch.cat([own[0], k], -2), torch.cat([own[1], v], -2)
        if shared is None:
            mixed = attention(q, k, v, bias, self.dropout)  # [.., heads, T, D]
        else:
            mixed = self._with_prefix(q, k, v, bias, shared)
        return x + self.dropout(self.out(mixed.transpose(-2, -3).flatten(-2))), (k, v)

    def _with_prefix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, shared: tuple[Tensor, Tensor]) -> Tensor:
        # one product of all sequences' queries with the prefix of their history
        groups, steps = q.shape[1], q.shape[3]
        flat = q.transpose(1, 2).flatten(2, 3)  # [B, heads, G * T, D]
        prefix = (flat @ shared[0].transpose(-1, -2)).unflatten(2, (groups, steps)).transpose(1, 2)
        scores = torch.cat([prefix, q @ k.transpose(-1, -2)], -1) + bias
        weights = self.dropout(torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype))
        length = shared[0].shape[2]
        before = weights[..., :length].transpose(1, 2).flatten(2, 3) @ shared[1]
        return weights[..., length:] @ v + before.unflatten(2, (groups, steps)).transpose(1, 2)


class CrossAttention(nn.Module):
    """Attention of all sequences of a history to its encoder states."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads, self.size = config.n_heads, config.head_size
        width = self.heads * self.size
        self.norm = RMSNorm(config.hidden_size)
        self.query = Linear(config.hidden_size, width)
        self.out = Linear(width, config.hidden_size)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.query.weight, std=(config.hidden_size * self.size) ** -0.5)
        nn.init.normal_(self.out.weight, std=width**-0.5)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:  # x [B, G, T, H]
        groups, steps = x.shape[1:3]
        q = self.query(self.norm(x)).flatten(1, 2).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
        mixed = attention(q, keys, values, bias, self.dropout)  # [B, heads, G * T, D]
        mixed = self.out(mixed.transpose(1, 2).flatten(2)).unflatten(1, (groups, steps))
        return x + self.dropout(mixed)


class RelativeBias(nn.Module):
    """One learned number per head and bucket of relative position, shared by all layers."""

    def __init__(self, config: BackboneConfig, bidirectional: bool) -> None:
        super().__init__()
        self.bidirectional, self.buckets, self.max_distance = bidirectional, config.buckets, config.max_distance
        self.weight = nn.Parameter(torch.randn(config.buckets, config.n_heads) * config.hidden_size**-0.5)

    def forward(self, first_query: int, queries: int, keys: int) -> Tensor:
        """[heads, queries, keys] for queries at positions ``first_query ..`` and keys from 0."""
        device = self.weight.device
        distance = (
            torch.arange(keys, device=device) - torch.arange(first_query, first_query + queries, device=device)[:, None]
        )
        bias = self.weight[relative_buckets(distance, self.bidirectional, self.buckets, self.max_distance)]
        bias = bias.permute(2, 0, 1)
        return bias if self.bidirectional else bias.masked_fill(distance > 0, -torch.inf)


class Encoder(nn.Module):
    """Bidirectional encoder over the vectors of a history."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.bias = RelativeBias(config, bidirectional=True)
        self.attention = nn.ModuleList(SelfAttention(config) for _ in range(config.encoder_layers))
        self.feed_forward = nn.ModuleList(FeedForward(config) for _ in range(config.encoder_layers))
        self.norm = RMSNorm(config.hidden_size)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """x [B, L, H], padding [B, 1, 1, L] (0 or -inf) -> states [B, L, H]."""
        bias = self.bias(0, x.shape[1], x.shape[1]) + padding  # [B, heads, L, L]
        x = self.dropout(x)
        for attend, feed in zip(self.attention, self.feed_forward):
            x = feed(attend(x, bias)[0])
        return self.dropout(self.norm(x))


class Decoder(nn.Module):
    """Causal decoder: G sequences a history, all over one :class:`Memory`."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.layers, self.heads, self.size = config.decoder_layers, config.n_heads, config.head_size
        self.bias = RelativeBias(config, bidirectional=False)
        self.attention = nn.ModuleList(SelfAttention(config) for _ in range(self.layers))
        self.cross = nn.ModuleList(CrossAttention(config) for _ in range(self.layers))
        self.feed_forward = nn.ModuleList(FeedForward(config) for _ in range(self.layers))
        # keys and values of every layer's cross-attention in one product
        self.remember = Linear(config.hidden_size, self.layers * 2 * self.heads * self.size)
        nn.init.normal_(self.remember.weight, std=config.hidden_size**-0.5)
        self.norm = RMSNorm(config.hidden_size)
        self.dropout = Dropout(config.dropout)

    def memory(self, states: Tensor, padding: Tensor) -> Memory:
        """Encoder states [B, L, H] and padding [B, 1, 1, L] -> the keys and values of all layers."""
        kv = self.remember(states).unflatten(-1, (self.layers, 2, self.heads, self.size)).permute(2, 3, 0, 4, 1, 5)
        return Memory(list(kv[:, 0]), list(kv[:, 1]), padding)

    def forward(self, x: Tensor, memory: Memory, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """Read T more positions of G sequences a history.

        Args:
            x: input vectors [B, G, T, H].
            memory: of the B histories.
            past: what was read before; None at the start.

        Returns:
            the last hidden states [B, G, T, H] and the past that now includes x.
        """
        past = past or Cache()
        before = past.length
        bias = self.bias(before, x.shape[2], before + x.shape[2])
        x, own = self.dropout(x), []
        for layer in range(self.layers):
            x, keys_values = self.attention[layer](
                x,
                bias,
                None if past.shared is None else past.shared[layer],
                None if past.own is None else past.own[layer],
            )
            own.append(keys_values)
            x = self.cross[layer](x, memory.keys[layer], memory.values[layer], memory.bias)
            x = self.feed_forward[layer](x)
        return self.dropout(self.norm(x)), Cache(past.shared, own)
