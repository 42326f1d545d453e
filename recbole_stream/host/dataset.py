"""RecBole's sequential dataset with a semantic ID for every item."""

from __future__ import annotations

import functools
import hashlib
import os

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import SequentialDataset

from recbole_stream.data.samples import Samples
from recbole_stream.host.checks import check_data, check_dataset
from recbole_stream.host.keys import check_combinations
from recbole_stream.text.encoder import encode_texts
from recbole_stream.text.item_text import read_item_text, text_columns
from recbole_stream.tokenizer.neighbours import nearest_by_ids, nearest_items
from recbole_stream.tokenizer.rq_vae import RQVAEOptions
from recbole_stream.tokenizer.semantic_ids import build_semantic_ids, read_semantic_ids
from recbole_stream.training.processes import broadcast, is_first

__all__ = ["STREAMRecDataset", "SemanticIDDataset", "TIGERDataset", "samples_of"]


class SemanticIDDataset(SequentialDataset):
    """Item text -> embeddings -> semantic IDs, once the items are known.

    Attributes:
        semantic_ids (SemanticIDs): row i is item i + 1.
        text (torch.Tensor): ``[item_num, D]``, embeddings of the items' texts, row 0 unused; None without text.
        encoder (dict): which text encoder was used and on how many items.
        fingerprint (str): of the items and their IDs; a checkpoint belongs to one fingerprint.
    """

    def __init__(self, config: Config) -> None:
        check_combinations(config)
        check_data(config)
        super().__init__(config)
        check_dataset(self)
        broadcast(self._attach_semantic_ids)
        if not is_first():
            self._attach_semantic_ids()  # what the first process has computed is in the cache now

    def _attach_semantic_ids(self) -> None:
        config = self.config
        items = [str(item) for item in self.field2id_token[self.iid_field][1:]]
        if config["semantic_ids_file"]:
            path = os.path.normpath(os.path.join(self.dataset_path, config["semantic_ids_file"]))
            self.semantic_ids = read_semantic_ids(path, items, unique=config["unique_ids"], id_field=self.iid_field)
            self.encoder = {"encoder": None, "semantic_ids_file": config["semantic_ids_file"]}
            self.text = None
        else:
            vectors = self._embed(items)
            self.text = torch.from_numpy(np.vstack([np.zeros_like(vectors[:1]), vectors]))
            self.semantic_ids = build_semantic_ids(
                vectors,
                method=config["tokenizer"],
                levels=config["codebook_levels"],
                codebook_size=config["codebook_size"],
                unique=config["unique_ids"],
                seed=config["seed"],
                cache_dir=config["cache_dir"],
                device=config["device"],
                show_progress=config["show_progress"],
                options=RQVAEOptions(
                    hidden_sizes=tuple(config["rq_vae_hidden_sizes"]),
                    latent_size=config["rq_vae_latent_size"],
                    epochs=config["rq_vae_epochs"],
                    learning_rate=config["rq_vae_learning_rate"],
                    batch_size=config["rq_vae_batch_size"],
                    beta=config["rq_vae_beta"],
                ),
            )
        digest = hashlib.sha256("\n".join(items).encode())
        digest.update(self.semantic_ids.codes.tobytes())
        self.fingerprint = digest.hexdigest()[:16]

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

    def _embed(self, items: list[str]) -> np.ndarray:
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
        texts = read_item_text(path, fields, items, **form)
        vectors, self.encoder = encode_texts(
            texts,
            config["text_encoder"],
            config["cache_dir"],
            max_length=config["text_max_length"],
            device=str(config["device"]),
            show_progress=config["show_progress"],
        )
        self.logger.info(f"item text: {self.encoder}")
        return vectors


class TIGERDataset(SemanticIDDataset):
    """The name under which RecBole looks for TIGER's dataset."""


class STREAMRecDataset(SemanticIDDataset):
    """The name under which RecBole looks for STREAMRec's dataset."""


def samples_of(dataset: SequentialDataset) -> Samples:
    """All (history, next item) pairs of a built split, as RecBole augmented them."""
    config, features = dataset.config, dataset.inter_feat
    item, suffix = config["ITEM_ID_FIELD"], config["LIST_SUFFIX"]
    return Samples(features[item + suffix], features[config["ITEM_LIST_LENGTH_FIELD"]], features[item])
