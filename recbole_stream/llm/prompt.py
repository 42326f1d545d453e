"""What the language model reads and what its completion asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["ANSWERS", "first_words", "history_prompt", "queries_of", "well_formed"]

# what a completion answers with -> how the prompt asks for it
ANSWERS = {
    "query": "a search query that finds this item in the catalogue",
    "titles": "the titles of items that this may be, one on each line, the likeliest first",
}

_FORM = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*\S.*)</answer>\s*", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_LIST_MARK = re.compile(r"^(?:\d+[.)]|[-*])\s+")


def first_words(text: str, words: int) -> str:
    """The beginning of an item's text, which stands for its title in a prompt."""
    return " ".join(text.split()[:words])


def history_prompt(titles: Sequence[str], answer: str) -> str:
    """The prompt for a history.

    Args:
        titles: of the history's items, the latest last.
        answer: what is asked for, one of ``ANSWERS``.
    """
    listed = "\n".join(f"{place}. {title}" for place, title in enumerate(titles, 1))
    return (
        f"A user chose these items, the latest last:\n{listed}\n"
        "Think about which item this user chooses next, and write your thoughts between <think> and </think>. "
        f"Then write between <answer> and </answer> {ANSWERS[answer]}."
    )


def queries_of(completion: str, answer: str) -> list[str]:
    """What a completion asks the retrieval for.

    It is what the last <answer> encloses, also where the completion was cut off before </answer>; without that tag all
    that follows the thoughts.

    Args:
        completion: of the language model.
        answer: "query" gives one query, "titles" one for each line.

    Returns:
        the queries, none of them empty; [] where the completion asks for nothing.
    """
    _, tag, text = completion.rpartition("<answer>")
    text = text.partition("</answer>")[0] if tag else completion.rpartition("</think>")[2]
    lines = [_LIST_MARK.sub("", " ".join(line.split())) for line in text.splitlines()]
    lines = [line for line in lines if line]
    return [" ".join(lines)] if answer == "query" and lines else lines


def well_formed(completion: str) -> bool:
    """Whether a completion is thoughts and then an answer that is not empty, each tag once and nothing around them."""
    return all(completion.count(tag) == 1 for tag in _TAGS) and _FORM.fullmatch(completion) is not None
