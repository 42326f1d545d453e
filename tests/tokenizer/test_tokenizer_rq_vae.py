"""Eq. 5-8 by hand, which parameters each term moves, and a short training."""

import numpy as np
import pytest
import torch

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.kmeans import _split, kmeans, nearest_codeword, squared_distances
from recbole_stream.tokenizer.rq_vae import RQVAE, RQVAEOptions, residual_quantize, rq_vae, rq_vae_loss

CODEBOOKS = [torch.tensor([[0.0, 0.0], [4.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0], [-1.0, 1.0]])]
TINY = RQVAEOptions(hidden_sizes=(16,), latent_size=4, epochs=5, batch_size=32)


def clusters(n_clusters, per_cluster, dimensions=8, spread=0.05, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_clusters, dimensions))
    points = np.repeat(centres, per_cluster, axis=0) + spread * rng.normal(size=(n_clusters * per_cluster, dimensions))
    return points.astype(np.float32)


def test_residual_quantisation_by_hand():
    # (3, 5): nearest of level 1 is (4, 4), 1 + 1 = 2 against 9 + 25; residual (-1, 1) is codeword 2 of level 2.
    # (1, -.5): nearest of level 1 is (0, 0); residual (1, -.5): .25 to (1, 0), 1.25 to (0, -1), 6.25 to (-1, 1).
    h = torch.tensor([[3.0, 5.0], [1.0, -0.5]])
    codes, quantised, residuals = residual_quantize(h, CODEBOOKS)
    assert codes.tolist() == [[1, 2], [0, 0]]
    assert quantised.tolist() == [[3, 5], [1, 0]]
    assert residuals.tolist() == [[[3, 5], [-1, 1]], [[1, -0.5], [1, -0.5]]]


def test_loss_by_hand():
    # ‖x − x̂‖² = 1² + 2² = 5 and 0, mean 2.5. Residuals less codewords: item 1 (1, 0) and (0, 2): 1 + 4 = 5;
    # item 2 (1, 1) and (0, 0): 2; mean 3.5. Quantisation term (1 + .25) · 3.5 = 4.375; total 6.875.
    x, reconstruction = torch.tensor([[1.0, 2.0], [3.0, 3.0]]), torch.tensor([[0.0, 0.0], [3.0, 3.0]])
    residuals = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [5.0, 5.0]]])
    codewords = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [5.0, 5.0]]])
    total, reconstruction_term, quantisation_term = rq_vae_loss(x, reconstruction, residuals, codewords, beta=0.25)
    assert (total.item(), reconstruction_term.item(), quantisation_term.item()) == (6.875, 2.5, 4.375)


def test_stop_gradients_of_the_loss_by_hand():
    residuals = torch.tensor([[[1.0, 3.0]]], requires_grad=True)
    codewords = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    x = torch.zeros(1, 2)
    rq_vae_loss(x, x, residuals, codewords, beta=0.25)[0].backward()
    # h − e = (1, 2). Codebook term alone moves e: −2 (1, 2); commitment alone moves h: .25 · 2 (1, 2).
    assert codewords.grad.tolist() == [[[-2, -4]]]
    assert residuals.grad.tolist() == [[[0.5, 1]]]


def test_each_term_moves_its_own_parameters():
    torch.manual_seed(0)
    x = torch.randn(6, 8)

    def moved(term):
        model = RQVAE(8, 2, 4, TINY)
        h = model.encoder(x)
        codes, quantised, residuals = residual_quantize(h, model.codebooks)
        codewords = torch.stack([book[code] for book, code in zip(model.codebooks, codes.T, strict=True)], dim=1)
        reconstruction = model.decoder(h + (quantised - h).detach())
        terms = {
            "reconstruction": (x - reconstruction).square().sum(),
            "codebook of level 2": (residuals[:, 1].detach() - codewords[:, 1]).square().sum(),
            "commitment of level 2": (residuals[:, 1] - codewords[:, 1].detach()).square().sum(),
        }
        terms[term].backward()
        first, second = (0.0, 0.0) if model.codebooks.grad is None else model.codebooks.grad.abs().sum((1, 2)).tolist()
        grown = {"level 1": first > 0, "level 2": second > 0}
        for name in ("encoder", "decoder"):
            grown[name] = any(p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(model, name).parameters())
        return {name for name, value in grown.items() if value}

    assert moved("reconstruction") == {"encoder", "decoder"}  # straight through: past the codebooks
    assert moved("codebook of level 2") == {"level 2"}
    assert moved("commitment of level 2") == {"encoder"}


def test_forward_is_the_loss_of_its_parts():
    torch.manual_seed(0)
    model, x = RQVAE(8, 3, 4, TINY), torch.randn(5, 8)
    total, _, _, codes = model(x)
    h = model.encoder(x)
    expected_codes, quantised, residuals = residual_quantize(h, model.codebooks)
    codewords = torch.stack([model.codebooks[level][expected_codes[:, level]] for level in range(3)], dim=1)
    expected = rq_vae_loss(x, model.decoder(quantised), residuals, codewords, TINY.beta)[0]
    assert codes.equal(expected_codes) and codes.shape == (5, 3)
    torch.testing.assert_close(total, expected)


def test_straight_through_gradient_is_that_of_the_quantised_vector():
    # With a linear decoder W, ∂‖x − W q‖²/∂q = −2 Wᵀ(x − W q); h must receive exactly that.
    h = torch.tensor([[3.2, 5.1]], requires_grad=True)
    weight, x = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    quantised = residual_quantize(h, CODEBOOKS)[1]  # (3, 5)
    (x - (h + (quantised - h).detach()) @ weight.T).square().sum().backward()
    # W q = (13, 5), x − W q = (−12, −4), Wᵀ(·) = (−12, −28), times −2: (24, 56).
    assert h.grad.tolist() == [[24, 56]]


def test_dead_codes_move_onto_residuals():
    model = RQVAE(8, 2, 3, TINY)
    with torch.no_grad():
        model.codebooks.fill_(100.0)
        model.codebooks[0, 0] = 1.0
        model.codebooks[1, 0] = 0.5
    before = model.codebooks.detach().clone()
    used = torch.tensor([[7, 0, 3], [10, 0, 0]])
    # All latents at 2: residual of level 1 is 2, of level 2 is 2 − 1 = 1.
    model.revive_dead_codes(used, torch.full((5, 4), 2.0), torch.Generator().manual_seed(0))
    assert model.codebooks[0, 1].tolist() == [2.0] * 4
    assert model.codebooks[1, 1:].tolist() == [[1.0] * 4] * 2
    assert model.codebooks[0, [0, 2]].equal(before[0, [0, 2]]) and model.codebooks[1, 0].equal(before[1, 0])


def test_training_is_deterministic_and_leaves_the_global_random_state_alone(monkeypatch):
    def refuse(seed):
        raise AssertionError("the generators of the GPUs are seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)  # which no one would restore
    points = clusters(8, 12)
    state = torch.get_rng_state()
    first = rq_vae(points, 2, 8, seed=3, options=TINY, show_progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    torch.default_generator.manual_seed(99)
    second = rq_vae(points, 2, 8, seed=3, options=TINY, show_progress=False)
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.latents, second.latents)
    assert (rq_vae(points, 2, 8, seed=4, options=TINY, show_progress=False).latents != first.latents).any()


def test_training_separates_clusters_without_collapse():
    points = clusters(8, 30)
    options = RQVAEOptions(hidden_sizes=(32,), latent_size=8, epochs=80, batch_size=64)
    result = rq_vae(points, 2, 8, seed=0, options=options, show_progress=False)
    # Eight tight clusters, eight codes: items of a cluster share their first code, other clusters have others.
    first = result.codes[:, 0].reshape(8, 30)
    assert (first == first[:, :1]).all() and len(set(first[:, 0])) == 8
    quantised = sum(book[code] for book, code in zip(result.codebooks, result.codes.T, strict=True))
    error = np.square(points - result.decode(quantised)).sum(1).mean()
    assert error < 0.1 * np.square(points - points.mean(0)).sum(1).mean()


def test_constant_dimensions_and_fewer_items_than_codes():
    points = np.zeros((5, 3), dtype=np.float32)
    points[:, 0] = np.arange(5)
    result = rq_vae(points, 2, 16, seed=0, options=TINY, show_progress=False)
    assert result.codes.shape == (5, 2) and np.isfinite(result.latents).all()


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"beta": -1.0}, {"hidden_sizes": (0,)}])
def test_impossible_options_are_input_errors(wrong):
    with pytest.raises(InputError, match="RQ-VAE needs"):
        RQVAEOptions(**wrong)


def test_squared_distances_and_nearest_by_hand():
    points, codewords = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [3.0, 3.0]])
    assert squared_distances(points, codewords).tolist() == [[1, 18], [18, 1]]
    assert nearest_codeword(points, codewords).tolist() == [0, 1]


def test_kmeans_finds_separate_clusters_and_their_means():
    points = torch.from_numpy(clusters(6, 20))
    codewords, codes = kmeans(points, 6, torch.Generator().manual_seed(0))
    groups = codes.reshape(6, 20)
    assert (groups == groups[:, :1]).all() and len(set(groups[:, 0].tolist())) == 6
    for cluster in range(6):
        torch.testing.assert_close(codewords[groups[cluster, 0]], points.reshape(6, 20, -1)[cluster].mean(0))


def test_kmeans_with_fewer_distinct_points_than_clusters():
    points = torch.tensor([[0.0], [0.0], [1.0], [1.0], [5.0]])
    codewords, codes = kmeans(points, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(codewords[codes], points)
    assert torch.isfinite(codewords).all()


def test_kmeans_spends_its_codewords_where_the_points_are():
    # 1,000 points in a ball and 30 scattered far outside, to which plain Lloyd gives 15 of 16 codewords.
    rng = np.random.default_rng(0)
    outliers = 100 * rng.normal(size=(30, 8))
    points = torch.from_numpy(np.concatenate([rng.normal(size=(1000, 8)), outliers]).astype(np.float32))
    codes = kmeans(points, 16, torch.Generator().manual_seed(0))[1]
    # A share is 1030 / 16 = 64 points, and a codeword with less than 16 of them is given up.
    assert len(codes[:1000].unique()) >= 4


def test_splitting_by_hand():
    # 8 points in cluster 0, one each in 1 and 2, none in 3; a share is 10 / 4 = 2.5, so with a quarter of it (.625)
    # only cluster 3 is small. It goes to one side of cluster 0 and cluster 0 to the other, .1 · sqrt(4) = .2 away.
    codewords = torch.tensor([[5.0], [10.0], [20.0], [99.0]])
    codes = torch.tensor([0] * 8 + [1, 2])
    split = _split(codewords, codes, torch.full((10,), 4.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(split[[0, 3], 0].sort().values, torch.tensor([4.8, 5.2]))
    assert split[[1, 2], 0].tolist() == [10, 20]
