"""RecBole's sequential dataset with the text of every item, and with a semantic ID for every item."""

from __future__ import annotations

import functools
import os
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from recbole_stream.cache import cached_arrays, content_hash
from recbole_stream.data.samples import Samples
from recbole_stream.errors import InputError
from recbole_stream.host.checkpoints import known_items, loading
from recbole_stream.host.checks import check_data, check_dataset
from recbole_stream.host.items import ItemTable
from recbole_stream.host.keys import check_combinations
from recbole_stream.host.memory import check_items_fit, check_reading_fits
from recbole_stream.host.rows import PrefixRows, prefix_rows
from recbole_stream.host.seen import seen_of
from recbole_stream.host.start import find_start
from recbole_stream.text.encoder import encode_texts
from recbole_stream.text.item_text import read_item_text, text_columns
from recbole_stream.tokenizer.letter import LetterOptions
from recbole_stream.tokenizer.neighbours import nearest_by_ids, nearest_items
from recbole_stream.tokenizer.rq_vae import RQVAEOptions
from recbole_stream.tokenizer.semantic_ids import SemanticIDs, build_semantic_ids, read_semantic_ids
from recbole_stream.training.collaborative import collaborative_vectors, content_of
from recbole_stream.training.processes import broadcast, is_first

__all__ = ["ItemTextDataset", "STREAMRecDataset", "SemanticIDDataset", "TIGERDataset", "samples_of"]


class ItemTextDataset(SequentialDataset):
    """Item text -> embeddings, once the items are known.

    Attributes:
        items (ItemTable): what is known of the items: that of the checkpoint that is being loaded, where there is one.
        text (torch.Tensor): ``[item_num, D]``, embeddings of the items' texts, row 0 unused; None without text.
        encoder (dict): which text encoder was used and on how many items.
    """

    def __init__(self, config: Config) -> None:
        check_combinations(config)
        check_data(config)
        check_reading_fits(config)
        super().__init__(config)
        if not loading():  # to recommend, one event is enough
            check_dataset(self)
            check_items_fit(self)
        broadcast(self._attach_items)
        if not is_first():
            self._attach_items()  # what the first process has computed is in the cache now

    def data_augmentation(self) -> None:
        rows = prefix_rows(self)
        if rows is None:
            super().data_augmentation()
        else:
            self.inter_feat = rows

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        """Some rows, as a loader asks for them: with their lists."""
        rows = self.inter_feat[index]
        rows = rows.to_dense() if isinstance(rows, PrefixRows) else rows
        return self.join(rows) if join else rows

    def _attach_items(self) -> None:
        tokens = [str(item) for item in self.field2id_token[self.iid_field][1:]]
        known = known_items()
        if known is not None and known.tokens != tokens:  # a dataset that RecBole saved with other items
            raise InputError(
                f"The checkpoint knows {len(known.tokens)} items, and {self.dataset_name} has {len(tokens)} others: "
                "use the data set it was trained on."
            )
        self.items = known or self._make_items(tokens)
        self.encoder, vectors = self.items.encoder, self.items.text
        self.text = None if vectors is None else torch.from_numpy(np.vstack([np.zeros_like(vectors[:1]), vectors]))

    def _make_items(self, tokens: list[str]) -> ItemTable:
        """What the configuration asks for, computed where the run's own folder does not hold it."""
        config, texts = self.config, self._texts(tokens)

        def compute() -> tuple[dict[str, np.ndarray], dict]:
            vectors, encoder = encode_texts(
                texts,
                config["text_encoder"],
                config["cache_dir"],
                max_length=config["text_max_length"],
                device=str(config["device"]),
                show_progress=config["show_progress"],
            )
            state = ItemTable(tokens, self._identify(vectors), vectors, encoder).state()
            arrays = {name: state.pop(name) for name in ("codes", "text") if state[name] is not None}
            return arrays, state

        # where a run can be resumed, it goes on with what it has computed, wherever that is
        folder = config["checkpoint_dir"] if config["resume_dir"] else None
        arrays, state = cached_arrays(folder, "items", content_hash(tokens, texts, *self._settings()), compute)
        items = ItemTable.from_state(state | arrays)
        self.logger.info(f"item text: {items.encoder}")
        return items

    def _identify(self, vectors: np.ndarray) -> SemanticIDs | None:
        """The items' semantic IDs, made of their texts' vectors [n, D]; None: there are none."""
        return None

    def _settings(self) -> list:
        """All that decides what :meth:`_make_items` computes, beside the texts."""
        return [[self.config[name] for name in ("seed", "text_encoder", "text_max_length")]]

    def _texts(self, tokens: list[str]) -> list[str]:
        config = self.config
        path = os.path.join(self.dataset_path, f"{self.dataset_name}.item")
        form = {
            "id_field": self.iid_field,
            "separator": config["field_separator"],
            "encoding": config["encoding"] or "utf-8",
        }
        fields = config["text_fields"]
        if fields is None:
            fields = text_columns(path, **form)
            self.logger.warning(f"text_fields is not set: item text is made of {', '.join(fields)}.")
        return read_item_text(path, fields, tokens, **form)


class SemanticIDDataset(ItemTextDataset):
    """Item text -> embeddings -> semantic IDs, once the items are known.

    Attributes:
        semantic_ids (SemanticIDs): row i is item i + 1.
    """

    @property
    def semantic_ids(self) -> SemanticIDs:
        return self.items.ids

    def _make_items(self, tokens: list[str]) -> ItemTable:
        """Semantic IDs as the configuration has them: those of the run it starts from, those of a file, or computed."""
        config, start = self.config, find_start(self.config)
        if start is not None:
            return start.items(tokens)
        if not config["semantic_ids_file"]:
            return super()._make_items(tokens)
        path = os.path.normpath(os.path.join(self.dataset_path, config["semantic_ids_file"]))
        ids = read_semantic_ids(path, tokens, unique=config["unique_ids"], id_field=self.iid_field)
        return ItemTable(tokens, ids, None, {"encoder": None, "semantic_ids_file": config["semantic_ids_file"]})

    def _identify(self, vectors: np.ndarray) -> SemanticIDs:
        config = self.config
        return build_semantic_ids(
            vectors,
            method=config["tokenizer"],
            levels=config["codebook_levels"],
            codebook_size=config["codebook_size"],
            unique=config["unique_ids"],
            seed=config["seed"],
            cache_dir=config["cache_dir"],
            device=config["device"],
            show_progress=config["show_progress"],
            options=self.rq_vae_options(),
            **self._letter(),
        )

    def _letter(self) -> dict:
        """What LETTER needs beside the texts; nothing for the other tokenizers."""
        config = self.config
        if config["tokenizer"] != "letter":
            return {}
        options = LetterOptions(
            config["letter_collaborative_weight"], config["letter_diversity_weight"], config["letter_clusters"]
        )
        vectors = collaborative_vectors(
            self.training_samples,
            self.item_num - 1,
            config["rq_vae_latent_size"],
            epochs=config["collaborative_epochs"],
            seed=config["seed"],
            cache_dir=config["cache_dir"],
            device=str(config["device"]),
            show_progress=config["show_progress"],
        )
        return {"collaborative": vectors, "letter": options}

    @functools.cached_property
    def training_samples(self) -> Samples:
        """Those of the training split, before RecBole draws it: it is made from a copy, and draws nothing at random."""
        return samples_of(self.copy(self.inter_feat.copy()).build()[0])

    def _settings(self) -> list:
        names = (
            "tokenizer",
            "codebook_levels",
            "codebook_size",
            "unique_ids",
            "seed",
            "text_encoder",
            "text_max_length",
        )
        settings = [[self.config[name] for name in names], asdict(self.rq_vae_options())]
        if self.config["tokenizer"] == "letter":
            ours = ("letter_collaborative_weight", "letter_diversity_weight", "letter_clusters", "collaborative_epochs")
            settings += [[self.config[name] for name in ours], content_of(self.training_samples)]
        return settings

    def rq_vae_options(self) -> RQVAEOptions:
        config = self.config
        return RQVAEOptions(
            hidden_sizes=tuple(config["rq_vae_hidden_sizes"]),
            latent_size=config["rq_vae_latent_size"],
            epochs=config["rq_vae_epochs"],
            learning_rate=config["rq_vae_learning_rate"],
            batch_size=config["rq_vae_batch_size"],
            beta=config["rq_vae_beta"],
        )

    @functools.cached_property
    def similar(self) -> torch.Tensor:
        """The most similar other items, ``[item_num, similar_items]``; row 0 unused.

        Looked for when first asked for: the work grows with the square of the number of items.
        """
        k = min(self.config["similar_items"], self.item_num - 2)
        if self.text is None:
            similar = nearest_by_ids(self.semantic_ids.codes, k) + 1
        else:
            similar = nearest_items(self.text[1:].numpy(), k, str(self.config["device"])) + 1
        return torch.from_numpy(np.vstack([np.zeros_like(similar[:1]), similar]))


class TIGERDataset(SemanticIDDataset):
    """The name under which RecBole looks for TIGER's dataset."""


class STREAMRecDataset(SemanticIDDataset):
    """The name under which RecBole looks for STREAMRec's dataset."""


def samples_of(dataset: SequentialDataset) -> Samples:
    """All (history, next item) pairs of a built split; the histories are parts of its events or, ready-made, rows."""
    config, features = dataset.config, dataset.inter_feat
    item, suffix = config["ITEM_ID_FIELD"], config["LIST_SUFFIX"]
    lengths = features[config["ITEM_LIST_LENGTH_FIELD"]]
    return Samples(features[item + suffix], lengths, features[item], seen_of(dataset, features))
