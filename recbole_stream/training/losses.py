"""The losses of Stages 1 and 2 (Eq. 10 and 14-18) and of the matching tower as pure functions on tensors.

Eq. 19, ``L = L_SFT + lambda L_DPO + mu L_Quant + delta L_State``, is a plain sum
and is written where the objective is. Every function takes bfloat16 or float16
as well, computes in float32 (also under autocast) and returns a float32 scalar.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "token_cross_entropy",
    "state_weights",
    "state_contrast",
    "quantisation_loss",
    "dpo_loss",
    "catalogue_cross_entropy",
]

_KEPT = 1 << 24  # logits of a batch that are held from the forward to the backward pass, 64 MiB
_CELLS = 1 << 22  # of more than those, logits that are made at once


def token_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the target tokens, the mean over all tokens (Eq. 10).

    Args:
        logits: [B, T, V], already divided by the temperature of Eq. 11.
        labels: [B, T], token numbers below V.
        label_smoothing: share of the target mass that is spread evenly over the V tokens, 0 to 1.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), label_smoothing=label_smoothing)


def state_weights(steps: int, device: torch.device | str | None = None) -> Tensor:
    """Weights of the reasoning steps in Eq. 14, ``w_j = j / (1 + ... + l)``: [l], sum 1."""
    position = torch.arange(1, steps + 1, dtype=torch.float32, device=device)
    return position / position.sum()


def state_contrast(
    states: Tensor,
    targets: Tensor,
    target_ids: Tensor,
    temperature: float,
    part: slice = slice(None),
    similarity: str = "cosine",
) -> Tensor:
    """In-batch contrast of every reasoning state with its own target (Eq. 14).

    The paper prints the dot product s·t. States and targets differ several-fold in
    length, which decides a dot product and not a cosine. A batch-mate with the same
    target item is no negative and drops out of the denominator. Weighted sum over
    the steps, mean over the batch.

    Args:
        states: [B, l, H], s_1 .. s_l.
        targets: [N, H], t of each sample of the whole batch.
        target_ids: [N], item number of each sample's target.
        temperature: divides the similarities, above 0; the paper has none, which is 1.
        part: where the B states stand among the N samples; all by default.
        similarity: of a state and a target, ``cosine`` or ``dot``.
    """
    steps = states.shape[1]
    # autocast would turn the product back into bfloat16, whose cosines have two digits
    with torch.autocast(states.device.type, enabled=False):
        s, t = states.float(), targets.float()
        if similarity == "cosine":
            s, t = F.normalize(s, dim=-1), F.normalize(t, dim=-1)
        logits = s @ t.T / temperature  # [B, l, N]
    every = torch.arange(len(targets), device=states.device)
    columns = every[part, None]  # [B, 1]
    own = columns == every
    same_item = target_ids[part, None] == target_ids[None, :]
    logits = logits.masked_fill((same_item & ~own)[:, None, :], float("-inf"))
    log_share = logits.log_softmax(-1).gather(-1, columns[:, None].expand(-1, steps, 1))[
        ..., 0
    ]  # [B, l], of the own target
    return -(state_weights(steps, states.device) * log_share.mean(0)).sum()


def quantisation_loss(residuals: Tensor, tokens: Tensor, beta: float) -> Tensor:
    """``|sg[r] - o|^2 + beta |r - sg[o]|^2``, mean over samples and steps (Eq. 15).

    To be minimised: the minus sign printed in the paper would push residuals
    and tokens apart.

    Args:
        residuals: [B, l, H], r_1 .. r_l of Eq. 12.
        tokens: [B, l, H], embeddings of the tokens chosen for them.
        beta: weight of the pull on the residuals, at least 0.
    """
    r, o = residuals.float(), tokens.float()
    codebook = (r.detach() - o).square().sum(-1)  # [B, l]
    commitment = (r - o.detach()).square().sum(-1)
    return (codebook + beta * commitment).mean()


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Tensor:
    """``-log sigmoid(beta (logit+ - logit-))``, mean over the batch (Eq. 16-18).

    Args:
        policy_chosen, policy_rejected: [B], log pi_theta of the target and of the
            similar item, given history and reasoning, summed over the m tokens.
        reference_chosen, reference_rejected: [B], log pi_ref of the same items
            given the history alone (the direct decoder).
        beta: sharpness, above 0.
    """
    chosen = policy_chosen.float() - reference_chosen.float()  # Eq. 16
    rejected = policy_rejected.float() - reference_rejected.float()  # Eq. 17
    return -F.logsigmoid(beta * (chosen - rejected)).mean()  # Eq. 18


def catalogue_cross_entropy(states: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the next item over the whole catalogue, the mean over the batch.

    The value and the gradients of ``cross_entropy(states @ vectors.T, targets)`` without the padding item, with fewer
    passes over the logits. Where they do not fit, the matrix [B, n_items] is never held: a first pass sums the
    exponentials by chunks of items, the backward pass makes each chunk again. Products are in the type of autocast where
    it is on.

    Args:
        states: [B, H].
        vectors: of all items [n_items + 1, H], row 0 being padding.
        targets: item ids [B], from 1.
    """
    return _CatalogueCrossEntropy.apply(states, vectors, targets)


class _CatalogueCrossEntropy(torch.autograd.Function):
    """No value is read on the way, so that a GPU is never waited for."""

    @staticmethod
    def forward(ctx, states: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
        kind = states.device.type
        low_precision = kind != "meta" and torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if low_precision else vectors.dtype
        chunks, kept = _chunks(states, vectors), []
        with torch.autocast("cpu" if kind == "meta" else kind, enabled=False):
            low, sums, own = states.to(dtype), [], torch.zeros(len(targets), device=states.device)
            for chunk in chunks:
                logits = (low @ vectors[chunk].to(dtype).T).float()
                inside, columns = _places(targets, chunk)
                own += torch.where(inside, logits.gather(1, columns), 0)[:, 0]
                if len(chunks) == 1:
                    largest = logits.amax(1)
                    exponentials = logits.sub_(largest[:, None]).exp_()
                    total = exponentials.sum(1)
                    sums.append(largest + total.log())
                    kept = [exponentials, total]
                else:
                    sums.append(logits.logsumexp(1))
            normaliser = torch.stack(sums).logsumexp(0)  # [B]
        ctx.save_for_backward(states, vectors, targets, normaliser, *kept)
        ctx.dtype = dtype
        return (normaliser - own).mean()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        states, vectors, targets, normaliser, *kept = ctx.saved_tensors
        low, of_states = states.to(ctx.dtype), torch.zeros_like(states, dtype=torch.float32)
        of_vectors = torch.empty_like(vectors)
        of_vectors[0] = 0
        share = gradient / len(targets)
        for chunk in _chunks(states, vectors):
            part = vectors[chunk].to(ctx.dtype)
            # softmax minus one at the target, divided by B
            if kept:
                exponentials, total = kept
                error = exponentials * (share / total)[:, None]
            else:
                error = (low @ part.T).float().sub_(normaliser[:, None]).exp_().mul_(share)
            inside, columns = _places(targets, chunk)
            error.scatter_add_(1, columns, torch.where(inside, -share, 0).to(error.dtype))
            error = error.to(ctx.dtype)
            of_states += error @ part
            of_vectors[chunk] = (error.T @ low).to(vectors.dtype)
        return of_states.to(states.dtype), of_vectors, None


def _chunks(states: Tensor, vectors: Tensor) -> list[slice]:
    """Items, without the padding item: all, where their logits fit, else so many at a time."""
    if len(states) * len(vectors) <= _KEPT:
        return [slice(1, len(vectors))]
    width = max(1, _CELLS // len(states))
    return [slice(first, min(first + width, len(vectors))) for first in range(1, len(vectors), width)]


def _places(targets: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
    """Whether each target is in a chunk, and its column there, any where it is not; both [B, 1]."""
    inside = (targets >= chunk.start) & (targets < chunk.stop)
    return inside[:, None], (targets - chunk.start).clamp(0, chunk.stop - chunk.start - 1)[:, None]
