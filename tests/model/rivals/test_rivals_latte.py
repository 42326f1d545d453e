"""Latte: each start is a model of its own, and the mean of all ranks."""

import math

import torch
from helpers import backbone, catalogue, make_samples, random_histories

from recbole_stream.data.samples import Batch
from recbole_stream.decoding.mixture import MixtureRanker
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.rivals.latte import LatteModel
from recbole_stream.model.tokens import ItemTokens
from recbole_stream.training.latte import Latent

SIZES = (6, 4, 5)
CODES = catalogue(30, SIZES)
HISTORIES = random_histories(30, (3, 1, 5))


def latte(starts: int) -> LatteModel:
    torch.manual_seed(0)
    return LatteModel(backbone(), ItemTokens(CODES, SIZES, 16, 1.0, "tokens"), starts).eval()


def one_by_one(model: LatteModel, latent: int) -> torch.Tensor:
    """log P of every item [B, 30] by teacher forcing from one start."""
    scores = torch.zeros(len(HISTORIES), 30)
    for item in range(1, 31):
        targets = torch.full((len(HISTORIES),), item)
        logits = model.latent_logits(HISTORIES, targets, torch.full_like(targets, latent)).log_softmax(-1)
        labels = model.tokens.table[targets]
        scores[:, item - 1] = logits.gather(-1, labels[..., None])[..., 0].sum(1)
    return scores


@torch.no_grad()
def test_items_are_ranked_by_the_mean_of_probabilities():
    model = latte(3)
    expected = torch.stack([one_by_one(model, number).exp() for number in range(3)]).mean(0).log()
    ranker = MixtureRanker(model, Trie(CODES), 30, 0, 20)
    items, scores = ranker.rank(HISTORIES, 30)
    assert torch.allclose(scores, expected.sort(1, descending=True).values, atol=1e-4)
    assert torch.allclose(expected.gather(1, items - 1), scores, atol=1e-4)
    assert torch.allclose(ranker.scores_of_all(HISTORIES)[:, 1:], expected, atol=1e-4)
    assert torch.allclose(ranker.scores(HISTORIES, items), scores, atol=1e-4)


@torch.no_grad()
def test_two_equal_starts_are_one():
    model = latte(2)
    model.latents.weight[1] = model.latents.weight[0]
    both = MixtureRanker(model, Trie(CODES), 30, 0, 20).rank(HISTORIES, 5)
    assert torch.allclose(both[1], one_by_one(model, 0).topk(5, 1).values, atol=1e-4)


def test_every_start_is_drawn_and_learns():
    model = latte(4)
    samples = make_samples(random_histories(30, (2,) * 64), torch.arange(64) % 30 + 1)
    batch = Batch(samples.histories, samples.targets, torch.arange(64), draws=torch.Generator().manual_seed(1))
    loss, _ = next(Latent(model, 0.0).losses(batch))
    loss.backward()
    assert (model.latents.weight.grad.abs().sum(1) > 0).all()
    assert abs(loss.item() - math.log(model.tokens.vocabulary)) < 3  # of untrained weights
