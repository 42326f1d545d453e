"""What is asked of the language model, and what its completions ask for."""

import pytest

from recbole_stream.llm.prompt import first_words, history_prompt, queries_of, well_formed


def test_a_prompt_lists_the_history_and_says_what_to_answer_with():
    assert history_prompt(["red lamp", "blue lamp"], "query") == (
        "A user chose these items, the latest last:\n1. red lamp\n2. blue lamp\n"
        "Think about which item this user chooses next, and write your thoughts between <think> and </think>. "
        "Then write between <answer> and </answer> a search query that finds this item in the catalogue."
    )
    assert "\n1. red lamp\n2. blue lamp\n" in history_prompt(["red lamp", "blue lamp"], "titles")
    assert history_prompt(["red lamp"], "titles").endswith("one on each line, the likeliest first.")


def test_titles_are_cut_between_words():
    assert first_words("a  red\tlamp for desks", 3) == "a red lamp"
    assert first_words("", 3) == ""


@pytest.mark.parametrize(
    ("completion", "query"),
    [
        ("<think>lamps</think><answer>green lamp</answer>", ["green lamp"]),
        ("<think>lamps</think>\n<answer>\ngreen\n  lamp \n</answer> bye", ["green lamp"]),
        ("<answer>red</answer> or rather <answer>green lamp</answer>", ["green lamp"]),
        ("<think>lamps</think><answer>green la", ["green la"]),  # cut off
        ("<think>lamps</think> green lamp", ["green lamp"]),
        ("green lamp", ["green lamp"]),
        ("", []),
        (" \n ", []),
        ("<think>lamps</think><answer> </answer>", []),
    ],
)
def test_the_query_is_what_the_last_answer_encloses(completion, query):
    assert queries_of(completion, "query") == query


def test_a_list_of_titles_is_a_query_a_line():
    completion = "<answer>\n1. red lamp\n2) blue lamp\n\n- 3 green lamps\n</answer>"
    assert queries_of(completion, "titles") == ["red lamp", "blue lamp", "3 green lamps"]
    assert queries_of("<answer></answer>", "titles") == []


@pytest.mark.parametrize(
    ("completion", "form"),
    [
        ("<think>lamps</think><answer>green</answer>", True),
        (" <think>\n</think>\n\n<answer>\ngreen\n</answer>\n", True),
        ("<think>lamps</think><answer> </answer>", False),
        ("<think>lamps</think><answer>green", False),
        ("<answer>green</answer><think>lamps</think>", False),
        ("Well: <think>lamps</think><answer>green</answer>", False),
        ("<think>a</think><answer>b</answer><answer>c</answer>", False),
        ("", False),
    ],
)
def test_the_form_is_thoughts_and_then_one_answer(completion, form):
    assert well_formed(completion) is form
