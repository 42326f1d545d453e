"""The parts of a small model's folder, made without any training."""

import pandas as pd
import torch
from helpers import catalogue, deliberating, random_verifier, streamrec, tiger

from recbole_stream.decoding.ranker import Ranker
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.deliberation import RANKINGS
from recbole_stream.serving.folder import Parts
from recbole_stream.serving.networks import describe

SIZES = (6, 4, 5)
CODES = catalogue(40, SIZES)
KEYS = {
    "hidden_size": 16, "inner_size": 32, "n_heads": 2, "head_size": 8, "encoder_layers": 2, "decoder_layers": 2,
    "temperature": 1.0, "history_input": "tokens", "reasoning_mlp": "residual", "reasoning_scale": "raw",
    "lookup_window": 2, "lookup_decay": 0.5, "lookup_backward": 0.5, "lookup_recency": 0.7, "verifier_size": 0,
    "pointer_size": 0,
}  # fmt: skip


def make_ranker(kind: str) -> tuple[Ranker, dict]:
    """A ranker of random weights, and its keys; the kind is TIGER, one of ``RANKINGS``, "verifier", or "pointer"."""
    keys = dict(KEYS)
    if kind == "TIGER":
        network = tiger(CODES, SIZES)
    elif kind == "likelihood":
        network = streamrec(CODES, SIZES)
    else:
        pointed = kind == "pointer"
        verifier = random_verifier(CODES, pointed) if kind in ("verifier", "pointer") else None
        keys |= {"verifier_size": 4 if verifier else 0, "pointer_size": 4 if pointed else 0}
        network = deliberating(CODES, SIZES, verifier=verifier, pointed=pointed)
        network.deliberation.ranking.fill_(RANKINGS.index("states" if kind == "states" else "deliberation"))
    return Ranker(network.eval(), Trie(CODES), 8, 12, 5), keys


def texts() -> torch.Tensor:
    """What ``deliberating`` draws for its items."""
    torch.manual_seed(1)
    return torch.randn(len(CODES) + 1, 6)[1:]


def make_parts(kind: str) -> Parts:
    """A folder's content: items i1 .. i40 with titles, users u1 (i1, i2, i3) and u2 (i4)."""
    ranker, keys = make_ranker(kind)
    config, tensors = describe(ranker, keys, None if kind in ("TIGER", "likelihood") else texts())
    config |= {"model": "TIGER" if kind == "TIGER" else "STREAMRec", "stage": "", "dataset": "toy", "seed": 1}
    config |= {"encoder": None, "leave_out_seen": False}
    items = pd.DataFrame({"item": [f"i{n}" for n in range(1, 41)], "title": [f"Title {n}" for n in range(1, 41)]})
    users = pd.DataFrame({"user": ["u1", "u2"], "items": [[1, 2, 3], [4]]})
    return Parts(config, tensors, items, users, "---\ntags: []\n---\n")
