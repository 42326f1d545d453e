"""Rec-R1: a history's titles -> a language model's query -> a retrieval's ranking of all items.

Lin et al., 2025, "Rec-R1: Bridging Generative Large Language Models and User-Centric Recommendation Systems via
Reinforcement Learning", arXiv 2503.24289. The retrieval is fixed, and what it does with a query is the reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_stream.llm.policy import check_context, complete
from recbole_stream.llm.prompt import first_words, history_prompt, queries_of
from recbole_stream.llm.retrieval import Retrieval, places_of, tie_order

__all__ = ["RecR1Model", "RecR1Options"]


@dataclass(frozen=True)
class RecR1Options:
    """How the model is asked.

    Attributes:
        answer: what it answers with, one of ``ANSWERS``.
        title_words: words of an item's text that stand in a prompt.
        tokens: of a completion, at most.
        longest_history: items of a history, at most.
    """

    answer: str
    title_words: int
    tokens: int
    longest_history: int


class RecR1Model(nn.Module):
    """Scores all items of a catalogue by the retrieval that a language model asks.

    Args:
        policy, tokenizer: of :func:`load_policy`.
        texts: of the items [n]; item i of a history is text i - 1.
        retrieval: over the same n items.
        options: how the model is asked.

    Raises:
        InputError: the longest prompt of the catalogue does not fit into the model.
    """

    def __init__(
        self, policy: nn.Module, tokenizer: Any, texts: Sequence[str], retrieval: Retrieval, options: RecR1Options
    ) -> None:
        super().__init__()
        self.policy, self.tokenizer, self.retrieval, self.options = policy, tokenizer, retrieval, options
        self.titles = [first_words(text, options.title_words) for text in texts]
        self.ties = tie_order(len(texts))
        longest = sorted(self.titles, key=len)[-options.longest_history :]
        check_context(policy, tokenizer, history_prompt(longest, options.answer), options.tokens)

    def prompts(self, histories: Tensor) -> list[str]:
        """Item ids [B, L], 0 as padding on the right -> prompts [B]."""
        return [
            history_prompt([self.titles[item - 1] for item in row if item], self.options.answer)
            for row in histories.tolist()
        ]

    def places(self, completion: str) -> np.ndarray:
        """The place of every item, from 1 [n]; see :func:`places_of`."""
        return places_of(queries_of(completion, self.options.answer), self.retrieval, self.ties)

    def forward(self, histories: Tensor) -> Tensor:
        """Item ids [B, L], 0 as padding on the right -> scores [B, n + 1]: the negative place, and that of 0 is -inf.

        An item that the retrieval does not find has -inf, and so have all where a completion asks for nothing.
        """
        completions = complete(self.policy, self.tokenizer, self.prompts(histories), self.options.tokens)
        places = torch.from_numpy(np.stack([self.places(text) for text in completions])).to(histories.device)
        scores = (-places.float()).masked_fill(places == 0, -torch.inf)
        return torch.cat([scores.new_full((len(scores), 1), -torch.inf), scores], 1)
