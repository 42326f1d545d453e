"""Training in several processes: the number of each, values that all share, and sums over all.

Every function may be called in a single process too, where it has nothing to exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from recbole_stream.data.samples import Batch
from recbole_stream.seeds import mix

__all__ = ["all_reduce", "all_gather", "every_row", "broadcast", "is_first", "processes", "process_index", "seed_draws"]

T = TypeVar("T")

# while process 0 makes what all wait for, there is nobody to exchange anything with
_alone: ContextVar[bool] = ContextVar("alone", default=False)


def processes() -> int:
    """Number of processes of this training."""
    return dist.get_world_size() if dist.is_initialized() and not _alone.get() else 1


def process_index() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is process 0, which alone writes files."""
    return process_index() == 0


def seed_draws(seed: int, stage: str) -> torch.Generator:
    """Seed torch's generators, of the CPU and of the GPUs, differently in each process: dropout draws from them.

    Args:
        seed: of the run.
        stage: its name.

    Returns:
        another one, on the CPU, that gives all processes the same: for what is drawn for a whole batch.
    """
    torch.manual_seed(mix(seed, stage, "process", process_index()))
    return torch.Generator().manual_seed(mix(seed, stage, "batches"))


def broadcast(make: Callable[[], T]) -> T:
    """Call ``make`` in process 0 only, and return its result in every process; an exception is raised in all too.

    Within ``make`` there is one process: what it trains, it trains alone.
    """
    if processes() == 1:
        return make()
    outcome: list[Any] = [None, None]
    if is_first():
        token = _alone.set(True)
        try:
            outcome[0] = make()
        except Exception as fault:
            outcome[1] = fault
        finally:
            _alone.reset(token)
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def all_gather(value: T) -> list[T]:
    """The values of all processes, in the order of their numbers."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    dist.all_gather_object(values, value)
    return values


def all_reduce(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if processes() > 1:
        dist.all_reduce(tensor)
    return tensor


def every_row(own: Tensor, batch: Batch) -> Tensor:
    """Gather the rows of all processes of one step, in the order of the whole batch: [B, ...] -> [N, ...].

    The gradient of a row goes back to the process that the row came from.
    """
    return _EveryRow.apply(own, batch) if batch.shared else own


class _EveryRow(torch.autograd.Function):
    """Forward: put the own rows among rows of zeros and sum over the processes; backward: sum the gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, batch: Batch) -> Tensor:
        ctx.part = batch.part
        rows = own.new_zeros(batch.whole, *own.shape[1:])
        rows[batch.part] = own
        return all_reduce(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return all_reduce(gradient.contiguous().clone())[ctx.part], None
