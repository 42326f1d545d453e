"""What the service is asked and what it answers, as JSON, and the limits on both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from recbole_stream.errors import InputError

__all__ = ["Answer", "Busy", "Item", "Limits", "Problem", "Question", "Recommended"]


@dataclass(frozen=True)
class Limits:
    """What a service takes on, so that no client can take all of it.

    Attributes:
        body: bytes of a request.
        histories: in a request.
        length: items in a history.
        k: recommendations for a history.
        candidates: for a history.
        found: items that a search by title finds.
        query: characters of a search.
        batch: histories ranked together, unless a single request has more.
        gather: seconds for which the first of a batch waits for others.
        queue: histories that may wait or be ranked at once.
        patience: seconds within which a request has to arrive whole, and then to be answered.
    """

    body: int = 1 << 20
    histories: int = 256
    length: int = 10_000
    k: int = 100
    candidates: int = 1_000
    found: int = 100
    query: int = 200
    batch: int = 64
    gather: float = 0.002
    queue: int = 1_024
    patience: float = 10.0


class Busy(Exception):
    """More is asked than can be answered in time; the message is one sentence."""


class Question(BaseModel):
    """Histories, and what is wanted for each of them."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"histories": [["item", "another item"]], "k": 10}]}
    )

    histories: list[list[StrictStr] | StrictStr] = Field(
        description="each a list of item names, in time, or the name of a user of the training data"
    )
    k: StrictInt = Field(10, description="how many items for each history")
    exclude_seen: StrictBool = Field(True, description="leave out what the history holds")
    candidates: list[StrictStr] | list[list[StrictStr]] | None = Field(
        None, description="rank only these items: one list for all histories, or a list for each"
    )
    explain: StrictBool = Field(False, description="say why, for each recommended item")

    def pools(self) -> list[list[str]] | None:
        """The candidates of each history; None where all items are."""
        if self.candidates is None:
            return None
        each = [own for own in self.candidates if not isinstance(own, str)]
        shared = [own for own in self.candidates if isinstance(own, str)]
        return each or [shared] * len(self.histories)

    def check(self, limits: Limits) -> None:
        """Refuse what is too much.

        Raises:
            InputError: a limit is passed, or there are not as many lists of candidates as histories.
        """
        if len(self.histories) > limits.histories:
            raise InputError(
                f"There are {len(self.histories):,} histories: send at most {limits.histories} in a request."
            )
        for row, history in enumerate(self.histories):
            if not isinstance(history, str) and len(history) > limits.length:
                raise InputError(
                    f"History {row} has {len(history):,} items: send the latest {limits.length:,} at most."
                )
        if not 1 <= self.k <= limits.k:
            raise InputError(f"k must be from 1 to {limits.k}.")
        pools = self.pools()
        if pools is None:
            return
        if len(pools) != len(self.histories):
            raise InputError(f"candidates has {len(pools)} lists: send one, or one for each history.")
        if max(map(len, pools), default=0) > limits.candidates:
            raise InputError(f"candidates are too many: send at most {limits.candidates:,} for a history.")


class Item(BaseModel):
    """An item of the model."""

    item: str = Field(description="its name")
    title: str = Field(description="empty where the model has none")


class Recommended(Item):
    """An item in its place."""

    rank: int = Field(description="1 is best")
    score: float
    why: dict[str, Any] | None = Field(None, description="what spoke for it, where `explain` was asked")


class Answer(BaseModel):
    """The recommended items of each history, best first."""

    recommendations: list[list[Recommended]] = Field(description="in the order of the histories")
    unknown_items: int = Field(description="how many items of the histories the model does not know; they are left out")


class Problem(BaseModel):
    """What went wrong."""

    detail: str = Field(description="one sentence")
