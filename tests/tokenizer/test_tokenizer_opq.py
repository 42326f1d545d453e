"""Product quantisation: rotations that are undone, codes of parts, no order among them."""

import numpy as np
import pytest
import torch

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.opq import best_rotation, opq
from recbole_stream.tokenizer.residual import sum_codewords
from recbole_stream.tokenizer.semantic_ids import build_semantic_ids


def test_the_best_rotation_undoes_one():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 4, generator=generator)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    assert torch.allclose(best_rotation(points, points @ turn), turn, atol=1e-5)
    # a quarter turn of the plane, by hand
    assert torch.allclose(
        best_rotation(torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])),
        torch.tensor([[0.0, 1.0], [-1.0, 0.0]]),
        atol=1e-6,
    )


@pytest.fixture(scope="module")
def grid() -> np.ndarray:
    """All 4 x 4 combinations of two independent halves of four points each, eight times with a little noise."""
    rng = np.random.default_rng(0)
    halves = rng.normal(size=(2, 4, 3))
    rows = [np.concatenate([halves[0, a], halves[1, b]]) for a in range(4) for b in range(4)]
    return (np.repeat(rows, 8, 0) + rng.normal(scale=1e-3, size=(128, 6))).astype(np.float32)


def test_independent_halves_get_codes_of_their_own(grid):
    quantised = opq(grid, 2, 4, seed=0, show_progress=False)
    assert quantised.codes.shape == (128, 2) and quantised.codes.min() == 0 and quantised.codes.max() == 3
    # a codeword is 0 outside its own part
    assert not quantised.codebooks[0][:, 3:].any() and not quantised.codebooks[1][:, :3].any()
    assert np.allclose(quantised.decode(quantised.latents), grid, atol=1e-2)


def test_each_code_is_nearest_in_its_part_whatever_the_others_are(grid):
    quantised = opq(grid, 3, 4, seed=0, show_progress=False)
    for part in range(3):
        own = slice(2 * part, 2 * part + 2)
        distances = ((quantised.latents[:, None, own] - quantised.codebooks[part][None, :, own]) ** 2).sum(-1)
        assert (distances[np.arange(128), quantised.codes[:, part]] <= distances.min(1) + 1e-5).all()
    error = ((quantised.latents - sum_codewords(quantised.codes, quantised.codebooks)) ** 2).sum()
    assert error < 0.5 * ((quantised.latents - quantised.latents.mean(0)) ** 2).sum()


def test_ids_are_unique_and_repeat_with_the_seed(grid):
    first, again = (
        build_semantic_ids(grid, method="opq", levels=6, codebook_size=4, seed=3, show_progress=False) for _ in range(2)
    )
    assert len(np.unique(first.codes, axis=0)) == len(grid) and np.array_equal(first.codes, again.codes)


def test_more_codes_than_dimensions_are_refused(grid):
    with pytest.raises(InputError, match="6 dimensions into 7 parts: lower codebook_levels"):
        opq(grid, 7, 4, seed=0)
