"""Histories and semantic IDs for the benchmarks, read from atomic files without RecBole's loader."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from recbole_stream.data.samples import Samples
from recbole_stream.tokenizer.semantic_ids import build_semantic_ids, read_semantic_ids

__all__ = ["Corpus", "load", "spread_codes"]

MAX_HISTORY = 20


@dataclass
class Corpus:
    """One data set, split leave-one-out as RecBole splits it.

    Attributes:
        name: of the data set.
        train: one sample for each prefix of the training part.
        test: one sample a user: all but the last item, and the last.
        codes: semantic IDs [n_items, m].
        codebook_size: K.
    """

    name: str
    train: Samples
    test: Samples
    codes: Tensor
    codebook_size: int

    def head(self, users: int) -> Samples:
        """The first ``users`` test samples (file order, not sorted by length)."""
        test = self.test
        return Samples(test.histories[:users], test.lengths[:users], test.targets[:users])


def load(data_path: str | None, dataset: str, codebook_size: int = 256, max_users: int | None = None) -> Corpus:
    """Reads ``data_path/dataset/dataset.inter`` and ``.item``; RecBole's own ml-100k where they are absent.

    Semantic IDs come from TF-IDF vectors of the items' text, reduced to 128 dimensions: quick, without a
    language model, and clustered like real ones; from the folder's table of IDs where the items have no text.
    """
    folder = Path(data_path or "dataset") / dataset
    if not (folder / f"{dataset}.inter").is_file():
        # found without importing it: RecBole itself is not needed to read a file
        package = find_spec("recbole")
        folder, dataset = Path(package.origin).parent / "dataset_example" / "ml-100k", "ml-100k"
    sequences = list(_sequences(folder / f"{dataset}.inter").values())
    sequences = [sequence for sequence in sequences if len(sequence) > 3][:max_users]
    names = sorted({item for sequence in sequences for item in sequence})
    number = {item: place for place, item in enumerate(names, 1)}
    sequences = [[number[item] for item in sequence] for sequence in sequences]
    if (folder / f"{dataset}.item").is_file():
        vectors = _embed(folder / f"{dataset}.item", names)
        ids = build_semantic_ids(vectors, codebook_size=codebook_size, seed=0, show_progress=False)
    else:
        ids = read_semantic_ids(next(folder.glob("semantic_ids*.tsv")), names)
    train = _samples([sequence[:end] for sequence in sequences for end in range(2, len(sequence) - 1)])
    return Corpus(dataset, train, _samples(sequences), torch.from_numpy(ids.codes), max(ids.codebook_sizes))


def spread_codes(n_items: int, levels: int, codebook_size: int, seed: int = 0) -> Tensor:
    """Different random semantic IDs [n_items, levels] of a synthetic catalogue."""
    generator = torch.Generator().manual_seed(seed)
    space = codebook_size**levels
    if space < 1 << 24:
        numbers = torch.randperm(space, generator=generator)[:n_items]
    else:  # few of that many draws are equal
        numbers = torch.randint(space, (n_items + n_items // 8 + 64,), generator=generator).unique()
        numbers = numbers[torch.randperm(len(numbers), generator=generator)[:n_items]]
    powers = codebook_size ** torch.arange(levels - 1, -1, -1)
    return numbers[:, None] // powers % codebook_size


def _sequences(file: Path) -> dict[str, list[str]]:
    events: dict[str, list[tuple[float, str]]] = defaultdict(list)
    with file.open(encoding="utf-8") as rows:
        columns = [name.split(":")[0] for name in next(rows).rstrip("\n").split("\t")]
        user, item, moment = (columns.index(name) for name in ("user_id", "item_id", "timestamp"))
        for row in rows:
            cells = row.rstrip("\n").split("\t")
            events[cells[user]].append((float(cells[moment]), cells[item]))
    return {user: [item for _, item in sorted(found, key=lambda e: e[0])] for user, found in events.items()}


def _embed(file: Path, names: list[str]) -> np.ndarray:
    texts = dict.fromkeys(names, "")
    with file.open(encoding="utf-8", newline="") as rows:
        reader = csv.reader(rows, delimiter="\t", quoting=csv.QUOTE_NONE)
        item = [name.split(":")[0] for name in next(reader)].index("item_id")
        for row in reader:
            if row[item] in texts:
                texts[row[item]] = " ".join(row[:item] + row[item + 1 :])
    weights = TfidfVectorizer(max_features=20_000).fit_transform(texts.values())
    size = min(128, min(weights.shape) - 1)
    return TruncatedSVD(size, random_state=0).fit_transform(weights).astype(np.float32)


def _samples(sequences: list[list[int]]) -> Samples:
    """The last item of each sequence is the target, the at most 20 before it the history."""
    histories = np.zeros((len(sequences), MAX_HISTORY), dtype=np.int64)
    lengths = np.zeros(len(sequences), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        recent = sequence[-1 - MAX_HISTORY : -1]
        histories[row, : len(recent)], lengths[row] = recent, len(recent)
    targets = torch.tensor([sequence[-1] for sequence in sequences])
    return Samples(torch.from_numpy(histories), torch.from_numpy(lengths), targets)
