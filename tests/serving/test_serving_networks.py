"""A network comes back from JSON and tensors as it was."""

import json

import pytest
import torch
from helpers import random_histories
from parts import CODES, make_ranker, texts

from recbole_stream.errors import InputError
from recbole_stream.serving.networks import build_ranker, describe

HISTORIES = random_histories(40, (1, 5, 3, 9, 2))


def test_the_copy_ranks_to_the_bit(any_kind):
    ranker, keys = make_ranker(any_kind)
    config, tensors = describe(ranker, keys, None if any_kind in ("TIGER", "likelihood") else texts())
    copy = build_ranker(json.loads(json.dumps(config)), tensors)
    assert copy.ranking == ranker.ranking
    for own, theirs in zip(copy.rank(HISTORIES, 7), ranker.rank(HISTORIES, 7)):
        assert torch.equal(own, theirs)
    items = torch.arange(1, 41).expand(5, -1)
    assert torch.equal(copy.scores(HISTORIES, items), ranker.scores(HISTORIES, items))


def test_other_tensors_are_refused():
    ranker, keys = make_ranker("states")
    config, tensors = describe(ranker, keys, texts())
    tensors["network.tokens.embedding.weight"] = tensors["network.tokens.embedding.weight"][:-1]
    with pytest.raises(InputError, match="do not belong together"):
        build_ranker(config, tensors)
    config["keys"]["hidden_size"] = 8
    with pytest.raises(InputError, match="export the model again"):
        build_ranker(config, tensors)


def test_rank_and_scores_agree(any_kind):
    ranker, _ = make_ranker(any_kind)
    ranker.candidates = ranker.beams = len(CODES)
    items, scores = ranker.rank(HISTORIES, 10)
    assert torch.allclose(ranker.scores(HISTORIES, items), scores, atol=1e-4)
