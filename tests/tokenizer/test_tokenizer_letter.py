"""LETTER's losses by hand, its balanced clusters, and what they do to an RQ-VAE."""

import math

import numpy as np
import pytest
import torch

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.letter import Letter, LetterOptions, balanced_clusters, collaborative_loss, diversity_loss
from recbole_stream.tokenizer.residual import Quantised, sum_codewords
from recbole_stream.tokenizer.rq_vae import RQVAEOptions, rq_vae
from recbole_stream.tokenizer.semantic_ids import build_semantic_ids

TINY = RQVAEOptions(hidden_sizes=(16,), latent_size=4, epochs=60, batch_size=64)


def test_collaborative_loss_by_hand():
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    h = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    # item 1: 3 against 0; item 2: 2 against 0
    expected = (math.log(1 + math.exp(-3)) + math.log(1 + math.exp(-2))) / 2
    assert collaborative_loss(z, h).item() == pytest.approx(expected)


def test_diversity_loss_leaves_out_the_code_itself():
    codewords = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 5.0]])
    # code 0: 2 with its mate 1, 0 with 2; code 1, whose own square would be 4: 2 with its mate 0, 0 with 2
    loss = diversity_loss(codewords, torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_clusters_are_equal_where_kmeans_would_not_be():
    # five points near 0 and one at 9: halves of three take the two that are nearest to 9 beside it
    points = torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [9.0]])
    clusters, centres = balanced_clusters(points, torch.tensor([[0.0], [9.0]]), iterations=5)
    assert clusters.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(centres, torch.tensor([[0.1], [9.7 / 3]]))
    sizes = torch.bincount(balanced_clusters(torch.randn(11, 3), torch.randn(4, 3), iterations=2)[0])
    assert sorted(sizes.tolist()) == [2, 3, 3, 3]


def test_mates_share_a_cluster_and_the_loss_is_the_weighted_sum():
    codebooks = torch.tensor([[[0.0, 1.0], [0.0, 1.2], [5.0, 0.0], [5.2, 0.0]]])
    vectors = np.array([[1.0, -1.0], [-1.0, 1.0]], dtype=np.float32)  # centred, of standard deviation 1
    letter = Letter(vectors, LetterOptions(0.5, 0.25, 2), 3, torch.Generator().manual_seed(0), "cpu")
    letter.cluster(codebooks)
    codes = torch.tensor([[0], [3]])
    quantised = codebooks[0][codes[:, 0]]
    expected = 3 * (
        0.5 * collaborative_loss(quantised, torch.from_numpy(vectors))
        + 0.25 * diversity_loss(codebooks[0], codes[:, 0], torch.tensor([1, 2]))  # the only mates
    )
    torch.testing.assert_close(letter.loss(torch.tensor([0, 1]), quantised, codes, codebooks), expected)


def test_items_of_the_same_users_come_closer_than_their_texts_say():
    # texts are noise; the users know two groups of 40 items
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(80, 32)).astype(np.float32)
    group = np.arange(80) % 2
    vectors = np.where(group, 1.0, -1.0).astype("f")[:, None] * np.array([1, -1, 1, -1], "f")
    options = RQVAEOptions(hidden_sizes=(64,), latent_size=4, epochs=40, batch_size=80)

    def pull(result: Quantised) -> float:
        """Mean of z h over the items: above 0 where items lie on the side of their group."""
        return float((sum_codewords(result.codes, result.codebooks) * vectors).sum(1).mean())

    plain = rq_vae(texts, 2, 8, 0, options, show_progress=False)
    letter = LetterOptions(collaborative_weight=1.0, clusters=4)
    aligned = rq_vae(texts, 2, 8, 0, options, show_progress=False, collaborative=vectors, letter=letter)
    assert pull(aligned) > 0.3 > 0.1 > abs(pull(plain))


def test_ids_depend_on_the_vectors_and_are_cached(tmp_path):
    rng = np.random.default_rng(1)
    texts, vectors = rng.normal(size=(40, 6)).astype("f"), rng.normal(size=(40, 4)).astype("f")
    keys = {
        "method": "letter", "levels": 2, "codebook_size": 8, "seed": 3, "cache_dir": tmp_path, "show_progress": False,
        "options": TINY, "letter": LetterOptions(clusters=4),
    }  # fmt: skip
    first = build_semantic_ids(texts, collaborative=vectors, **keys)
    assert len(np.unique(first.codes, axis=0)) == 40 and first.report["options"]["clusters"] == 4
    assert build_semantic_ids(texts, collaborative=vectors, **keys).report["seconds"] == first.report["seconds"]  # read
    other = build_semantic_ids(texts, collaborative=vectors[::-1], **keys)
    assert (other.codes != first.codes).any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"collaborative": None}, "LETTER needs a collaborative vector of each of the 6 items: got none"),
        ({"collaborative": np.zeros((5, 4), "f")}, "of the 6 items: got those of 5"),
        ({"letter": LetterOptions(clusters=5)}, "letter_clusters is 5, but 8 codewords make at most 4 clusters"),
    ],
)
def test_what_letter_lacks_is_said(changed, message):
    keys = {"method": "letter", "codebook_size": 8, "seed": 0, "collaborative": np.zeros((6, 4), "f")} | changed
    with pytest.raises(InputError, match=message):
        build_semantic_ids(np.zeros((6, 3), "f"), **{"letter": LetterOptions(clusters=2)} | keys)
