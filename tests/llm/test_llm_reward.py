"""Rewards of completions, worked out by hand."""

import math

import numpy as np
import pytest

from recbole_stream.llm.prompt import queries_of
from recbole_stream.llm.retrieval import BM25, places_of
from recbole_stream.llm.reward import ndcg, rec_r1_reward, reward_function


@pytest.mark.parametrize(
    ("place", "depth", "expected"),
    [(1, 10, 1), (3, 10, 0.5), (7, 10, 1 / 3), (10, 10, 1 / math.log2(11)), (11, 10, 0), (0, 10, 0), (2, 1, 0)],
)
def test_ndcg_of_a_place(place, depth, expected):
    assert ndcg(place, depth) == pytest.approx(expected)


def test_the_form_adds_its_weight():
    formed = "<think>lamps</think><answer>green</answer>"
    assert rec_r1_reward(formed, 3, 10, 0.1) == pytest.approx(0.6)
    assert rec_r1_reward(formed, 0, 10, 0.1) == pytest.approx(0.1)
    assert rec_r1_reward("green", 3, 10, 0.1) == pytest.approx(0.5)
    assert rec_r1_reward("", 0, 10, 0.1) == 0


def test_a_completion_is_worth_where_the_retrieval_puts_the_target():
    retrieval = BM25(["lamp lamp", "lamp", "desk lamp", "chair"], b=1.0)
    reward = reward_function(lambda text: places_of(queries_of(text, "query"), retrieval, np.arange(4)), 2, 0.1)
    formed = "<think>?</think><answer>lamp</answer>"
    chat = [{"role": "assistant", "content": formed}]
    # lengths 2, 1, 2, 1, mean 1.5. Twice of 2 words and once of 1 word are both 1 / (1 + 1.2 / 1.5) of the word's rarity,
    # and equals stand in their order; once of 2 words is less; the chair is not found. Two places count.
    rewards = reward(
        prompts=[""] * 7,
        completions=[formed, formed, formed, formed, chat, "lamp", ""],
        target=[0, 1, 2, 3, 1, 0, 0],
    )
    second = 1 / math.log2(3)
    assert rewards == pytest.approx([1.1, second + 0.1, 0.1, 0.1, second + 0.1, 1, 0])
