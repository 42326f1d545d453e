"""Group relative policy optimisation (Eq. 20) as pure functions on tensors.

Shapes: B histories, G rollouts each, T tokens in a rollout. Everything is
computed in float32, whatever the precision of the inputs.
"""

import torch
from torch import Tensor

from recbole_stream.errors import InputError

__all__ = ["group_advantages", "combine_rewards", "kl_estimate", "grpo_loss"]


def group_advantages(rewards: Tensor, eps: float = 1e-4) -> Tensor:
    """Rewards less their group's mean, over their group's spread: [B, G].

    The spread is the population standard deviation plus ``eps``, which keeps a
    group whose rewards differ only by rounding (identical rollouts) from being
    blown up. A group of equal rewards gives exactly 0.

    Args:
        rewards: [B, G].
        eps: above 0, in the unit of the rewards.
    """
    r = rewards.float()
    centred = r - r.mean(-1, keepdim=True)
    # once more: the first mean is rounded at the size of the rewards, not of their spread
    centred = centred - centred.mean(-1, keepdim=True)
    spread = centred.square().mean(-1, keepdim=True).sqrt()
    equal = r.amax(-1, keepdim=True) == r.amin(-1, keepdim=True)
    return (centred / (spread + eps)).masked_fill(equal, 0.0)


def combine_rewards(
    rewards: dict[str, Tensor],
    weights: dict[str, float],
    normalise: str = "sum",
    eps: float = 1e-4,
) -> Tensor:
    """One advantage per rollout from several rewards: [B, G].

    ``sum`` adds the weighted rewards and normalises the sum within its group (the
    paper): the reward with the largest spread decides. ``each`` normalises every
    reward within its group, adds them by weight and divides by the spread over
    the whole batch (GDPO): the weights decide, and the scale does not depend on
    the number of rewards.

    Args:
        rewards: name -> [B, G].
        weights: name -> weight, for every name in ``rewards``.
        normalise: ``sum`` or ``each``.
        eps: see :func:`group_advantages`.

    Raises:
        InputError: ``normalise`` is neither.
    """
    if normalise == "sum":
        return group_advantages(sum(weights[k] * r.float() for k, r in rewards.items()), eps)
    if normalise == "each":
        total = sum(weights[k] * group_advantages(r, eps) for k, r in rewards.items())
        # every group's mean is 0, hence the batch's
        return total / (total.square().mean().sqrt() + eps)
    raise InputError(f"normalise is {normalise!r}; set it to 'sum' or 'each'.")


def kl_estimate(log_prob: Tensor, reference_log_prob: Tensor) -> Tensor:
    """Estimate of KL(pi_theta || pi_ref) per token, ``exp(d) - d - 1``: [..., T].

    ``d = log pi_ref - log pi_theta``. Unbiased when the tokens are sampled from
    pi_theta, and never negative.

    Args:
        log_prob, reference_log_prob: [..., T], of the sampled tokens; same shape.
    """
    d = reference_log_prob.float() - log_prob.float()
    # exp(d) - 1 would lose all digits at the small d with which training starts
    return torch.expm1(d) - d


def grpo_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    reference_log_probs: Tensor,
    advantages: Tensor,
    clip: float,
    kl_weight: float,
    importance_sampling: str = "sequence",
    mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped surrogate less the weighted KL, negated (Eq. 20), mean over the B * G outputs.

    ``sequence`` takes one ratio per output, that of its summed log-probabilities,
    as Eq. 20 writes it, and the KL of an output, the sum over its tokens.
    ``token`` takes one ratio per token and the means over an output's tokens of
    both terms. Where the ratio is 1, ``sequence`` has the gradient of plain
    policy gradient and ``token`` that over the output's length. In the first step
    after a rollout the ratio is 1 and the advantages of a group sum to 0, so the
    loss starts near 0 by construction; its gradient does not.

    Args:
        log_probs: [B, G, T], of the sampled tokens under pi_theta, with gradient.
        old_log_probs: [B, G, T], under the policy that sampled them.
        reference_log_probs: [B, G, T], under pi_SFT.
        advantages: [B, G].
        clip: the ratio counts between 1 - clip and 1 + clip.
        kl_weight: beta of Eq. 20.
        importance_sampling: ``sequence`` or ``token``.
        mask: [B, G, T], bool, the positions that count; all when absent.

    Returns:
        The loss and detached scalars: ``kl`` (nats, mean over the tokens that
        count), ``clip_share`` (share of ratios that the clip holds, and whose
        gradient is therefore 0) and ``ratio`` (mean).

    Raises:
        InputError: ``importance_sampling`` is neither.
    """
    if mask is None:
        mask = torch.ones_like(log_probs, dtype=torch.bool)
    # filled before any arithmetic: a masked position may hold -inf, and -inf - -inf is nan;
    # its ratio is 1 from here on, which no clip holds
    new, old, reference = (
        x.float().masked_fill(~mask, 0.0) for x in (log_probs, old_log_probs.detach(), reference_log_probs.detach())
    )
    advantages = advantages.detach().float()
    length = mask.sum(-1).clamp(min=1)  # [B, G]
    kl = kl_estimate(new, reference)  # [B, G, T]; 0 at masked positions

    if importance_sampling == "sequence":
        ratio = (new - old).sum(-1).exp()  # [B, G]
        surrogate, held = _clipped(ratio, advantages, clip)
        counts = mask.any(-1)
        output_kl = kl.sum(-1)
    elif importance_sampling == "token":
        ratio = (new - old).exp()  # [B, G, T]
        surrogate, held = _clipped(ratio, advantages[..., None], clip)
        surrogate = (surrogate * mask).sum(-1) / length  # [B, G]
        counts = mask
        output_kl = kl.sum(-1) / length
    else:
        raise InputError(f"importance_sampling is {importance_sampling!r}; set it to 'sequence' or 'token'.")

    loss = -(surrogate - kl_weight * output_kl).mean()
    scalars = {
        "kl": kl.detach().sum() / mask.sum().clamp(min=1),
        "clip_share": held.sum() / counts.sum().clamp(min=1),
        "ratio": (ratio.detach() * counts).sum() / counts.sum().clamp(min=1),
    }
    return loss, scalars


def _clipped(ratio: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """min(ratio A, clipped ratio A), and where the clipped one is the smaller."""
    free = ratio * advantages
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages
    return torch.minimum(free, clipped), clipped < free
