"""Items 2 to 4: users per second of ranking, exact ranking, growth with the catalogue."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from recbole_stream.data.samples import Samples
from recbole_stream.decoding.exact import rank_items_exactly
from recbole_stream.decoding.rank import rank_items
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel
from speed.data import Corpus, load, spread_codes
from speed.harness import alternate, report, same_share, seconds
from speed.models import DEFAULT, PAPER, TINY, make_streamrec, make_tiger, train_briefly
from speed.rival import allowed_tokens, generate_items, give_weights, make_t5

__all__ = ["FULL", "TINY_SIZES", "Sizes", "exact", "growth", "ranking", "trie_bytes"]

TOP = 10
REASONING_STEPS = 4  # properties/model/STREAMRec.yaml


@dataclass(frozen=True)
class Sizes:
    """``rounds`` groups of ``users`` users each are ranked by every side; ``batch`` and ``rival_batch`` at once."""

    config: BackboneConfig = PAPER
    default: BackboneConfig = DEFAULT
    codebook_size: int = 256
    beams: tuple[int, ...] = (20, 50)
    users: int = 128
    rounds: int = 8
    batch: int = 64
    rival_batch: int = 32
    train_steps: int = 200
    default_train_steps: int = 1000
    reasoning_steps: int = REASONING_STEPS
    growth_items: tuple[int, int] = (10_000, 1_000_000)
    max_users: int | None = None


FULL = Sizes()
TINY_SIZES = Sizes(TINY, TINY, 8, (10, 12), 8, 2, 4, 4, 3, 3, 2, (200, 2000), 60)


def ranking(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """``generate`` with a prefix constraint against beam search over the trie: same weights, and default sizes.

    The rival takes histories as RecBole's loader gives them, padded to the longest that is kept (``t5``), and once
    more cut to the longest of each batch, which spares it a part of the encoder's work (``t5_trimmed``).
    """
    corpus = load(data_path, dataset, sizes.codebook_size, sizes.max_users)
    trie = Trie(corpus.codes)
    same = make_tiger(corpus.codes, corpus.codebook_size, sizes.config, "tokens")
    train_briefly(same, corpus, sizes.train_steps, f"tokens-{sizes.config.hidden_size}", cache_dir)
    default = _default(corpus, sizes, cache_dir)
    slow = _with_reasoning(corpus, sizes, default)
    t5 = make_t5(sizes.config, same.tokens.vocabulary).eval().requires_grad_(False)
    give_weights(same, t5)
    allowed = allowed_tokens(corpus.codes, same.tokens)

    times: dict[str, list[float]] = {}
    figures: dict[str, object] = {}
    for beams in sizes.beams:
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        sides = {f"{name}_{beams}": [] for name in ("t5", "t5_trimmed", "same", "default_tiger", "default_streamrec")}
        for number in range(sizes.rounds + 1):
            users = slice(number * sizes.users, (number + 1) * sizes.users)
            if number == 0:  # untimed, and small: the first calls set things up
                users = slice(0, sizes.rival_batch)
            part = Samples(*(getattr(corpus.test, name)[users] for name in ("histories", "lengths", "targets")))
            theirs: dict[bool, list[Tensor]] = {}
            ours: dict[str, tuple[Tensor, Tensor]] = {}

            def rival(trimmed: bool) -> None:
                theirs[trimmed] = []
                for histories in part.histories.split(sizes.rival_batch):
                    if trimmed:
                        histories = histories[:, : int((histories > 0).sum(1).max())]
                    theirs[trimmed].append(generate_items(t5, same.tokens, histories, beams, TOP, allowed))

            def mine(name: str, model: TIGERModel | STREAMRecModel) -> None:
                ours[name] = rank_all(model, part, trie, beams, sizes.batch)

            works = [
                lambda: rival(False),
                lambda: rival(True),
                lambda: mine("same", same),
                lambda: mine("default_tiger", default),
                lambda: mine("default_streamrec", slow),
            ]
            for side, work in zip(sides, works):
                elapsed = seconds(work)
                if number:
                    sides[side].append(elapsed)
            if number:
                items = trie.find(same.tokens.codes(torch.cat(theirs[False])))
                found.append((ours["same"][0], items, ours["same"][1]))
        times |= sides
        median = {side: statistics.median(values) for side, values in sides.items()}
        for name in ("same", "default_tiger", "default_streamrec"):
            figures[f"ratio_{name}_{beams}"] = median[f"t5_{beams}"] / median[f"{name}_{beams}"]
            figures[f"ratio_trimmed_{name}_{beams}"] = median[f"t5_trimmed_{beams}"] / median[f"{name}_{beams}"]
        figures |= {f"users_per_second_{side}": sizes.users / value for side, value in median.items()}
        items, rival_items, scores = (torch.cat(part) for part in zip(*found))
        figures[f"same_top{TOP}_{beams}"] = same_share(items, rival_items, scores)
    figures |= {"users_compared": sizes.users * sizes.rounds, "data": corpus.name, "items": len(corpus.codes)}
    ratio = min(figures[f"ratio_same_{beams}"] for beams in sizes.beams)
    return report("ranking", ratio, figures, times, asdict(sizes), file)


def exact(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """The exact mode against the widest beam search, on the catalogue of the data set; ``ratio`` is a cost: low is good."""
    corpus = load(data_path, dataset, sizes.codebook_size, sizes.max_users)
    trie, beams, model = Trie(corpus.codes), max(sizes.beams), _default(corpus, sizes, cache_dir)
    users = corpus.head(sizes.users * 4)
    proven: list[tuple[Tensor, Tensor, Tensor]] = []

    def exactly() -> None:
        proven[:] = [
            rank_items_exactly(model, batch.histories, trie, TOP, beams) for batch in users.ordered(sizes.batch)
        ]

    times = alternate(
        {"beams": lambda: rank_all(model, users, trie, beams, sizes.batch, None), "exact": exactly}, sizes.rounds
    )
    median = {side: statistics.median(values) for side, values in times.items()}
    enough = torch.cat([part[2] for part in proven])
    figures = {
        f"share_of_users_with_exact_top{TOP}_by_{beams}_beams": float(enough.float().mean()),
        "users_per_second_exact": len(users) / median["exact"],
        f"users_per_second_{beams}_beams": len(users) / median["beams"],
        "items": len(corpus.codes),
        "users": len(users),
        "data": corpus.name,
    }
    return report("exact", median["exact"] / median["beams"], figures, times, asdict(sizes), file)


def growth(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """Ranking over a hundred times more items; ``ratio`` is a cost: low is good. Random IDs and weights."""
    beams, sides, figures = max(sizes.beams), {}, {}
    generator = torch.Generator().manual_seed(0)
    for n_items in sizes.growth_items:
        # a catalogue needs IDs enough: the smallest one of the full run has 10,000 of 256^4
        codes = spread_codes(n_items, 4, sizes.codebook_size)
        trie, model = (
            Trie(codes),
            make_tiger(codes, sizes.codebook_size, sizes.default, "item").eval().requires_grad_(False),
        )
        users = torch.randint(1, n_items + 1, (sizes.users * 2, 8), generator=generator)
        sides[str(n_items)] = lambda m=model, t=trie, u=users: [
            rank_items(m, part, t, beams, TOP) for part in u.split(sizes.batch)
        ]
        figures[f"trie_bytes_per_item_{n_items}"] = trie_bytes(trie) / n_items
    times = alternate(sides, sizes.rounds)
    few, many = (statistics.median(times[str(n_items)]) for n_items in sizes.growth_items)
    figures |= {
        f"milliseconds_per_user_{n}": 1e3 * value / (sizes.users * 2)
        for n, value in zip(sizes.growth_items, (few, many))
    }
    return report("growth", many / few, figures, times, asdict(sizes), file)


def rank_all(
    model: TIGERModel | STREAMRecModel, users: Samples, trie: Trie, beams: int, batch: int, top: int | None = TOP
) -> tuple[Tensor, Tensor]:
    """The best items [N, TOP] of all users and their scores, in the order of ``users``."""
    items = torch.empty(len(users), TOP, dtype=torch.long)
    scores = torch.empty(len(users), TOP)
    for part in users.ordered(batch):
        found = rank_items(model, part.histories, trie, beams, top)
        items[part.rows], scores[part.rows] = (tensor[:, :TOP] for tensor in found)
    return items, scores


def trie_bytes(trie: Trie) -> int:
    """Memory of all tensors of a trie."""
    return sum(buffer.numel() * buffer.element_size() for buffer in trie.buffers())


def _default(corpus: Corpus, sizes: Sizes, cache_dir: str | None) -> TIGERModel:
    model = make_tiger(corpus.codes, corpus.codebook_size, sizes.default, "item")
    return train_briefly(model, corpus, sizes.default_train_steps, f"item-{sizes.default.hidden_size}", cache_dir)


def _with_reasoning(corpus: Corpus, sizes: Sizes, direct: TIGERModel) -> STREAMRecModel:
    """The STREAM-Rec that Stage 2 would start from, writing its reasoning tokens before the item."""
    model = make_streamrec(corpus.codes, corpus.codebook_size, sizes.default, "item").eval().requires_grad_(False)
    for ours, theirs in (
        (model.encoder, direct.encoder),
        (model.tokens, direct.tokens),
        (model.decoder, direct.decoder),
    ):
        ours.load_state_dict(theirs.state_dict())
    model.steps.fill_(sizes.reasoning_steps)
    return model
