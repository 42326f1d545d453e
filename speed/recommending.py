"""Histories a second from names to names: our recommender beside RecBole's ``full_sort_topk`` and ``generate``."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_stream.decoding.ranker import Ranker
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.deliberation import RANKINGS, VIEWS, Deliberation
from recbole_stream.model.lookup import Content, Transitions
from recbole_stream.model.matching import Matcher
from recbole_stream.model.pointer import Pairs, Pointer
from recbole_stream.model.verifier import Verifier
from recbole_stream.serving.folder import Parts
from recbole_stream.serving.networks import describe
from recbole_stream.serving.recommender import Recommender
from speed.data import Corpus, load
from speed.harness import alternate, report
from speed.models import DEFAULT, TINY, make_streamrec, make_tiger, train_briefly
from speed.rival import allowed_tokens, generate_items, give_weights, make_t5

__all__ = ["FULL", "TINY_SIZES", "Sizes", "recommending"]

TOP = 10
_LOOKUP = {
    "lookup_window": 10, "lookup_decay": 0.8, "lookup_backward": 0.5, "lookup_recency": 0.7,
    "verifier_size": 32, "pointer_size": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """Users in each call, calls a side, and the widths of the searches."""

    config: BackboneConfig = DEFAULT
    codebook_size: int = 256
    beams: int = 50
    users: int = 512
    rounds: int = 5
    rival_batch: int = 32
    text: int = 384
    train_steps: int = 300
    max_users: int | None = None


FULL = Sizes()
TINY_SIZES = Sizes(TINY, 8, 10, 12, 2, 4, 6, 3, 60)


def recommending(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """The same histories by every side; ``ratio`` is our TIGER over the same function by ``generate``.

    Weights of the matching tower are random and the verifier's too: what they cost does not depend on them. RecBole ranks
    by its SASRec, of the same width and number of layers, random weights.
    """
    corpus = load(data_path, dataset, sizes.codebook_size, sizes.max_users)
    users = corpus.head(sizes.users)
    names = [[f"item{item}" for item in row if item] for row in users.histories.tolist()]
    tiger = make_tiger(corpus.codes, corpus.codebook_size, sizes.config, "tokens")
    train_briefly(tiger, corpus, sizes.train_steps, f"tokens-{sizes.config.hidden_size}", cache_dir)
    trie = Trie(corpus.codes)
    ours = {
        "ours_tiger": _open(Ranker(tiger, trie, sizes.beams, 0, 20), sizes, None),
        "ours_states": _deliberating(corpus, trie, sizes, "states"),
        "ours_deliberation": _deliberating(corpus, trie, sizes, "deliberation"),
    }
    t5 = make_t5(sizes.config, tiger.tokens.vocabulary).eval().requires_grad_(False)
    give_weights(tiger, t5)
    allowed = allowed_tokens(corpus.codes, tiger.tokens)

    def generate() -> None:
        for part in users.histories.split(sizes.rival_batch):
            generate_items(t5, tiger.tokens, part, sizes.beams, TOP, allowed)

    sides = {name: lambda m=model: m.recommend(names, TOP, exclude_seen=False) for name, model in ours.items()}
    sides |= {"generate_tiger": generate, "full_sort_topk_sasrec": _full_sort(corpus, users.histories, sizes)}
    times = alternate(sides, sizes.rounds)
    median = {side: statistics.median(values) for side, values in times.items()}
    figures: dict[str, object] = {f"histories_per_second_{side}": len(names) / value for side, value in median.items()}
    for side in ours:
        figures[f"{side}_over_full_sort_topk"] = median["full_sort_topk_sasrec"] / median[side]
    figures |= {"histories": len(names), "items": len(corpus.codes), "data": corpus.name}
    return report("recommending", median["generate_tiger"] / median["ours_tiger"], figures, times, asdict(sizes), file)


def _open(ranker: Ranker, sizes: Sizes, text: Tensor | None) -> Recommender:
    keys = {
        **asdict(sizes.config), **_LOOKUP, "temperature": 1.0, "history_input": "tokens",
        "reasoning_mlp": "residual", "reasoning_scale": "raw",
    }  # fmt: skip
    config, tensors = describe(ranker, keys, text)
    items = [f"item{number}" for number in range(1, ranker.network.tokens.n_items)]
    table = pd.DataFrame({"item": items, "title": items})
    return Recommender(Parts(config, tensors, table, pd.DataFrame({"user": [], "items": []}), ""))


def _deliberating(corpus: Corpus, trie: Trie, sizes: Sizes, ranking: str) -> Recommender:
    """A STREAM-Rec that generates nothing, as the default ends where the likelihood has no weight."""
    network = make_streamrec(corpus.codes, corpus.codebook_size, sizes.config, "tokens")
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(len(corpus.codes), sizes.text, generator=generator)
    padded, train, tokens = F.pad(text, (0, 0, 1, 0)), corpus.train, network.tokens
    content = Content(padded, _LOOKUP["lookup_recency"])
    popularity = torch.bincount(train.targets, minlength=tokens.n_items)
    verifier = Verifier(len(VIEWS), _LOOKUP["verifier_size"], popularity, pointed=True)
    verifier.trusted.fill_(True)
    keys = {name: _LOOKUP[f"lookup_{name}"] for name in ("window", "decay", "backward", "recency")}

    def counted(**changes: float) -> Transitions:
        return Transitions(train.histories, train.lengths, train.targets, tokens.n_items, **(keys | changes))

    transitions = counted()
    pairs = Pairs.counted(transitions, counted)
    pointer = Pointer(_LOOKUP["pointer_size"], pairs, popularity)
    matcher = Matcher(sizes.config, tokens.table, tokens.vocabulary, padded)
    network.deliberation = Deliberation(matcher, transitions, content, ("likelihood",), verifier, pointer)
    network.deliberation.ranking.fill_(RANKINGS.index(ranking))
    return _open(Ranker(network.eval(), trie, sizes.beams, 50, 20), sizes, text)


def _full_sort(corpus: Corpus, histories: Tensor, sizes: Sizes):
    """RecBole's way from user names to items: its SASRec on the same histories, through ``full_sort_topk``."""
    from recbole.data.interaction import Interaction
    from recbole.model.sequential_recommender.sasrec import SASRec
    from recbole.utils.case_study import full_sort_topk

    import recbole_stream  # noqa: F401 - without its repairs RecBole does not run on today's packages

    class Keys(dict):
        def __missing__(self, key: str) -> None:
            return None

    class Rows:
        """What a model and ``full_sort_topk`` ask of a loader and its data set."""

        uid_field, is_sequential, item_num = "user_id", True, len(corpus.codes) + 1

        def __init__(self) -> None:
            self.dataset, self.users, self.config = self, torch.arange(len(histories)), Keys()
            lengths = (histories > 0).sum(1)
            self.inter_feat = Interaction({"user_id": self.users, "item_id_list": histories, "item_length": lengths})

        def __getitem__(self, rows: Tensor) -> Interaction:
            return self.inter_feat[rows]

        def num(self, field: str) -> int:
            return self.item_num

    keys = Keys(
        USER_ID_FIELD="user_id", ITEM_ID_FIELD="item_id", LIST_SUFFIX="_list", ITEM_LIST_LENGTH_FIELD="item_length",
        NEG_PREFIX="neg_", MAX_ITEM_LIST_LENGTH=histories.shape[1], device=torch.device("cpu"),
        n_layers=sizes.config.encoder_layers, n_heads=sizes.config.n_heads, hidden_size=sizes.config.hidden_size,
        inner_size=sizes.config.inner_size, hidden_dropout_prob=0.0, attn_dropout_prob=0.0, hidden_act="gelu",
        layer_norm_eps=1e-12, initializer_range=0.02, loss_type="CE",
    )  # fmt: skip
    rows = Rows()
    model = SASRec(keys, rows).eval()
    return lambda: full_sort_topk(rows.users.numpy(), model, rows, TOP, torch.device("cpu"))
