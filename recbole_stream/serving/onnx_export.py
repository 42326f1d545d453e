"""A model as one ONNX graph: ``python -m recbole_stream onnx MODEL --output=FILE.onnx``.

The graph takes histories and gives the best items, all in one: the matching tower, what is looked up, the weighted sum
and the verifier. Models that write tokens have a search that no graph holds.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_stream.decoding.ranker import Ranker
from recbole_stream.errors import InputError
from recbole_stream.files import whole_file
from recbole_stream.model.deliberation import Deliberation
from recbole_stream.model.lookup import Transitions, log_shares, recency_weights
from recbole_stream.model.pointer import Pairs, latest, pair_sums
from recbole_stream.serving.folder import read_model
from recbole_stream.serving.networks import build_ranker

__all__ = ["Graph", "arguments", "command", "quantised", "to_onnx"]

_OPSET = 18  # the first in which ScatterElements adds


class Graph(nn.Module):
    """What a ranker does, by operations of fixed shapes.

    Args:
        ranker: that ranks by states, or by deliberation without likelihood.

    Raises:
        InputError: it ranks by a likelihood.
    """

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        slow = getattr(ranker.network, "deliberation", None)
        if ranker.ranking == "likelihood" or (ranker.ranking == "deliberation" and slow.generates):
            raise InputError(
                "The model searches for the tokens of items, which no ONNX graph does: export a row that ranks by States, or "
                "by Deliberation without the view likelihood."
            )
        self.slow: Deliberation = slow
        self.verified = slow.verified
        self.states = ranker.ranking == "states"
        self.top = min(ranker.candidates, ranker.network.tokens.n_items - 1)
        self.register_buffer("vectors", slow.matcher.vectors().detach())
        self.transitions = _Padded(slow.transitions)
        self.pairs = _PaddedPairs(slow.transitions, slow.pointer.pairs) if self.verified and slow.pointer else None

    def forward(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Item numbers [B, L], 0 as padding on the right -> the best items [B, C] and their scores [B, C]."""
        matching = self.slow.matcher(histories, self.vectors).log_softmax(-1)
        if self.states:
            scores, items = matching.topk(self.top, 1)
            return items, scores
        _, matches, follows, text, repeats = self.slow.used
        blank = torch.zeros_like(matching)
        closed = (torch.arange(matching.shape[1]) == 0)[None]
        views = torch.stack(
            [
                blank,
                matching.masked_fill(closed, 0.0) if matches else blank,
                log_shares(self.transitions(histories)) if follows else blank,
                self.slow.content(histories) if text else blank,
                blank.scatter(1, histories, torch.ones_like(histories, dtype=blank.dtype)) if repeats else blank,
            ],
            -1,
        )
        together = (views * self.slow.weights).sum(-1).masked_fill(closed, -torch.inf)
        items = together.topk(self.top, 1).indices
        views = views.gather(1, items[..., None].expand(-1, -1, views.shape[-1]))
        if self.verified:
            cosines = None
            if text:
                unit = self.slow.content.unit
                cosines = unit[items] @ unit[histories].transpose(1, 2)
            pointed = None if self.pairs is None else self._pointed(histories, items, views, cosines, follows)
            scores = self.slow.verifier(self.slow.verifier.features(histories, items, views, cosines, pointed))
        else:
            scores = (views * self.slow.weights).sum(-1)
        scores, order = scores.sort(1, descending=True)
        return items.gather(1, order), scores

    def _pointed(
        self, histories: Tensor, items: Tensor, views: Tensor, cosines: Tensor | None, follows: bool
    ) -> Tensor:
        sums = self.pairs(histories, items)
        if not follows:
            sums = torch.zeros_like(sums)
        pointer, recency = self.slow.pointer, self.slow.transitions.recency
        return pointer(pointer.features(histories, items, views[..., 2:4], cosines, sums, recency))


class _Padded(nn.Module):
    """:class:`Transitions`, with as many pairs an item as the item with the most has."""

    def __init__(self, transitions: Transitions) -> None:
        super().__init__()
        self.n_items, self.recency = transitions.n_items, transitions.recency
        counts = transitions.first.diff()
        width = int(counts.max().clamp(min=1))
        place = transitions.first[:-1, None] + torch.arange(width)
        there = torch.arange(width) < counts[:, None]
        last = max(0, len(transitions.columns) - 1)
        columns, values = F.pad(transitions.columns.long(), (0, 1)), F.pad(transitions.counts, (0, 1))
        place = place.clamp(max=last + 1)
        self.register_buffer("columns", columns[place] * there)
        self.register_buffer("shares", values[place] * there / transitions.sums[:, None].clamp(min=1e-9))

    def forward(self, histories: Tensor) -> Tensor:
        """As :meth:`Transitions.forward`."""
        weights = recency_weights(histories, self.recency)[..., None] * self.shares[histories]  # [B, L, width]
        found = torch.zeros_like(weights[:, 0, :1]).expand(-1, self.n_items)
        found = found.scatter_add(1, self.columns[histories].flatten(1), weights.flatten(1))
        return found / found.sum(1, keepdim=True).clamp(min=1e-9)


class _PaddedPairs(nn.Module):
    """:class:`Pairs`, looked up by halving: as many times as the item with the most pairs needs."""

    def __init__(self, transitions: Transitions, pairs: Pairs) -> None:
        super().__init__()
        self.recency = transitions.recency
        self.steps = int(transitions.first.diff().max()).bit_length()
        self.register_buffer("first", transitions.first)
        # one more than there are, of no item
        self.register_buffer("columns", F.pad(transitions.columns.long(), (0, 1), value=-1))
        self.register_buffer("counts", F.pad(pairs.counts, (0, 0, 0, 1)))
        self.register_buffer("totals", pairs.totals)

    def forward(self, histories: Tensor, items: Tensor) -> Tensor:
        """Item ids [B, L] and [B, C] -> what :meth:`Pairs.sums` gives, [B, C, 15]."""
        wanted = items[:, None] + torch.zeros_like(histories)[..., None]  # [B, L, C]
        low = self.first[histories][..., None] + torch.zeros_like(wanted)
        end = self.first[histories + 1][..., None] + torch.zeros_like(wanted)
        high = end
        for _ in range(self.steps):  # the first pair of the row whose item is no smaller lies in low .. high
            middle = (low + high) // 2
            smaller = (self.columns[middle] < wanted) & (low < high)
            low, high = torch.where(smaller, middle + 1, low), torch.where(smaller, high, middle)
        there = (low < end) & (self.columns[low] == wanted)
        counts = self.counts[low] * there[..., None]
        totals = self.totals[histories][:, :, None] + torch.zeros_like(counts)
        weights = recency_weights(histories, self.recency)[..., None] + torch.zeros_like(counts[..., 0])
        last = latest(histories)[..., None] & (wanted >= 0)
        return pair_sums(counts, totals, weights, last).sum(1)


def to_onnx(ranker: Ranker, output: str | Path) -> Path:
    """Write the graph of a ranker.

    Its input is ``histories``: int64 [B, L], item numbers from 1 in time, 0 as padding on the right, the latest
    ``ranker.longest`` at most; both sizes are free. Its outputs are ``items`` int64 and ``scores`` float32, both [B, C], best
    first: as many as the deliberation has candidates.

    Args:
        ranker: on the CPU.
        output: the file.

    Raises:
        InputError: the ranker needs a search, or the extra is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise InputError("An ONNX graph needs further packages: `pip install recbole-stream[onnx]`.") from None
    output, graph = Path(output), Graph(ranker).eval()
    example = torch.ones(2, min(3, ranker.longest), dtype=torch.long)
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        file = Path(scratch) / "model.onnx"
        sizes = {"histories": {0: torch.export.Dim("rows"), 1: torch.export.Dim("length", max=ranker.longest)}}
        with torch.enable_grad():  # where it is off, products go to an operator that only PyTorch has
            torch.onnx.export(
                graph, (example,), file, input_names=["histories"], output_names=["items", "scores"],
                dynamic_shapes=sizes, opset_version=_OPSET, dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
        with whole_file(output) as written:
            written.write(file.read_bytes())
    return output


def quantised(file: Path, output: Path) -> Path:
    """Write a graph with the weights of its products in 8 bits.

    What they are multiplied with is rounded as it comes (dynamic quantisation). The two files may be the same.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch, _quiet():
        small = Path(scratch) / "model.onnx"
        quantize_dynamic(file, small, weight_type=QuantType.QInt8)
        with whole_file(output) as written:
            written.write(small.read_bytes())
    return output


@contextlib.contextmanager
def _quiet():
    """What exporters say of their own workings is no news to who asked for a file."""
    old = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(old)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command may be given."""
    parser.add_argument("model", type=Path, help="folder of a model that export wrote")
    parser.add_argument("--output", type=Path, required=True, help="the file, such as model.onnx")
    parser.add_argument("--int8", action="store_true", help="keep weights in 8 bits: smaller, other last digits")


def command(options: argparse.Namespace) -> None:
    """Write the graph, and say what goes in and comes out."""
    parts = read_model(options.model)
    if "kind" in parts.config:
        raise InputError(
            f"{options.model} is RecBole's own {parts.config.get('model')}: only our models become ONNX graphs."
        )
    to_onnx(build_ranker(parts.config, parts.tensors), options.output)
    if options.int8:
        quantised(options.output, options.output)
    print(
        f"{options.output} takes histories (int64 [rows, length], numbers of items.parquet from 1, 0 behind the last) and "
        "gives items and scores, best first."
    )
