"""Requests that wait together are ranked together, and get what they would get alone."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import make_parts

from recbole_stream import Recommender
from recbole_stream.errors import InputError

pytest.importorskip("pydantic", reason="the extra serve is not installed")

from recbole_stream.serving.batching import Batcher  # noqa: E402
from recbole_stream.serving.schema import Busy, Limits, Question  # noqa: E402

MODEL = Recommender(make_parts("deliberation"))
HISTORY = st.lists(st.integers(1, 40).map("i{}".format), min_size=1, max_size=12)
QUESTION = st.builds(
    Question,
    histories=st.lists(HISTORY | st.sampled_from(["u1", "u2"]), min_size=1, max_size=3),
    k=st.integers(1, 12),
    exclude_seen=st.booleans(),
    candidates=st.none() | st.lists(st.integers(1, 40).map("i{}".format), min_size=1, max_size=6),
)


def ask_all(questions, limits, calls=None):
    async def run():
        batcher = Batcher(MODEL, limits, lambda histories, _: calls.append(histories) if calls is not None else None)
        await batcher.start()
        try:
            answers = await asyncio.gather(*map(batcher.answer, questions), return_exceptions=True)
            assert batcher.pending == 0
            return answers
        finally:
            await batcher.stop()

    return asyncio.run(run())


@settings(max_examples=6, deadline=None)
@given(questions=st.lists(QUESTION, min_size=3, max_size=6), batch=st.sampled_from([1, 4, 64]))
def test_answers_are_those_of_questions_asked_alone(questions, batch):
    answers = ask_all(questions, Limits(batch=batch))
    for question, answer in zip(questions, answers):
        alone = MODEL.recommend(question.histories, question.k, question.exclude_seen, question.candidates)
        rows = [row for rows in answer.recommendations for row in rows]
        assert [(row.rank, row.item) for row in rows] == list(zip(alone["rank"], alone["item"]))


def test_questions_of_one_kind_share_a_call():
    calls = []
    answers = ask_all([Question(histories=[[f"i{n}"]], k=3) for n in range(1, 21)], Limits(batch=8), calls)
    assert sum(calls) == 20 and max(calls) == 8 and len(calls) <= 4
    assert all(len(answer.recommendations[0]) == 3 for answer in answers)


def test_one_bad_question_spoils_no_other():
    good, bad = Question(histories=[["i1"]]), Question(histories=[["i1"]], candidates=["i2", "x"])
    fine = Question(histories=[["i3"]], candidates=["i2"])
    answers = ask_all([good, bad, fine], Limits(gather=0.05))
    assert isinstance(answers[1], InputError) and "'x'" in str(answers[1])
    assert len(answers[0].recommendations[0]) == 10
    assert [row.item for row in answers[2].recommendations[0]] == ["i2"]


def test_beyond_the_queue_it_is_busy_and_recovers():
    questions = [Question(histories=[["i1"]], k=2)] * 5
    answers = ask_all(questions, Limits(queue=2, batch=1))
    assert [isinstance(answer, Busy) for answer in answers] == [False, False, True, True, True]
    assert "2 histories wait already" in str(answers[2])

    async def twice():
        batcher = Batcher(MODEL, Limits(queue=2))
        await batcher.start()
        for _ in range(2):
            answers = await asyncio.gather(*map(batcher.answer, questions), return_exceptions=True)
            assert [isinstance(answer, Busy) for answer in answers] == [False, False, True, True, True]
        await batcher.stop()

    asyncio.run(twice())


def test_a_request_larger_than_the_queue_is_answered_when_nothing_waits():
    answers = ask_all([Question(histories=[["i1"]] * 9, k=1)], Limits(queue=2, batch=4))
    assert len(answers[0].recommendations) == 9


def test_who_waits_too_long_is_told_and_not_ranked():
    calls = []
    answers = ask_all([Question(histories=[["i1"]])] * 3, Limits(patience=0.001, gather=0.2), calls)
    assert all(isinstance(answer, Busy) and "longer than 0.001 seconds" in str(answer) for answer in answers)
    assert calls == []
