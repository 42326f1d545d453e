"""ETEGRec as a RecBole model; see ``model.rivals.etegrec`` for its source and ``training.etegrec`` for its turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from torch import Tensor

from recbole_stream.decoding.ranker import Ranker
from recbole_stream.decoding.trie import Trie
from recbole_stream.errors import InputError
from recbole_stream.host.checkpoints import loading
from recbole_stream.host.dataset import SemanticIDDataset, samples_of
from recbole_stream.host.models import TIGER, backbone_of, tokens_of
from recbole_stream.model.rivals.etegrec import ETEGRecModel
from recbole_stream.tokenizer.rq_vae import RQVAE, train_rq_vae
from recbole_stream.training.collaborative import collaborative_vectors
from recbole_stream.training.etegrec import AlignOptions, Alternate
from recbole_stream.training.loop import Objective
from recbole_stream.training.processes import broadcast

__all__ = ["ETEGRec"]


class ETEGRec(TIGER):
    """TIGER whose semantic IDs are learnt with it, from texts and collaborative vectors.

    The IDs of the data set, by the key ``tokenizer``, only say how many levels and codes there are.
    """

    network: ETEGRecModel

    def __init__(self, config: Config, dataset: SemanticIDDataset) -> None:
        super().__init__(config, dataset)
        levels, sizes = len(dataset.semantic_ids.codebook_sizes), set(dataset.semantic_ids.codebook_sizes)
        if len(sizes) > 1:
            raise InputError(
                "ETEGRec gives every level as many codes: set unique_ids to reassign, and no semantic_ids_file."
            )
        self.seed = config["seed"]
        self.searched: Tensor | None = None  # codes of the trie
        self.options = AlignOptions(
            config["etegrec_cycle"],
            config["etegrec_turns"],
            config["etegrec_rate"],
            config["etegrec_sequence_weight"],
            config["etegrec_preference_weight"],
            config["etegrec_temperature"],
        )
        options, size = dataset.rq_vae_options(), config["rq_vae_latent_size"]
        text = None if dataset.text is None else dataset.text[1:].numpy()
        dimensions = size + (0 if text is None else text.shape[1])

        def prepare() -> tuple[RQVAE, np.ndarray]:
            vectors = collaborative_vectors(
                samples_of(dataset), self.n_items - 1, size, epochs=config["collaborative_epochs"], seed=self.seed,
                cache_dir=config["cache_dir"], device=str(config["device"]), show_progress=config["show_progress"],
            )  # fmt: skip
            embeddings = vectors if text is None else np.concatenate([text, vectors], 1)
            model, mean, scale = train_rq_vae(
                embeddings, levels, max(sizes), self.seed, options, str(config["device"]), config["show_progress"]
            )
            return model.cpu(), (embeddings - mean) / scale

        if loading():  # the checkpoint has both
            tokenizer = RQVAE(dimensions, levels, max(sizes), options)
            inputs = np.zeros((self.n_items - 1, dimensions), np.float32)
        else:
            tokenizer, inputs = broadcast(prepare)
        padded = torch.from_numpy(np.vstack([np.zeros_like(inputs[:1]), inputs]))
        self.network = ETEGRecModel(backbone_of(config), tokens_of(config, dataset), tokenizer, padded)
        self._follow()

    def first_objective(self) -> Objective:
        return Alternate(self.network, self.options, self.label_smoothing, self.seed)

    @property
    def ranker(self) -> Ranker:
        """What ranks, among the IDs that the items have now."""
        self._follow()
        return super().ranker

    def _follow(self) -> None:
        tokens = self.network.tokens
        codes = tokens.codes(tokens.table[1:])
        if self.searched is None or not torch.equal(self.searched, codes):
            self.searched, self.trie = codes, Trie(codes).to(codes.device)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False):
        """As in torch: the IDs were learnt, and are the checkpoint's."""
        table = state_dict.get("network.tokens.table")
        if table is not None and table.shape == self.network.tokens.table.shape:
            self.network.tokens.table.copy_(table)
        return super().load_state_dict(state_dict, strict, assign)
