"""RPG's equations by hand, and its model against a plain reading of the paper."""

import math

import pytest
import torch
import torch.nn.functional as F

from recbole_stream.model.rivals.rpg import RPGModel, digit_loss, item_scores
from recbole_stream.training.all_positions import next_items
from tests.helpers import backbone, random_histories


def model(temperature=0.5):
    torch.manual_seed(0)
    codes = torch.tensor([[0, 1, 2], [2, 1, 0], [1, 1, 1], [0, 0, 0], [2, 2, 1]])
    rpg = RPGModel(backbone(), codes, 3, temperature).eval()
    torch.nn.init.normal_(rpg.project, std=0.3)
    return rpg


def test_digit_loss_is_the_mean_of_all_codes_cross_entropies():
    # two digits of two codes, one item with codes (0, 1): P = 3/4 of code 0, P = 1/5 of code 1
    logits = torch.tensor([[[math.log(3.0), 0.0]], [[math.log(4.0), 0.0]]])
    expected = -(math.log(3 / 4) + math.log(1 / 5)) / 2
    assert digit_loss(logits, torch.tensor([[0, 1]])) == pytest.approx(expected)


def test_item_scores_are_sums_of_log_probabilities():
    log_probs = torch.tensor([[[-1.0, -2.0], [-5.0, -6.0]], [[-3.0, -4.0], [-7.0, -8.0]]])  # [m, N, K]
    table = torch.tensor([[0, 2], [1, 2], [0, 3]])  # digit 1 has codes 2 and 3
    assert item_scores(log_probs, table).tolist() == [[-4.0, -5.0, -5.0], [-12.0, -13.0, -13.0]]


def test_an_item_is_the_mean_of_its_codes():
    rpg = model()
    rows = rpg.embedding.weight[[0, 3 + 1, 6 + 2]]  # codes 0, 1, 2 of digits 0, 1, 2
    assert torch.allclose(rpg.items(torch.tensor([[1]]))[0, 0], rows.mean(0))


def test_every_code_has_a_softmax_of_cosines_from_a_projection_of_its_own():
    rpg, state = model(temperature=0.5), torch.randn(1, 16)
    for digit in range(3):
        own = state[0] + F.silu(rpg.project[digit] @ state[0])
        cosines = F.cosine_similarity(own[None], rpg.embedding.weight[3 * digit : 3 * digit + 3])
        assert torch.allclose(rpg.logits(state)[digit, 0], cosines / 0.5, atol=1e-5)


def test_scores_are_the_log_probabilities_of_independent_codes():
    rpg, history = model(), torch.tensor([[2, 5, 0]])
    scores = rpg(history)[0]
    log_probs = rpg.logits(rpg.states(history)[:, 1])[:, 0].log_softmax(-1)  # the state after the second item
    codes = rpg.table - rpg.offsets
    expected = torch.stack([sum(log_probs[digit, codes[item, digit]] for digit in range(3)) for item in range(1, 6)])
    assert torch.allclose(scores[1:], expected, atol=1e-5)


def test_all_positions_at_once_are_the_prefixes_one_by_one():
    rpg, histories = model(), random_histories(5, [4, 2, 1])
    targets = torch.tensor([3, 1, 2])
    labels = next_items(histories, targets)
    together = rpg.loss(histories, labels)
    alone = []
    for row, places in zip(histories, labels):
        for place in range(int((row > 0).sum())):
            log_probs = rpg.logits(rpg.states(row[None, : place + 1])[:, -1])[:, 0].log_softmax(-1)
            codes = rpg.table[places[place]] - rpg.offsets
            alone.append(-log_probs.gather(1, codes[:, None]).mean())
    assert len(alone) == 7 and torch.allclose(together, torch.stack(alone).mean(), atol=1e-5)
