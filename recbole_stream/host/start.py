"""Stages that start from another run (the key ``start_from``): from which of its checkpoints, and whether that fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_stream.errors import InputError
from recbole_stream.host.items import ItemTable
from recbole_stream.host.keys import trained_stages
from recbole_stream.host.registration import our_model
from recbole_stream.reporting.results import Row, read_results
from recbole_stream.training.checkpoint import load_checkpoint

__all__ = ["Start", "find_start"]

# the first stage here -> rows of the other run from which it may start
_ROWS = {"finetune": ("PT",), "reinforce": ("SFT",), "match": ("PT", "SFT", "RL")}
_SIZES = (
    "hidden_size", "inner_size", "n_heads", "head_size", "encoder_layers", "decoder_layers", "history_input",
    "reasoning_mlp", "reasoning_scale",
)  # fmt: skip
_IDS = (
    "text_fields", "text_encoder", "text_max_length", "semantic_ids_file", "tokenizer", "codebook_levels",
    "codebook_size", "unique_ids", "rq_vae_hidden_sizes", "rq_vae_latent_size", "rq_vae_epochs",
    "rq_vae_learning_rate", "rq_vae_batch_size", "rq_vae_beta", "letter_collaborative_weight",
    "letter_diversity_weight", "letter_clusters", "collaborative_epochs",
)  # fmt: skip
# what is left of the events, and which of them are the training split
_DATA = (
    "dataset", "eval_args", "user_inter_num_interval", "item_inter_num_interval", "val_interval",
    "filter_inter_by_user_or_item", "rm_dup_inter", "benchmark_filename",
)  # fmt: skip


@dataclass(frozen=True)
class Start:
    """Where the first stage starts.

    Attributes:
        row: of the other run: its stage, its validation metrics, and the seconds of training that led to it.
        file: the checkpoint of that stage.
    """

    row: Row
    file: Path

    def weights(self) -> dict[str, Any]:
        """The model's state without a deliberation, which the stage ``match`` learns anew.

        Raises:
            InputError: the checkpoint is damaged.
        """
        state = self._read()["state_dict"]
        return {name: value for name, value in state.items() if not name.startswith("network.deliberation.")}

    def items(self, tokens: list[str]) -> ItemTable:
        """Its items with their semantic IDs and vectors: those made here would be others on another kind of machine.

        Args:
            tokens: names of the items that the data set has here.

        Raises:
            InputError: they are others there, or the checkpoint is damaged.
        """
        items = ItemTable.from_state(self._read()["other_parameter"]["items"])
        if items.tokens != tokens:
            shared = len(set(items.tokens).intersection(tokens))
            raise InputError(
                f"start_from: {self.file} knows {len(items.tokens)} items, of which {shared} are among the "
                f"{len(tokens)} of this data set: use the data it was trained on."
            )
        return items

    def record(self) -> dict[str, Any]:
        """What the rows of a run say of it."""
        return {
            "checkpoint": str(self.file),
            "sha256": self.digest,
            "stage": self.row.stage,
            "train_seconds": self.row.train_seconds,
            "command": self.row.run.get("command"),
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the checkpoint."""
        with self.file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _read(self) -> dict[str, Any]:
        checkpoint = load_checkpoint(self.file)
        if checkpoint is None:
            raise InputError(f"start_from: {self.file} is damaged: train that stage again.")
        return checkpoint


def find_start(config: Mapping[str, Any]) -> Start | None:
    """The checkpoint from which the first stage starts; None where ``start_from`` names no run.

    Fine-tuning starts from ``PT``, reinforcement from ``SFT``, and the matching tower beside the best of the other run's
    ``PT``, ``SFT`` and ``RL`` on validation, all of this configuration's seed.

    Args:
        config: of a STREAMRec; that of another model starts from nothing.

    Raises:
        InputError: there is no such run, it has no such row, or its data, IDs or sizes are others.
    """
    if not config["start_from"] or our_model(config["model"]) != "STREAMRec":
        return None
    folder, model, seed = Path(config["start_from"]), config["model"], config["seed"]
    first, metric = trained_stages(config)[0], str(config["valid_metric"]).lower()
    ours = [row for row in read_results(folder) if row.model == model]
    rows = [row for row in ours if row.seed == seed and row.stage in _ROWS[first]]
    if not rows:
        needed, there = " or ".join(_ROWS[first]), ", ".join(f"{row.stage} (seed {row.seed})" for row in ours) or "none"
        raise InputError(
            f"start_from: {first} starts from {needed} with seed {seed}, but {folder} has of {model} only: {there}."
        )
    if any(row.valid.get(metric) is None for row in rows):
        raise InputError(
            f"start_from: {folder} was not validated by {metric}, which chooses the best stage here: set valid_metric "
            f"to one of {', '.join(rows[0].valid)}."
        )
    better = max if config["valid_metric_bigger"] else min
    row = better(rows, key=lambda row: row.valid[metric])  # the first of equals, as within one run
    _check_keys(row, config, folder)
    file = folder / "checkpoints" / f"{model}-seed{seed}-{row.stage}.pth"
    if not file.is_file():
        raise InputError(f"start_from: {file} is not there, from which {first} would start.")
    return Start(row, file)


def _check_keys(row: Row, config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a start with other data, IDs or sizes."""
    before = row.run["configuration"]
    for kind, keys in (("data", _DATA), ("semantic IDs", _IDS), ("sizes", _SIZES)):
        for key in keys:
            old, new = before.get(key), json.loads(json.dumps(config[key], default=str))
            if old != new:
                raise InputError(
                    f"start_from: {folder} was trained with other {kind}, {key} being {old!r} and here {new!r}: use the "
                    "same."
                )
