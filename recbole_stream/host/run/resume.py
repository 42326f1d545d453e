"""Trainings that go on where they were killed and end as if they had not been.

``training.loop`` keeps the progress of our own stages. For RecBole's models its
``Trainer.resume_checkpoint`` is not enough: it restores the best epoch instead of
the last one, and it lacks the random states, the order in which the loader shuffles
and the best result. Here all of these are kept between two epochs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from logging import getLogger
from pathlib import Path
from typing import Any, Protocol

import torch
from recbole.config import Config
from recbole.data.dataloader import AbstractDataLoader
from recbole.trainer import Trainer

from recbole_stream.files import whole_file
from recbole_stream.training.checkpoint import Progress
from recbole_stream.training.processes import broadcast, is_first

__all__ = ["checkpoint_file", "fit", "stage_progress"]

# keys that may change between a run and its resumption: paths, devices, and what is shown
_PLACES = ("checkpoint_dir", "resume_dir", "data_path", "cache_dir", "start_from")
_MACHINES = ("gpu_id", "local_rank", "offset", "nproc", "world_size", "ip", "port", "single_spec")
_SHOWN = ("state", "verbose", "show_progress", "save_seconds")


class Clock(Protocol):
    """How long a training has taken; its state is a part of the progress."""

    @property
    def seconds(self) -> float: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def checkpoint_file(config: Config) -> str | None:
    """The file of the best checkpoint: one name before and after a kill, so that a resumed training overwrites it.

    Returns:
        None where no progress is kept; RecBole's name, which holds the time, then stays.
    """
    if not config["resume_dir"]:
        return None
    return str(Path(config["checkpoint_dir"]) / f"{config['model']}-seed{config['seed']}.pth")


def stage_progress(config: Config, number: int, fingerprint: str) -> Progress | None:
    """What keeps a stage of one of our models, None where none is to be kept.

    Args:
        config: of the model.
        number: of the stage, from 0.
        fingerprint: of the items and their semantic IDs.
    """
    if not config["resume_dir"]:
        return None
    owner = _owner(config, f"stage {number} of {fingerprint}")
    return Progress(_file(config, f"stage-{number}"), owner, config["save_seconds"])


def _file(config: Config, part: str) -> Path:
    return Path(config["resume_dir"]) / f"seed{config['seed']}-{part}.pth"


class _TimeIsUp(Exception):
    """Ends a training of RecBole's: its loop has no other way to stop early."""


def fit(
    trainer: Trainer,
    train_data: AbstractDataLoader,
    valid_data: AbstractDataLoader,
    callback: Callable[[int, float], None],
    clock: Clock,
) -> None:
    """Train as ``Trainer.fit`` does, within ``max_train_seconds``, and keep how far it came where the configuration
    names a ``resume_dir``.

    RecBole's own trainings are kept between two epochs, and end after the validation at which their time is up. Those with
    another ``fit`` than ``Trainer``'s, such as the pretraining of S3Rec, have no limit and begin anew when resumed.

    Args:
        trainer: RecBole's or ours; ours keeps and limits its stages itself.
        train_data, valid_data: its data.
        callback: called with the epoch and its validation metric after each validation.
        clock: of the training; kept beside that of RecBole's models.
    """
    config = trainer.config
    trainer.saved_model_file = checkpoint_file(config) or trainer.saved_model_file
    way, limit = type(trainer).fit, config["max_train_seconds"] or 0
    if way is not Trainer.fit:
        if way.__module__ == Trainer.__module__:  # of a class derived from Trainer
            getLogger().info(f"The trainer of {config['model']} keeps no progress: interrupted, it begins anew.")
            if limit:
                getLogger().warning(
                    f"The trainer of {config['model']} knows no max_train_seconds: it trains to its end."
                )
        trainer.fit(train_data, valid_data, saved=True, show_progress=config["show_progress"], callback_fn=callback)
        return
    owner = _owner(config, f"{len(train_data._dataset)} samples")
    progress = Progress(_file(config, "epochs"), owner) if config["resume_dir"] else None
    kept = _Kept(trainer, (train_data, valid_data), clock)
    state = progress.load() if progress else None
    if state is not None:
        kept.load_state_dict(state)
        getLogger().info(f"{config['model']}: resumed after {len(trainer.train_loss_dict)} epochs.")
        if state["ended"]:
            trainer.eval_collector.data_collect(train_data)  # evaluation needs it
            return
    stock = trainer._train_epoch

    def train_epoch(data: AbstractDataLoader, epoch: int, *arguments: Any, **named: Any) -> Any:
        if progress and epoch > trainer.start_epoch:  # the epoch before has ended, its validation too
            progress.save(kept.state_dict(epoch))
        return stock(data, epoch, *arguments, **named)

    def validated(epoch: int, valid: float) -> None:
        callback(epoch, valid)
        if 0 < limit < broadcast(lambda: clock.seconds):  # the clock of the first process decides for all
            raise _TimeIsUp

    trainer._train_epoch = train_epoch
    try:
        trainer.fit(train_data, valid_data, saved=True, show_progress=config["show_progress"], callback_fn=validated)
    except _TimeIsUp:
        epochs = len(trainer.train_loss_dict)
        getLogger().info(
            f"{config['model']} ends after {epochs} epochs: {limit:g} seconds (max_train_seconds) have passed."
        )
    finally:
        del trainer._train_epoch  # the method of the class shows again
    if progress:
        progress.save(kept.state_dict(trainer.epochs, ended=True))


class _Kept:
    """All that changes while a ``Trainer`` trains, but for the random states."""

    _VALUES = ("cur_step", "best_valid_score", "best_valid_result", "train_loss_dict")

    def __init__(self, trainer: Trainer, loaders: tuple[AbstractDataLoader, ...], clock: Clock) -> None:
        self.trainer, self.loaders, self.clock = trainer, loaders, clock

    def _optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        for name, value in vars(self.trainer).items():  # some trainers have several
            if isinstance(value, torch.optim.Optimizer):
                yield name, value

    def state_dict(self, epoch: int, ended: bool = False) -> dict[str, Any]:
        trainer = self.trainer
        best = Path(trainer.saved_model_file)
        return {
            "epoch": epoch,
            "ended": ended,
            "model": trainer.model.state_dict(),
            "other": trainer.model.other_parameter(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers()},
            "values": {name: getattr(trainer, name) for name in self._VALUES},
            # generators of the shuffling and of the loader's workers
            "loaders": [loader.generator.get_state() for loader in self.loaders],
            "clock": self.clock.state_dict(),
            "best": best.read_bytes() if best.exists() else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        trainer = self.trainer
        trainer.start_epoch = state["epoch"]
        trainer.model.load_state_dict(state["model"])
        trainer.model.load_other_parameter(state["other"])
        for name, optimizer in self._optimizers():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, value in state["values"].items():
            setattr(trainer, name, value)
        for loader, generator in zip(self.loaders, state["loaders"]):
            loader.generator.set_state(generator)
        self.clock.load_state_dict(state["clock"])
        if state["best"] is not None and is_first():  # the file may hold a later epoch, which is now trained again
            with whole_file(trainer.saved_model_file) as file:
                file.write(state["best"])


def _owner(config: Config, data: str) -> str:
    """What a kept state belongs to: the model, its configuration and the data."""
    keys = {
        key: value
        for key, value in config.final_config_dict.items()
        if key not in (*_PLACES, *_MACHINES, *_SHOWN) and isinstance(value, bool | int | float | str | list | dict)
    }
    digest = hashlib.sha256(json.dumps([data, keys], sort_keys=True, default=str).encode())
    return f"{config['model']}, seed {config['seed']}, {digest.hexdigest()[:16]}"
