"""ETEGRec's alignments by hand, and how its items get their IDs."""

import math

import helpers
import pytest
import torch

from recbole_stream.model.rivals.etegrec import (
    ETEGRecModel,
    preference_alignment,
    sequence_alignment,
    token_log_probs,
)
from recbole_stream.tokenizer.rq_vae import RQVAE, RQVAEOptions


def test_token_distributions_fall_with_the_squared_distance_of_each_residual():
    codebooks = torch.tensor([[[0.0], [3.0]], [[0.0], [-1.0]]])
    # h_1 = 2: distances 4 and 1; the nearer is 3, and h_2 = -1: distances 1 and 0
    log_p = token_log_probs(torch.tensor([[2.0]]), codebooks)
    first, second = math.log(1 + math.exp(-3)), math.log(1 + math.exp(-1))
    expected = torch.tensor([[[-3 - first, -first], [-1 - second, -second]]])
    torch.testing.assert_close(log_p, expected)


def test_sequence_alignment_is_the_divergence_in_both_directions():
    p, q = torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[0.25, 0.75]]])
    there = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    back = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    assert sequence_alignment(p.log(), q.log()).item() == pytest.approx(there + back)
    assert sequence_alignment(p.log(), p.log()).item() == 0


def test_preference_alignment_by_hand_leaves_out_the_same_item():
    preferences = torch.tensor([[2.0, 0.0], [0.0, 3.0], [4.0, 0.0]])
    reconstructions = torch.tensor([[5.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
    # cosines 1 with the own, 0 with the other item; rows 1 and 3 are one item and do not see each other. Row 2 sees two others
    one, two = math.log(1 + math.exp(-2)), math.log(1 + 2 * math.exp(-2))
    loss = preference_alignment(preferences, reconstructions, torch.tensor([7, 8, 7]), 0.5)
    assert loss.item() == pytest.approx(2 * (2 * one + two) / 3)


def test_items_get_the_tokenizers_ids_and_share_none():
    twin = helpers.tiger(helpers.catalogue(6, (4, 4)), (4, 4))
    torch.manual_seed(0)
    tokenizer = RQVAE(2, 2, 4, RQVAEOptions(hidden_sizes=(3,), latent_size=2))
    inputs = torch.randn(7, 2)
    inputs[2] = inputs[1]  # two items that the tokenizer cannot tell apart
    model = ETEGRecModel(helpers.backbone(), twin.tokens, tokenizer, inputs)
    model.assign(seed=0)
    codes = model.tokens.codes(model.tokens.table[1:])
    assert len({tuple(row) for row in codes.tolist()}) == 6 and codes.min() >= 0 and codes.max() < 4
    assert codes[0, 0] == codes[1, 0]  # one of the twins moved within its prefix
    assert model.assign(seed=0) == 0
    assert len(model.generator()) + len(list(tokenizer.parameters())) == len(list(model.parameters()))
    reading = model.read(torch.tensor([[1, 2], [3, 0]]), torch.tensor([4, 5]))
    assert (reading.logits.shape, reading.latents.shape, reading.preferences.shape) == ((2, 2, 8), (2, 2), (2, 2))
    # a history's padding says nothing
    alone = model.read(torch.tensor([[3]]), torch.tensor([5]))
    torch.testing.assert_close(alone.latents[0], reading.latents[1])
