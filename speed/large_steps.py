"""The steps of ``python -m speed large``; each runs in a process of its own: ``python -m speed.large_steps JSON``."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_stream.data.prefixes import Prefixes
from recbole_stream.data.samples import Samples
from recbole_stream.data.scan import scan_file
from recbole_stream.decoding.rank_by_views import deliberate
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.deliberation import RANKINGS, Deliberation
from recbole_stream.model.lookup import Content, Transitions
from recbole_stream.model.matching import Matcher
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tokens import ItemTokens
from recbole_stream.precision import automatic_precision
from recbole_stream.serving.index_command import learn_index
from recbole_stream.text.encoder import encode_texts
from recbole_stream.text.item_text import read_item_text
from recbole_stream.tokenizer.semantic_ids import build_semantic_ids
from recbole_stream.training.fit_views import Match
from recbole_stream.training.loop import Objective, autocast
from recbole_stream.training.pretrain import Pretrain
from speed.data import spread_codes
from speed.generate import Log, events
from speed.tokenizer import clustered

__all__ = ["STEPS", "Marks", "run_step"]

_DEFAULT = BackboneConfig(128, 512, 4, 32, 2, 2, 0.1)  # as properties/model/STREAMRec.yaml sets it
_HISTORY, _BATCH, _TOP = 20, 256, 10
_RECALL = 0.98  # that an index should reach
_TEXTS = 2048  # encoded to measure the rate


class Marks:
    """Seconds and peak memory of parts of a process.

    Attributes:
        found: part -> ``seconds`` of the CPU (all threads, so that a busy machine changes them little), ``wall_seconds``,
            ``peak_mib`` (of the whole process, its libraries included) and what else was noted.
    """

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self._open: list[dict[str, float]] = []  # parts that are being measured, the outermost first
        self._inside = (0.0, 0.0)  # seconds of what was measured within the innermost of them

    @contextmanager
    def part(self, name: str) -> Iterator[dict[str, float]]:
        """Measure what is inside, without the seconds of parts within it; calls with one name are added up."""
        for outer in self._open:
            outer["peak_mib"] = max(outer["peak_mib"], _peak_mib())
        _forget_peak()
        figures = self.found.setdefault(name, {"seconds": 0.0, "wall_seconds": 0.0, "peak_mib": 0.0})
        self._open.append(figures)
        cpu, wall = time.process_time(), time.perf_counter()
        before = self._inside
        self._inside = (0.0, 0.0)
        yield figures
        spent = time.process_time() - cpu, time.perf_counter() - wall
        figures["seconds"] += spent[0] - self._inside[0]
        figures["wall_seconds"] += spent[1] - self._inside[1]
        self._inside = (before[0] + spent[0], before[1] + spent[1])
        self._open.pop()
        for part in (figures, *self._open):
            part["peak_mib"] = max(part["peak_mib"], _peak_mib())


def _forget_peak() -> None:
    """Let the kernel count the peak of this process from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def check(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """Every row of the events is looked at."""
    with marks.part("check"):
        scan_file(folder / f"{folder.name}.inter", ["user_id", "item_id"], time="timestamp")


def setup(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """From the files to the loaders, as our models have it; no text is encoded."""
    from recbole_stream.host.dataset import SemanticIDDataset

    class WithoutText(SemanticIDDataset):
        def _attach_items(self) -> None:
            """Text is a step of its own."""

    _prepare("TIGER", WithoutText, folder, marks, "")


def setup_recbole(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """The same as RecBole's own sequential models have it."""
    from recbole.data.dataset import SequentialDataset

    _prepare("SASRec", SequentialDataset, folder, marks, " (RecBole's models)")


def _prepare(model: str, kind: type, folder: Path, marks: Marks, suffix: str) -> None:
    from recbole.data import data_preparation

    from recbole_stream.host.run.job import configure

    options = {
        "data_path": str(folder.parent),
        "text_fields": ["title", "categories", "brand"],
        "user_inter_num_interval": "[5,inf)",
        "item_inter_num_interval": "[5,inf)",
        "show_progress": False,
        "use_gpu": False,
    }
    config = configure(model, [model], folder.name, options, folder / "run")
    # parts of one process, which the data set of RecBole cannot leave between them
    for name, method in {
        "read": "_load_data",
        "filter": "_data_filtering",
        "number": "_remap_ID_all",
        "augment": "_change_feat_format",
    }.items():
        setattr(kind, method, _marked(getattr(kind, method), marks, name + suffix))
    dataset = kind(config)
    with marks.part("split" + suffix) as figures:
        train, _, _ = data_preparation(config, dataset)
        figures["samples"] = len(train._dataset)
        figures["items"] = dataset.item_num - 1


def _marked(function: Callable, marks: Marks, name: str) -> Callable:
    def measured(*arguments: Any, **named: Any) -> Any:
        with marks.part(name):
            return function(*arguments, **named)

    return measured


def text(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """All items' texts are read; some are encoded, and the time for all follows from them."""
    with marks.part("item text"):
        tokens = [f"i{number}" for number in range(1, log.items + 1)]
        texts = read_item_text(folder / f"{folder.name}.item", ["title", "categories", "brand"], tokens)
    some = texts[:: max(1, len(texts) // _TEXTS)][:_TEXTS]
    encode_texts(some[:64], "auto", None, show_progress=False)  # loads the libraries
    with marks.part("encode (from a slice)") as figures:
        encode_texts(some, "auto", None, show_progress=False)
    _extrapolate(figures, log.items / len(some))
    figures["texts_per_second"] = log.items / figures["seconds"]


def tokenizer(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """Random vectors to unique semantic IDs."""
    vectors = clustered(log.items, 384)
    with marks.part("tokenizer"):
        build_semantic_ids(vectors, seed=0, show_progress=False)


def lookups(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """Transitions of the training samples, and the unit vectors of texts."""
    samples = _samples(log)
    with marks.part("transitions") as figures:
        figures["pairs"] = len(_transitions(samples, log).columns)
    del samples
    vectors = _text(log)
    with marks.part("text view"):
        Content(vectors, 0.7)


def pretrain(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """Some steps of Stage 1, and the time of an epoch from them."""
    model, samples = _model(log, deliberation=False), _samples(log)
    model.reference.decoder.requires_grad_(False)
    objective = Pretrain(model, torch.zeros(log.items + 1, 0, dtype=torch.long), 0.0)
    _epoch("pretrain, an epoch (from some steps)", model, objective, samples, marks, options["steps"])


def match(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """Some steps of the matching tower, and the time of an epoch from them."""
    model, samples = _model(log), _samples(log)
    _epoch("matching, an epoch (from some steps)", model, Match(model), samples, marks, options["steps"])


def _epoch(name: str, model: STREAMRecModel, objective: Objective, samples: Samples, marks: Marks, steps: int) -> None:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, fused=True)
    model.train()
    precision = automatic_precision("cpu")

    def optimise(rows: Tensor) -> None:
        with autocast("cpu", precision):
            loss, _ = next(objective.losses(samples.batch(rows)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    with marks.part("order of batches"):
        batches = samples.shuffled(_BATCH, 0)
    optimise(batches[0])
    with marks.part(name) as figures:
        for rows in batches[1 : steps + 1]:
            optimise(rows)
    steps = min(steps, len(batches) - 1)
    figures["milliseconds_a_step"] = figures["seconds"] / steps * 1000
    figures["steps_an_epoch"] = len(batches)
    _extrapolate(figures, len(batches) / steps)


def _extrapolate(figures: dict[str, float], factor: float) -> None:
    for name in ("seconds", "wall_seconds"):
        figures[name] *= factor


def rank(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """Users ranked by the views that are not generated, then by all, as a model does that is trained no more."""
    model = _model(log).eval()
    model.deliberation.matcher.freeze()
    slow, samples, users = model.deliberation, _samples(log), options["users"]
    histories = samples.histories[torch.arange(len(samples) - users, len(samples)), :_HISTORY]
    with marks.part("trie"):
        trie = Trie(model.tokens.codes(model.tokens.table[1:]))
    del samples
    for name, weight in (("rank, four views", 0.0), ("rank, all views", 0.1)):
        slow.weights[0] = weight
        deliberate(model, histories[:32], trie, 50, 50, _TOP)
        with marks.part(name) as figures:
            deliberate(model, histories, trie, 50, 50, _TOP)
        figures["milliseconds_a_user"] = figures["seconds"] / users * 1000


def index(log: Log, folder: Path, marks: Marks, options: Mapping[str, Any]) -> None:
    """The same users ranked by four views exactly and by an index; of random vectors there would be no near ones to find."""
    model, samples, users = _model(log), _samples(log), options["users"]
    slow = model.deliberation
    slow.weights[0] = 0.0
    with marks.part("tower, steps within the batch"):
        _fit_within(slow.matcher, samples, options["steps"])
    model.eval()
    slow.matcher.freeze()
    histories = samples.histories[torch.arange(len(samples) - 2 * users, len(samples)), :_HISTORY]
    del samples
    ranker = Ranker(model, Trie(model.tokens.codes(model.tokens.table[1:])), 50, 50, _HISTORY)
    ranker.network.deliberation.ranking.fill_(RANKINGS.index("deliberation"))
    with marks.part("index, learnt and measured") as figures:
        measured = learn_index(ranker, histories, _RECALL)
    figures |= {"recall": measured.recall, "exact_ms": measured.exact, "index_ms": measured.indexed}
    figures |= {"lists": measured.lists, "probes": measured.probes}
    slow.index, index = None, slow.index
    exact, _ = ranker.rank(histories[1::2], _TOP)
    slow.index = index
    for probes in (8, 16, 32, 64, 128):
        index.probes = probes
        with marks.part(f"rank by an index, {probes} lists") as figures:
            items, _ = ranker.rank(histories[1::2], _TOP)
        figures["milliseconds_a_user"] = figures["seconds"] / users * 1000
        figures["recall"] = float((exact[:, :, None] == items[:, None]).any(-1).float().mean())


def _fit_within(matcher: Matcher, samples: Samples, steps: int) -> None:
    """Train the matching tower against the other targets of its batch, which takes as long for any number of items."""
    matcher.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(matcher.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
    for rows in samples.shuffled(2 * _BATCH, 0)[:steps]:
        batch = samples.batch(rows)
        padding = torch.zeros(1, dtype=torch.long)  # so that it is number 0 here as well
        numbers, places = torch.cat([padding, batch.histories.flatten(), batch.targets]).unique(return_inverse=True)
        histories, targets = places[1 : -len(rows)].view_as(batch.histories), places[-len(rows) :]
        tokens = F.embedding_bag(matcher.table[numbers], matcher.tokens.weight, mode="mean")
        vectors = matcher.own(numbers) + tokens + matcher.project(matcher.text[numbers])
        logits = matcher.states(histories, vectors) @ vectors[targets].T
        same = (batch.targets[:, None] == batch.targets) & ~torch.eye(len(rows), dtype=torch.bool)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits.masked_fill(same, -torch.inf), torch.arange(len(rows))).backward()
        optimizer.step()
    matcher.requires_grad_(False)


STEPS = {
    "check": check,
    "setup": setup,
    "setup-recbole": setup_recbole,
    "text": text,
    "tokenizer": tokenizer,
    "lookups": lookups,
    "pretrain": pretrain,
    "match": match,
    "rank": rank,
    "index": index,
}


def _samples(log: Log) -> Samples:
    """The training samples of leave-one-out: each prefix of a user's events but the last two."""
    users, items, _ = (np.concatenate(column) for column in zip(*events(log)))
    first = np.flatnonzero(np.diff(users, prepend=0))
    counts = np.diff(np.append(first, len(users)))
    place = np.arange(len(users)) - np.repeat(first, counts)
    rows = torch.from_numpy(np.flatnonzero((place > 0) & (place < np.repeat(counts - 2, counts))))
    lengths = torch.from_numpy(place)[rows].clamp(max=_HISTORY)
    flat = torch.from_numpy(items)
    return Samples(Prefixes(flat, rows - lengths, lengths, _HISTORY), lengths, flat[rows])


def _text(log: Log) -> Tensor:
    vectors = torch.empty(log.items + 1, 384)
    vectors[0] = 0
    vectors[1:] = torch.from_numpy(clustered(log.items, 384))
    return vectors


def _transitions(samples: Samples, log: Log) -> Transitions:
    return Transitions(samples.histories, samples.lengths, samples.targets, log.items + 1, 10, 0.8, 0.5, 0.7)


def _model(log: Log, deliberation: bool = True) -> STREAMRecModel:
    """A random model of the default's sizes."""
    torch.manual_seed(0)
    tokens = ItemTokens(spread_codes(log.items, 4, 256), [256] * 4, _DEFAULT.hidden_size, 1.0, "item")
    slow = None
    if deliberation:
        vectors = _text(log)
        matcher = Matcher(_DEFAULT, tokens.table, tokens.vocabulary, vectors)
        slow = Deliberation(matcher, _transitions(_samples(log), log), Content(vectors, 0.7))
    return STREAMRecModel(_DEFAULT, tokens, deliberation=slow)


def run_step(step: str, log: Log, folder: Path, options: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Run one step in this process, within ``options["limit_gib"]`` of private memory where that is not None."""
    if options["limit_gib"] is not None:
        most = int(options["limit_gib"] * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    marks = Marks()
    STEPS[step](log, folder, marks, options)
    return marks.found


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    found = run_step(given["step"], Log(**given["log"]), Path(given["folder"]), given)
    print(json.dumps(found))
