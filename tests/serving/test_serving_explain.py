"""Why an item is recommended: contributions that sum to its score, and evidence that can be looked up."""

import json
import math

import numpy as np
import pytest
import torch
from helpers import random_histories
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import CODES, make_parts, make_ranker

from recbole_stream import Recommender
from recbole_stream.errors import InputError
from recbole_stream.model.lookup import Transitions
from recbole_stream.serving.contributions import contributions, neutral_views, shapley_values
from recbole_stream.serving.evidence import followed, mid_ranks
from recbole_stream.serving.words import chance, ordinal, sentence

KINDS = ("TIGER", "likelihood", "states", "deliberation", "verifier", "pointer")
MODELS = {kind: Recommender(make_parts(kind)) for kind in ("TIGER", "states", "deliberation", "verifier", "pointer")}


# -- Shapley values ----------------------------------------------------------


def test_shapley_values_by_hand():
    # v(x) = x1 x2 + x3 from (0, 0, 1) to (2, 3, 5): v({1,2}) alone has the product, so each of the two gets half of 6
    value = lambda x: x[..., 0] * x[..., 1] + x[..., 2]  # noqa: E731
    found = shapley_values(value, torch.tensor([2.0, 3.0, 5.0]), torch.tensor([0.0, 0.0, 1.0]))
    assert found.tolist() == [3.0, 3.0, 4.0]


def test_shapley_values_of_three_that_need_each_other():
    # v = x1 x2 x3 from 0 to 1 is 1 only for all three, which share it; v = max needs any one of them
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    assert torch.allclose(shapley_values(lambda x: x.prod(-1), ones, zeros), torch.full((2, 3), 1 / 3).double())
    assert torch.allclose(shapley_values(lambda x: x.amax(-1), ones, zeros), torch.full((2, 3), 1 / 3).double())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=8, max_size=8), st.integers(0, 99))
def test_shapley_values_sum_and_a_feature_that_is_the_baselines_gets_nothing(features, seed):
    generator = torch.Generator().manual_seed(seed)
    inner, outer = torch.randn(8, 4, generator=generator), torch.randn(4, generator=generator)
    value = lambda x: (x @ inner).tanh() @ outer  # noqa: E731
    features, baseline = torch.tensor(features), torch.randn(8, generator=generator)
    features[3] = baseline[3]
    found = shapley_values(value, features, baseline)
    assert float(found.sum()) == pytest.approx(float(value(features) - value(baseline)), abs=1e-5)
    assert abs(float(found[3])) < 1e-6


# -- contributions -----------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_base_and_contributions_sum_to_the_score(kind):
    ranker, _ = make_ranker(kind)
    histories = random_histories(40, (5, 1, 3))
    items = torch.arange(1, 41).expand(3, -1)
    parts = contributions(ranker, histories, items)
    assert torch.allclose(parts.scores.float(), ranker.scores(histories, items), atol=1e-4)


def test_a_weighted_sum_adds_weight_times_distance_from_an_item_of_which_nothing_is_known():
    ranker, _ = make_ranker("deliberation")
    slow = ranker.network.deliberation
    slow.weights.copy_(torch.tensor([0.0, 0.5, 2.0, 1.0, -3.0]))
    history, items = torch.tensor([[7, 9]]), torch.tensor([[9, 30]])
    catalogue = slow.catalogue(history)
    parts = contributions(ranker, history, items)
    assert parts.names == ("matching", "transitions", "text", "repeats")
    for place, item in enumerate((9, 30)):
        matching, transitions, text, repeats = catalogue[0, item].tolist()
        expected = [
            0.5 * (matching + math.log(40)), 2 * (transitions - math.log(0.001)), text, -3.0 if item == 9 else 0.0,
        ]  # fmt: skip
        assert parts.views[0, place].tolist() == pytest.approx(expected, abs=1e-4)
        assert repeats == (item == 9)
        assert float(parts.base[0, place]) == pytest.approx(-0.5 * math.log(40) + 2 * math.log(0.001), abs=1e-4)
    assert not parts.verifier.any()


def test_the_length_of_the_history_is_no_reason_for_an_item():
    ranker, _ = make_ranker("verifier")
    verifier = ranker.network.deliberation.verifier
    verifier.popularity = torch.zeros(41)
    verifier.linear.weight[:, 5], verifier.network[0].weight[:, 5] = 0, 0  # of its own features only the length is left
    history, items = torch.tensor([[7, 9, 11]]), torch.tensor([[5, 30]])
    verifier.mean.zero_()
    parts = contributions(ranker, history, items)
    assert parts.verifier.abs().max() < 1e-6
    baseline = torch.tensor([0.0] * 7 + [math.log(3)])
    assert torch.allclose(parts.base.float(), verifier(baseline).expand(1, 2), atol=1e-6)


def test_neutral_views():
    assert neutral_views(50).tolist() == pytest.approx([math.log(1 / 50), math.log(1 / 50), math.log(0.001), 0, 0])


# -- evidence ----------------------------------------------------------------


def test_followed_by_hand():
    # the pairs of 1 2 3 and 1 2: 1 -> 2 twice, 2 -> 3 once, 1 -> 3 at distance two, which counts half
    histories, targets = torch.tensor([[1, 0], [1, 2], [1, 0]]), torch.tensor([2, 3, 2])
    transitions = Transitions(histories, torch.tensor([1, 2, 1]), targets, 5, 2, 0.5, 0.0, 0.7)
    times, shares = followed(transitions, torch.tensor([[1, 2, 0]]), torch.tensor([[2, 3, 4]]))
    assert times[0].tolist() == [[2.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert torch.allclose(shares[0], torch.tensor([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))


def test_nothing_has_followed_anything_where_nothing_was_counted():
    none = torch.zeros(0, dtype=torch.long)
    transitions = Transitions.of_counts(none, none, torch.zeros(0), 5, 0.7)
    times, shares = followed(transitions, torch.tensor([[1, 2]]), torch.tensor([[3]]))
    assert times.tolist() == shares.tolist() == [[[0.0], [0.0]]]


def test_items_of_equal_scores_share_the_middle_of_their_places():
    scores = torch.tensor([[9.0, 1.0, 4.0, 1.0, 1.0, 7.0]])  # 9 is the padding item's
    assert mid_ranks(scores, torch.tensor([[5, 2, 1, 3, 4]])).tolist() == [[1.0, 2.0, 4.0, 4.0, 4.0]]


# -- the table ---------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_why_sums_to_the_score_whatever_else_is_asked(kind):
    model = MODELS[kind]
    histories = [["i1", "i2", "i3"], "u2", [f"i{n}" for n in range(1, 21)]]
    plain, table = model.recommend(histories, k=6), model.recommend(histories, k=6, explain=True)
    assert plain.equals(table.drop(columns="why"))
    pool = model.recommend(histories, candidates=["i2", "i30", "i40"], exclude_seen=False, explain=True)
    for _, row in [*table.iterrows(), *pool.iterrows()]:
        why = json.loads(json.dumps(row["why"]))
        assert why["base"] + why["verifier"] + sum(why["views"].values()) == pytest.approx(row["score"], abs=1e-4)
        assert why["words"].endswith(".")
    assert [why["had"] for why in pool["why"][:3]] == [item == "i2" for item in pool["item"][:3]]


def test_what_the_evidence_says():
    model = MODELS["deliberation"]
    slow = model.scorer.network.deliberation
    history = [7, 9, 7, 30]
    for why, item in zip(*model.recommend([[f"i{n}" for n in history]], explain=True)[["why", "item"]].T.values):
        number, unit = int(item[1:]), slow.content.unit
        names = [one["item"] for one in why["followed"]]
        assert len(names) == len(set(names)) and set(names) <= {"i7", "i9", "i30"}
        for one in why["followed"]:
            before = int(one["item"][1:])
            row = slice(int(slow.transitions.first[before]), int(slow.transitions.first[before + 1]))
            at = slow.transitions.columns[row].tolist().index(number)
            counts = slow.transitions.counts[row]
            assert one["times"] == pytest.approx(float(counts[at]))
            assert one["share"] == pytest.approx(float(counts[at] / counts.sum()))
            assert one["title"] == f"Title {before}"
        for one in why["reads_like"]:
            assert one["similarity"] == pytest.approx(float(unit[number] @ unit[int(one["item"][1:])]), abs=1e-5)
        logits = slow.matcher(torch.tensor([history]))[0]
        assert why["match"]["rank"] == 1 + int((logits > logits[number]).sum())
        assert why["match"]["probability"] == pytest.approx(float(logits.softmax(0)[number]), abs=1e-6)


def test_tiger_says_the_probability_of_each_token():
    model = MODELS["TIGER"]
    for _, row in model.recommend([["i1", "i2"]], k=4, explain=True).iterrows():
        tokens = row["why"]["tokens"]
        assert [token["code"] for token in tokens] == CODES[int(row["item"][1:]) - 1].tolist()
        assert sum(token["log_probability"] for token in tokens) == pytest.approx(row["score"], abs=1e-4)
        assert row["why"]["match"] is None and row["why"]["followed"] == []


def test_a_long_batch_says_the_same_as_one_history():
    model = MODELS["verifier"]
    histories = [[f"i{n}" for n in range(1, 2 + row % 7)] for row in range(70)]
    together = model.recommend(histories, k=2, explain=True)
    alone = model.recommend([histories[69]], k=2, explain=True)
    for one, other in zip(together["why"][-2:], alone["why"]):
        assert one["words"] == other["words"]
        assert np.allclose(list(one["views"].values()), list(other["views"].values()), atol=1e-5)


# -- words -------------------------------------------------------------------

WHY = {
    "views": {"matching": 0.5, "transitions": 2.0, "text": 1.0, "repeats": 0.0},
    "values": {"matching": -2.0, "transitions": -3.0, "text": 1.4, "repeats": 0.0},
    "followed": [
        {"item": "a", "title": "Alpha", "times": 2.5, "share": 0.1},
        {"item": "b", "title": "", "times": 1.0, "share": 0.1},
    ],
    "reads_like": [{"item": "c", "title": "Gamma", "similarity": 0.8}],
    "match": {"rank": 22, "probability": 0.01},
    "tokens": None,
    "had": False,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "It often followed “Alpha” and b, and it reads like “Gamma”."),
        ({"had": True}, "It often followed “Alpha” and b, and it reads like “Gamma”, and it is in the history already."),
        ({"followed": WHY["followed"][1:]}, "It followed b, and it reads like “Gamma”."),
        ({"followed": []}, "It reads like “Gamma”, and it matches the history 22nd best of 1,234 items."),
        ({"views": {"matching": -1.0, "text": -2.0}}, "It matches the history 22nd best of 1,234 items."),
        ({"views": {"matching": 1.0}, "match": {"rank": 1}}, "It matches the history best of 1,234 items."),
        ({"views": {"transitions": 1.0}, "followed": []}, "Nothing in the history speaks for it in particular."),
        ({"views": {"likelihood": 1.0}, "values": {"likelihood": math.log(0.03)}, "tokens": [{}]},
         "The model writes its tokens with a chance of 3%."),
    ],
)  # fmt: skip
def test_words(change, words):
    assert sentence(WHY | change, 1234) == words


def test_chances():
    chances = [chance(math.log(share)) for share in (0.999, 0.24, 0.01, 1 / 120, 1 / 2640, 1e-7)]
    assert chances == ["99.9%", "24%", "1%", "1 in 120", "1 in 2,600", "1 in 10,000,000"]
    assert chance(-1e6) == "1 in 1,000,000,000,000"


def test_ordinals():
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111, 1013)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th", "1,013th",
    ]  # fmt: skip


# -- what cannot be explained ------------------------------------------------


def test_a_model_of_recbole_is_refused_in_a_sentence():
    class Scores:
        def rank(self, histories, top, seen=None):
            raise AssertionError("nothing may be ranked first")

    model = Recommender(make_parts("TIGER"))
    model.scorer, model.parts.config["model"] = Scores(), "SASRec"
    with pytest.raises(InputError, match="SASRec is RecBole's own model, which gives scores without reasons"):
        model.recommend([["i1"]], explain=True)
