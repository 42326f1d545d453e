"""The five rewards of Stage 3 (Eq. 21-27) as pure functions on tensors.

G rollouts for each of B histories. Every function returns float32 [B, G]; none
passes a gradient on.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "SIMILARITY_STEPS",
    "SIMILARITY_ELSE",
    "RANKING_FIRST",
    "RANKING_STEPS",
    "RANKING_ELSE",
    "RANKING_LOWER_HALF",
    "format_reward",
    "exact_match_reward",
    "similarity_reward",
    "likelihood_reward",
    "ranking_reward",
]

# Eq. 24: (smallest share g that earns it, reward), the best first
SIMILARITY_STEPS = ((0.99, 0.5), (0.95, 0.1), (0.50, 0.05))
SIMILARITY_ELSE = -0.1

# Eq. 27 by the place p of the target: p = 1; (p below this share of K, reward), the best first; the middle; p >= K / 2
RANKING_FIRST = 0.2
RANKING_STEPS = ((0.1, 0.1), (0.2, 0.05))
RANKING_ELSE = 0.0
RANKING_LOWER_HALF = (0.5, -0.1)

# cosines of equal targets may differ by rounding; below this distance they are ties
COSINE_ROUNDING = 1e-6


def format_reward(tokens_are_item: Tensor) -> Tensor:
    """0 where the sampled item tokens are the ID of an existing item, else -1 (Eq. 21).

    Args:
        tokens_are_item: [B, G], bool.
    """
    return tokens_are_item.float() - 1.0


def exact_match_reward(sampled: Tensor, target: Tensor) -> Tensor:
    """Number of leading item tokens that equal the target's, 0 to m (Eq. 22-23).

    Args:
        sampled: [B, G, m], item tokens of the rollouts.
        target: [B, m], item tokens of the targets.
    """
    equal = sampled == target[:, None, :]
    return equal.long().cumprod(-1).sum(-1).float()


@torch.no_grad()
def similarity_reward(states: Tensor, targets: Tensor, part: slice = slice(None)) -> Tensor:
    """How well the rollout's mean state singles its target out of the batch (Eq. 24-25).

    ``g`` (Eq. 25) is the share of the batch's targets, the own one included, whose cosine
    with the mean state is at most that of the own target. It comes in steps of
    1/N: the first threshold of Eq. 24 needs batches of 100 or more, or it would
    be met by the best place alone.

    Args:
        states: [B, G, H], mean decoder state of each rollout.
        targets: [N, H], target representation t of each sample of the whole batch.
        part: where the B histories stand among the N samples; all by default.
    """
    batch = targets.shape[0]
    # autocast would turn the product back into bfloat16, where unequal cosines tie
    with torch.autocast(states.device.type, enabled=False):
        s = F.normalize(states.float(), dim=-1)
        t = F.normalize(targets.float(), dim=-1)
        cosine = s @ t.T  # [B, G, N]
    columns = torch.arange(batch, device=states.device)[part, None, None].expand(-1, states.shape[1], 1)
    own = cosine.gather(-1, columns)  # [B, G, 1]
    at_most_own = (cosine <= own + COSINE_ROUNDING).sum(-1)  # Eq. 25: g * N
    reward = torch.full_like(own[..., 0], SIMILARITY_ELSE)
    for share, value in reversed(SIMILARITY_STEPS):  # Eq. 24
        reward = reward.masked_fill(at_most_own >= _count(share, batch), value)
    return reward


@torch.no_grad()
def likelihood_reward(policy_log_prob: Tensor, reference_log_prob: Tensor) -> Tensor:
    """What the own thinking adds to the target's log-likelihood, in nats (Eq. 26).

    Args:
        policy_log_prob: [B, G], log P_theta(target | own thinking, history).
        reference_log_prob: [B], log P_ref(target | history).
    """
    return policy_log_prob.float() - reference_log_prob.float()[:, None]


@torch.no_grad()
def ranking_reward(target_log_prob: Tensor, candidate_log_probs: Tensor) -> Tensor:
    """Reward for the target's rank among similar items, given the own thinking (Eq. 27).

    K is the number C of similar items (50 in the paper), and the target is not
    one of them: it is ranked *against* the K items, so that its rank p runs from
    1 (above all of them) to K + 1. A candidate with the same likelihood counts
    as above the target. With K = 50: p = 1 gives 0.2, 2-4 give 0.1, 5-9 give
    0.05, 10-24 give 0 and 25-51 give -0.1.

    Args:
        target_log_prob: [B, G], log P_theta(target | own thinking, history).
        candidate_log_probs: [B, G, C], the same of the C similar items, the target left out.
    """
    target, candidates = target_log_prob.float(), candidate_log_probs.float()
    total = candidates.shape[-1]  # K
    rank = 1 + (candidates >= target[..., None]).sum(-1)  # [B, G], p
    reward = torch.full_like(target, RANKING_ELSE)
    share, value = RANKING_LOWER_HALF
    reward = reward.masked_fill(rank >= _count(share, total), value)
    for share, value in reversed(RANKING_STEPS):
        reward = reward.masked_fill(rank < _count(share, total), value)
    return reward.masked_fill(rank == 1, RANKING_FIRST)


def _count(share: float, total: int) -> int:
    """The smallest whole number that is at least ``share * total``.

    Comparing whole numbers keeps the thresholds exact: as floats, 95 of 100 may
    come out below .95 on one device and not on another.
    """
    return math.ceil(share * total - 1e-9)
