import itertools

import pytest
import torch
from helpers import catalogue, random_histories, sequence_log_prob, streamrec

from recbole_stream.decoding.beam import score_items
from recbole_stream.decoding.rollout import sample_rollouts

SIZES = (6, 4, 5)
CODES = catalogue(40, SIZES)
HISTORIES = random_histories(40, (7, 1, 4))


@torch.no_grad()
def test_outputs_are_drawn_from_the_policy():
    # 4 tokens, one of reasoning and two of the item: 64 outputs
    codes = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    model = streamrec(codes, (2, 2), temperature=2.0)
    histories = torch.tensor([[1, 4, 2], [3, 0, 0]])
    every = list(itertools.product(range(4), repeat=3))
    exact = torch.stack(
        [torch.stack([sequence_log_prob(model, history, [], output) for output in every]) for history in histories]
    ).exp()
    assert torch.allclose(exact.sum(1), torch.ones(2))

    torch.manual_seed(0)
    count = 20_000
    tokens, _ = sample_rollouts(model.begin(histories), count, steps=1, levels=2)
    assert tokens.shape == (2, count, 3)
    numbers = (tokens * torch.tensor([16, 4, 1])).sum(-1)
    seen = torch.stack([row.bincount(minlength=64) for row in numbers])

    def chi_squared(seen, probabilities):
        return ((seen - count * probabilities).square() / (count * probabilities)).sum().item()

    # 63 degrees of freedom: mean 63, variance 126; five deviations above are 119
    for row in range(2):
        assert chi_squared(seen[row], exact[row]) < 119
        assert chi_squared(seen[row], exact[1 - row]) > 1000  # the bound does tell distributions apart


@torch.no_grad()
def test_rollouts_differ_and_follow_the_seed():
    model = streamrec(CODES, SIZES)

    def sample(seed):
        torch.manual_seed(seed)
        return sample_rollouts(model.begin(HISTORIES), 6, 2, 3)[0]

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert len(sample(1).flatten(0, 1).unique(dim=0)) > 9  # of 18


@pytest.mark.parametrize("steps", [1, 3])
@torch.no_grad()
def test_the_thought_has_read_the_reasoning(steps):
    model = streamrec(CODES, SIZES)
    torch.manual_seed(0)
    tokens, thought = sample_rollouts(model.begin(HISTORIES), 4, steps, 3)
    assert tokens.shape == (3, 4, steps + 3)
    items = torch.tensor([[3, 40], [1, 2], [39, 5]])
    scores = score_items(thought.flatten(), items.repeat_interleave(4, 0)).unflatten(0, (3, 4))
    for row in range(3):
        for group in range(4):
            reasoning = tokens[row, group, :steps].tolist()
            for place in range(2):
                written = model.tokens.table[items[row, place]]
                plain = sequence_log_prob(model, HISTORIES[row], reasoning, written)
                assert scores[row, group, place].item() == pytest.approx(plain.item(), abs=1e-4)


def test_passes_no_gradient():
    model = streamrec(CODES, SIZES)
    _, thought = sample_rollouts(model.begin(HISTORIES), 2, 1, 3)
    assert not thought.hidden.requires_grad
