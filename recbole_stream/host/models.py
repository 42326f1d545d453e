"""TIGER and STREAMRec as RecBole models: thin shells around the networks of ``model``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_stream.data.histories import right_padded
from recbole_stream.data.samples import Batch, Samples
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.decoding.trie import Trie
from recbole_stream.errors import InputError
from recbole_stream.host.dataset import ItemTextDataset, SemanticIDDataset, samples_of
from recbole_stream.host.keys import trained_stages, view_names
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.deliberation import VIEWS, Deliberation
from recbole_stream.model.lookup import Content, Transitions
from recbole_stream.model.matching import Matcher
from recbole_stream.model.pointer import Pairs, Pointer
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.model.tokens import ItemTokens
from recbole_stream.model.verifier import Verifier
from recbole_stream.training.fit_pointer import Memory, fit_pointer
from recbole_stream.training.fit_views import Match
from recbole_stream.training.loop import Objective
from recbole_stream.training.pretrain import Direct, Pretrain

__all__ = [
    "GenerativeRecommender",
    "STREAMRec",
    "StagedRecommender",
    "TIGER",
    "backbone_of",
    "learn_pointer",
    "memory_of",
    "tokens_of",
    "transitions_of",
]

_OTHER_IDS = (
    "The checkpoint's items have other semantic IDs than were made here: load it with load_data_and_model, which takes "
    "those that the checkpoint carries; one that carries none, of an older version, needs the cache of its training."
)


class StagedRecommender(SequentialRecommender):
    """What all models share that the project's own loop trains: a network, the loss of the present stage, the items.

    Histories may be padded on either side and of any length: every method reads the latest MAX_ITEM_LIST_LENGTH items.

    Attributes:
        network: the model proper.
        objective: the loss that :meth:`calculate_loss` gives; the trainer sets it for each stage. Under a trainer
            that does not, it is that of the first stage.
        items: what the data set knows of the items.
    """

    input_type = InputType.POINTWISE
    network: nn.Module
    objective: Objective | None = None

    def __init__(self, config: Config, dataset: ItemTextDataset) -> None:
        super().__init__(config, dataset)
        self.items = dataset.items

    def first_objective(self) -> Objective:
        """What the first stage optimises."""
        raise NotImplementedError

    def rank_batch(self, batch: Batch, top: int) -> tuple[Tensor, Tensor]:
        """The best ``top`` items of a batch's histories, without what the batch says its users had before.

        Returns:
            item ids and their scores, [B, top], best first; 0 and -inf where there is no further item.
        """
        raise NotImplementedError

    def _histories(self, interaction: Interaction) -> Tensor:
        return right_padded(interaction[self.ITEM_SEQ], self.max_seq_length)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss of the current stage for one batch of RecBole's loader."""
        if self.objective is None:
            self.objective = self.first_objective()
        histories, targets = self._histories(interaction), interaction[self.POS_ITEM_ID]
        rows = torch.arange(len(targets), device=targets.device)
        return next(self.objective.losses(Batch(histories, targets, rows)))[0]

    @property
    def fingerprint(self) -> str:
        """Of the items and their semantic IDs."""
        return self.items.fingerprint

    def other_parameter(self) -> dict[str, Any]:
        """What a checkpoint carries beside the weights: the items it belongs to, with their IDs and texts' vectors."""
        return {"fingerprint": self.fingerprint, "items": self.items.state()}

    def load_other_parameter(self, para: dict[str, Any] | None) -> None:
        """Check that a checkpoint belongs to these items.

        Raises:
            InputError: it belongs to others, or to other semantic IDs.
        """
        if not para or para["fingerprint"] == self.fingerprint:
            return
        known, own = para["items"]["tokens"] if "items" in para else None, self.items.tokens
        if known is not None and known != own:
            shared = len(set(known).intersection(own))
            raise InputError(
                f"The checkpoint knows {len(known)} items, of which {shared} are among the {len(own)} of this data "
                "set: use the data set it was trained on."
            )
        raise InputError(_OTHER_IDS)


class GenerativeRecommender(StagedRecommender):
    """What both models share: RecBole's batches in, log-probabilities out.

    Attributes:
        trie: of the catalogue.
    """

    network: TIGERModel | STREAMRecModel

    def __init__(self, config: Config, dataset: SemanticIDDataset) -> None:
        super().__init__(config, dataset)
        self.beams, self.exact = config["beam_size"], config["search"] == "exact"
        self.candidates = config["candidates"] or 0  # TIGER has none
        self.trie = Trie(torch.from_numpy(dataset.semantic_ids.codes))

    @property
    def ranker(self) -> Ranker:
        """What ranks, by the network as it is now."""
        return Ranker(self.network, self.trie, self.beams, self.candidates, self.max_seq_length, self.exact)

    def rank(self, histories: Tensor, top: int | None = None) -> tuple[Tensor, Tensor]:
        """The best ``top`` items (by default beam_size) of histories; see :meth:`Ranker.rank`."""
        return self.ranker.rank(histories, top or self.beams)

    def rank_batch(self, batch: Batch, top: int | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`rank` of a batch's histories, without what the batch says its users had before."""
        return self.ranker.rank(batch.histories, top or self.beams, batch.seen)

    def scores_of_all(self, interaction: Interaction) -> Tensor:
        """Exact scores of all items under the present ranking, [B, n_items]; see :meth:`Ranker.scores_of_all`."""
        return self.ranker.scores_of_all(interaction[self.ITEM_SEQ])

    def predict(self, interaction: Interaction) -> Tensor:
        """The score of one item a row under the present ranking, [B]."""
        return self.ranker.scores(interaction[self.ITEM_SEQ], interaction[self.ITEM_ID][:, None])[:, 0]

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """:meth:`scores_of_all`: RecBole may want any number of the best items, and does not say how many."""
        return self.scores_of_all(interaction)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False):
        """As in torch.

        Raises:
            InputError: the weights belong to another catalogue, or to other sizes or semantic IDs.
        """
        own = self.state_dict()
        table = "network.tokens.table"
        if table not in state_dict:
            raise InputError("The checkpoint is not of TIGER or STREAMRec: load it with the model it was trained for.")
        known, present = state_dict[table].cpu(), own[table].cpu()
        if len(known) != len(present):
            raise InputError(
                f"The checkpoint knows {len(known) - 1} items, but this data set has {len(present) - 1}: use the data "
                "set it was trained on."
            )
        if not torch.equal(known, present):
            raise InputError(_OTHER_IDS)
        if {name: value.shape for name, value in state_dict.items()} != {n: v.shape for n, v in own.items()}:
            raise InputError(
                "The checkpoint's weights have other sizes than the model: use the backbone keys it was trained with."
            )
        return super().load_state_dict(state_dict, strict, assign)


def backbone_of(config: Config) -> BackboneConfig:
    names = ("hidden_size", "inner_size", "n_heads", "head_size", "encoder_layers", "decoder_layers", "dropout")
    return BackboneConfig(**{name: config[name] for name in names})


def tokens_of(config: Config, dataset: SemanticIDDataset) -> ItemTokens:
    return ItemTokens(
        torch.from_numpy(dataset.semantic_ids.codes),
        dataset.semantic_ids.codebook_sizes,
        config["hidden_size"],
        config["temperature"],
        config["history_input"],
    )


def transitions_of(config: Config, samples: Samples, n_items: int, **changes: float) -> Transitions:
    """What followed what in training samples, counted as the keys ``lookup_*`` say; ``n_items`` with the padding item.

    Args:
        changes: other values of ``window``, ``decay``, ``backward`` and ``neighbours``.
    """
    keys = {name: config[f"lookup_{name}"] for name in ("window", "decay", "backward", "recency", "neighbours")}
    keys["neighbours"] = keys["neighbours"] or 0  # rivals have no such key, nor has a configuration older than it
    return Transitions(samples.histories, samples.lengths, samples.targets, n_items, **(keys | changes))


def memory_of(config: Config, samples: Samples, n_items: int) -> Memory:
    """All that the pointer reads of training samples; ``n_items`` with the padding item."""
    transitions = transitions_of(config, samples, n_items)
    pairs = Pairs.counted(transitions, functools.partial(transitions_of, config, samples, n_items, neighbours=0))
    return Memory(transitions, pairs, torch.bincount(samples.targets, minlength=n_items))


def learn_pointer(model: STREAMRec, config: Config, samples: Samples, show_progress: bool) -> str:
    """:func:`fit_pointer` for the deliberation of a model, on training samples."""
    remember = functools.partial(memory_of, config, n_items=model.n_items)
    slow = model.network.deliberation
    return fit_pointer(slow, samples, remember, model.candidates, config["seed"], show_progress)


def _deliberation(config: Config, dataset: SemanticIDDataset, tokens: ItemTokens) -> Deliberation:
    sizes = replace(backbone_of(config), dropout=config["matching_dropout"])
    samples = samples_of(dataset)
    content = None if dataset.text is None else Content(dataset.text, config["lookup_recency"])
    verifier = pointer = None
    generates = "pretrain" in trained_stages(config) or config["start_from"]
    if config["verifier_size"] and config["pointer_size"]:
        memory = memory_of(config, samples, tokens.n_items)
        transitions, popularity = memory.transitions, memory.popularity
        pointer = Pointer(config["pointer_size"], memory.pairs, popularity)
    else:
        transitions = transitions_of(config, samples, tokens.n_items)
        popularity = torch.bincount(samples.targets, minlength=tokens.n_items)
    if config["verifier_size"]:
        verifier = Verifier(len(VIEWS), config["verifier_size"], popularity, pointer is not None)
    return Deliberation(
        Matcher(sizes, tokens.table, tokens.vocabulary, dataset.text),
        transitions,
        content,
        (*view_names(config["views_off"]), *(() if generates else ("likelihood",))),
        verifier,
        pointer,
    )


class TIGER(GenerativeRecommender):
    """History -> semantic ID of the next item; see :class:`TIGERModel`."""

    def __init__(self, config: Config, dataset: SemanticIDDataset) -> None:
        super().__init__(config, dataset)
        self.network = TIGERModel(backbone_of(config), tokens_of(config, dataset))
        self.label_smoothing = config["label_smoothing"]

    def first_objective(self) -> Objective:
        return Direct(self.network, self.label_smoothing)


class STREAMRec(GenerativeRecommender):
    """History -> reasoning tokens -> semantic ID of the next item; see :class:`STREAMRecModel`.

    Attributes:
        stages: what is trained, some of ``STAGES``.
    """

    def __init__(self, config: Config, dataset: SemanticIDDataset) -> None:
        super().__init__(config, dataset)
        self.stages = trained_stages(config)
        tokens = tokens_of(config, dataset)
        self.network = STREAMRecModel(
            backbone_of(config),
            tokens,
            config["reasoning_mlp"],
            config["reasoning_scale"],
            _deliberation(config, dataset, tokens) if "match" in self.stages else None,
        )
        self.pretrain_similar = config["pretrain_similar"]
        uses = {
            "pretrain": config["pretrain_similar"],
            "finetune": config["dpo_weight"],
            "reinforce": config["reward_weights"]["ranking"],
            "match": 0,
        }
        similar = (
            dataset.similar
            if any(uses[stage] for stage in self.stages)
            else torch.zeros(dataset.item_num, 0, dtype=torch.long)
        )
        self.register_buffer("similar", similar, persistent=False)
        self.label_smoothing = config["label_smoothing"]

    def first_objective(self) -> Objective:
        if "pretrain" not in self.stages:
            return Match(self.network)
        return Pretrain(self.network, self.similar[:, : self.pretrain_similar], self.label_smoothing)

    @property
    def ranking_parts(self) -> list[nn.Module]:
        """What that takes: the reference and the reasoning head only serve training."""
        network, slow = self.network, self.network.deliberation
        writer = [network.tokens, network.encoder, network.decoder]
        ranking = self.ranker.ranking
        if ranking == "likelihood":
            return writer
        return [*writer, slow] if ranking == "deliberation" and slow.generates else [slow]
