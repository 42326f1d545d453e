"""An approximate index for a model of many items: ``python -m recbole_stream index MODEL``.

It is learnt from the items' vectors alone. How many lists a query looks into is chosen on users of the training data, by
how much of what the exact ranking finds is found; what is told was measured on other users.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from recbole_stream.data.histories import padded, right_padded
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.errors import InputError
from recbole_stream.model.item_index import ItemIndex, learn_lists
from recbole_stream.model.views import indexed, uses_index
from recbole_stream.serving.folder import Parts, check_output, read_model, write_model
from recbole_stream.serving.networks import build_ranker

__all__ = ["Measured", "arguments", "command", "learn_index", "with_index"]

_TOP = 10
_USERS = 512  # half of them to choose by, half to measure
_LEAST = 20  # items, below which there is nothing to put into lists
_SHARE = 2  # lists for each square root of the number of items


@dataclass(frozen=True)
class Measured:
    """How an index compares with going through all items.

    Attributes:
        recall: share of the exact ten that it finds.
        exact, indexed: CPU milliseconds a user.
        users: on whom that was measured.
        lists, probes: how many there are, and how many a user's query looks into.
    """

    recall: float
    exact: float
    indexed: float
    users: int
    lists: int
    probes: int

    def __str__(self) -> str:
        return (
            f"The index finds {self.recall:.1%} of the {_TOP} items that the exact ranking finds, by {self.probes:,} of its "
            f"{self.lists:,} lists: {self.indexed:.2f} ms a user instead of {self.exact:.2f} (CPU time, {self.users:,} users)."
        )


def learn_index(ranker: Ranker, histories: Tensor, recall: float, seed: int = 0) -> Measured:
    """Give a ranker an index, by which it ranks from here on.

    Args:
        ranker: of a STREAM-Rec that ranks by its states or by all views, and is trained no more.
        histories: item ids [B, L], 0 as padding on the right; two at least.
        recall: share of the exact ten items that it should find on the first half of the histories. It looks into as few
            lists as that takes, a power of two; into all for 1.
        seed: of k-means.

    Returns:
        what it reaches on the second half.

    Raises:
        InputError: faiss is not installed, the model has no vectors to index, or too few items.
    """
    slow = getattr(ranker.network, "deliberation", None)
    if slow is None or ranker.ranking == "likelihood":
        raise InputError(
            "The model ranks by its likelihood alone, which needs no index: its search does not grow with the items."
        )
    states = ranker.ranking == "states"
    matching, text = (1.0, 0.0) if states else slow.weights[1:].tolist()[::2]
    if not matching and not text or slow.transitions.n_items <= _LEAST:
        raise InputError(
            f"An index is for models of more than {_LEAST} items that weigh matching or text: this one is not."
        )
    slow.index = None
    chosen, measured = histories[::2], histories[1::2]
    views = slow.states_of(chosen) if states else slow.views_of(chosen)
    # so that a number of a vector counts in a distance as much as in a score
    scales = tuple(
        weight * float(vectors.float().square().mean().sqrt()) if weight else 0.0
        for weight, vectors in ((matching, views.states), (text, views.query))
    )
    vectors = indexed(slow, scales).cpu()
    lists = min(len(vectors) // 4, round(_SHARE * len(vectors) ** 0.5))
    index = ItemIndex(vectors, learn_lists(vectors, lists, seed), None, 1, scales)
    exact, _ = _timed(ranker, chosen)
    slow.index = index
    count = _TOP if states else ranker.candidates

    def enough() -> bool:
        # with too few lists all items are gone through, which says nothing of the index
        used = uses_index(slow, matching, text, count, histories.shape[1])
        return used and recall < 1 and _share(exact, _timed(ranker, chosen)[0]) >= recall

    while index.probes < lists and not enough():
        index.probes *= 2
    if not uses_index(slow, matching, text, count, histories.shape[1]):
        slow.index = None
        raise InputError(
            f"An index gains nothing for {len(vectors):,} items: a ranking looks at too large a share of them."
        )
    slow.index = None
    exact, took = _timed(ranker, measured)
    slow.index = index
    found, takes = _timed(ranker, measured)
    return Measured(_share(exact, found), took, takes, len(measured), lists, index.probes)


def _timed(ranker: Ranker, histories: Tensor) -> tuple[Tensor, float]:
    """The best items, and CPU milliseconds a history."""
    began = time.process_time()
    items, _ = ranker.rank(histories, min(_TOP, ranker.network.tokens.n_items - 1))
    return items, (time.process_time() - began) / len(histories) * 1000


def _share(exact: Tensor, found: Tensor) -> float:
    return float((exact[:, :, None] == found[:, None]).any(-1).float().mean())


def with_index(parts: Parts, recall: float) -> tuple[Parts, Measured]:
    """A model's folder with an index, in place of one that it may have.

    Args:
        parts: the model; left as it is.
        recall: see :func:`learn_index`.

    Raises:
        InputError: see there; or the folder holds fewer than two users to measure on.
    """
    if "network" not in parts.config:
        raise InputError(f"The model is {parts.config.get('model')}, which has no index: it is for STREAMRec.")
    if len(parts.users) < 2:
        raise InputError("The model holds no users to measure an index on: export it without --no-users.")
    config = {name: value for name, value in parts.config.items() if name != "index"}
    ranker = build_ranker(config, parts.tensors)
    rows = np.linspace(0, len(parts.users) - 1, min(_USERS, len(parts.users))).astype(int)
    histories = padded([list(map(int, parts.users["items"].iloc[row])) for row in rows], "cpu")
    measured = learn_index(ranker, right_padded(histories, ranker.longest), recall)
    index = ranker.network.deliberation.index
    config["index"] = {"scales": list(index.scales), "probes": index.probes}
    tensors = parts.tensors | {"index.centres": index.centres, "index.lists": index.lists.int()}
    return Parts(config, tensors, parts.items, parts.users, f"{parts.card.rstrip()}\n\n{measured}\n"), measured


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command may be given."""
    parser.add_argument("model", type=Path, help="folder of a model that export wrote")
    parser.add_argument(
        "--recall", type=float, default=0.98, help="share of the exact ten items that it should find (default: .98)"
    )
    parser.add_argument("--output", type=Path, help="folder of the model with the index (default: MODEL itself)")


def command(options: argparse.Namespace) -> None:
    """Add the index, and say what it finds."""
    if not 0 < options.recall <= 1:
        raise InputError(f"--recall is {options.recall:g}, but must be more than 0 and at most 1.")
    output = options.output or options.model
    parts = read_model(options.model)
    check_output(output, replace=options.output is None)
    found, measured = with_index(parts, options.recall)
    write_model(output, found, replace=options.output is None)
    print(f"{measured} The model is in {output}.")
