"""A network as JSON and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_stream.decoding.ranker import Ranker
from recbole_stream.decoding.trie import Trie
from recbole_stream.errors import InputError
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.deliberation import VIEWS, Deliberation
from recbole_stream.model.item_index import ItemIndex
from recbole_stream.model.lookup import Content, Transitions
from recbole_stream.model.matching import Matcher
from recbole_stream.model.pointer import Pairs, Pointer
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.model.tokens import ItemTokens
from recbole_stream.model.verifier import Verifier
from recbole_stream.model.views import indexed

__all__ = ["build_ranker", "describe"]

_WEIGHTS = "network."  # before the names of the network's own tensors
_SIZES = ("hidden_size", "inner_size", "n_heads", "head_size", "encoder_layers", "decoder_layers")
_KEYS = (*_SIZES, "temperature", "history_input")
_REASONING_KEYS = ("reasoning_mlp", "reasoning_scale")
_LOOKUP_KEYS = ("lookup_window", "lookup_decay", "lookup_backward", "lookup_recency", "verifier_size", "pointer_size")


def describe(ranker: Ranker, keys: Any, text: Tensor | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All that a ranker is, as JSON and tensors; :func:`build_ranker` undoes it.

    Args:
        ranker: of a trained network.
        keys: the configuration it was trained with, by ``keys[name]``.
        text: embeddings of the items' texts [n_items, D]; None without text.

    Returns:
        a dictionary in the types of JSON, and tensors by name. The look-ups are kept as counts, to which later events can
        be added.
    """
    network = ranker.network
    slow = getattr(network, "deliberation", None)
    names = [*_KEYS]
    if isinstance(network, STREAMRecModel):
        names += _REASONING_KEYS
    tensors = {_WEIGHTS + name: value for name, value in network.state_dict().items()}
    if text is not None:
        centre = text.mean(0)
        spread = (text - centre).std().clamp(min=1e-6)
        tensors |= {"text": text, "text_centre": centre, "text_spread": spread}
    config: dict[str, Any] = {
        "network": type(network).__name__,
        "codebook_sizes": list(network.tokens.sizes),
        "ranking": ranker.ranking,
        "beams": ranker.beams,
        "candidates": ranker.candidates,
        "longest": ranker.longest,
        "exact": ranker.exact,
    }
    if slow is not None:
        names += _LOOKUP_KEYS
        config["views_off"] = [view for view, used in zip(VIEWS, slow.used) if not used]
        rows, columns, counts = slow.transitions.pairs()
        tensors |= {"transitions.rows": rows, "transitions.columns": columns, "transitions.counts": counts}
        if slow.verifier is not None:
            tensors["popularity"] = slow.verifier.events
        if slow.pointer is not None:
            tensors["transitions.one_way"] = slow.pointer.pairs.one_way
    config["keys"] = {name: keys[name] for name in names}
    return config, tensors


def build_ranker(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device | str = "cpu"
) -> Ranker:
    """The ranker that :func:`describe` was given, ready to rank.

    Raises:
        InputError: config and tensors do not belong together.
    """
    try:
        keys = config["keys"]
        sizes = BackboneConfig(**{name: keys[name] for name in _SIZES}, dropout=0.0)  # nothing is trained here
        weights = {name.removeprefix(_WEIGHTS): value for name, value in tensors.items() if name.startswith(_WEIGHTS)}
        codes = weights["tokens.table"][1:] - weights["tokens.offsets"]
        tokens = ItemTokens(
            codes, config["codebook_sizes"], keys["hidden_size"], keys["temperature"], keys["history_input"]
        )
        network: TIGERModel | STREAMRecModel
        if config["network"] == TIGERModel.__name__:
            network = TIGERModel(sizes, tokens)
        else:
            slow = _deliberation(config, sizes, tokens, tensors) if "views_off" in config else None
            network = STREAMRecModel(sizes, tokens, keys["reasoning_mlp"], keys["reasoning_scale"], slow)
        network.load_state_dict(weights)
        network = network.to(device).eval().requires_grad_(False)
        if getattr(network, "deliberation", None) is not None:
            network.deliberation.matcher.freeze()
        if "index" in config:
            scales = tuple(config["index"]["scales"])
            network.deliberation.index = ItemIndex(
                indexed(network.deliberation, scales).cpu(),
                tensors["index.centres"],
                tensors["index.lists"],
                config["index"]["probes"],
                scales,
            )
        ranker = Ranker(
            network, Trie(codes).to(device), config["beams"], config["candidates"], config["longest"], config["exact"]
        )
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as fault:
        words = " ".join(str(fault).split())[:200]
        raise InputError(
            f"The model's configuration and its tensors do not belong together ({words}): export the model again."
        ) from fault
    return ranker


def _deliberation(
    config: Mapping[str, Any], sizes: BackboneConfig, tokens: ItemTokens, tensors: Mapping[str, Tensor]
) -> Deliberation:
    keys, text, content = config["keys"], tensors.get("text"), None
    verifier = pointer = None
    centre, spread = tensors.get("text_centre"), tensors.get("text_spread")
    if text is not None:
        text = F.pad(text, (0, 0, 1, 0))  # the padding item
        content = Content(text, keys["lookup_recency"], centre)
    rows, columns, counts = (tensors[f"transitions.{name}"] for name in ("rows", "columns", "counts"))
    transitions = Transitions.of_counts(rows, columns, counts, tokens.n_items, keys["lookup_recency"])
    if "transitions.one_way" in tensors:
        pairs = Pairs(transitions, *tensors["transitions.one_way"].unbind(-1))
        pointer = Pointer(keys["pointer_size"], pairs, tensors["popularity"])
    if keys["verifier_size"]:
        verifier = Verifier(len(VIEWS), keys["verifier_size"], tensors["popularity"], pointer is not None)
    return Deliberation(
        Matcher(sizes, tokens.table, tokens.vocabulary, text, centre, spread),
        transitions,
        content,
        tuple(config["views_off"]),
        verifier,
        pointer,
    )
