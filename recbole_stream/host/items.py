"""What a data set of ours knows of its items, in one object that a checkpoint can carry."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from recbole_stream.tokenizer.semantic_ids import SemanticIDs

__all__ = ["ItemTable"]


@dataclass(frozen=True)
class ItemTable:
    """The items and what was computed for them; row i is item i + 1 of the dataset.

    Attributes:
        tokens: the items' names in the data set, n of them.
        ids: their semantic IDs; None where no model of the data set needs any.
        text: embeddings of their texts [n, D] in float32; None without text.
        encoder: which text encoder was used and on how many items.
    """

    tokens: list[str]
    ids: SemanticIDs | None
    text: np.ndarray | None
    encoder: dict

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the items and their IDs."""
        digest = hashlib.sha256("\n".join(self.tokens).encode())
        if self.ids is not None:
            digest.update(self.ids.codes.tobytes())
        return digest.hexdigest()[:16]

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {
            "tokens": self.tokens,
            "codes": None if self.ids is None else self.ids.codes,
            "codebook_sizes": None if self.ids is None else self.ids.codebook_sizes,
            "report": None if self.ids is None else self.ids.report,
            "text": self.text,
            "encoder": self.encoder,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ItemTable:
        """Undo :meth:`state`."""
        codes = state.get("codes")
        ids = None if codes is None else SemanticIDs(codes, tuple(state["codebook_sizes"]), state["report"])
        return cls(state["tokens"], ids, state["text"], state["encoder"])
