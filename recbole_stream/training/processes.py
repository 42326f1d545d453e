"""One training in several processes: who is first, what all agree on, what they add up.

Every function also serves a single process, for which it does next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from recbole_stream.data.samples import Batch

__all__ = ["all_reduce", "all_gather", "every_row", "broadcast", "is_first", "processes", "process_index"]

T = TypeVar("T")


def processes() -> int:
    """How many share this training."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process writes the files."""
    return process_index() == 0


def broadcast(make: Callable[[], T]) -> T:
    """What ``make`` gives in the first process, in all of them; its exception too."""
    if processes() == 1:
        return make()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome[0] = make()
        except Exception as fault:
            outcome[1] = fault
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def all_gather(value: T) -> list[T]:
    """The value of each process, in the order of their ranks."""
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
    """What all processes have for their samples of a step, in the order of the whole: [B, ...] -> [N, ...].

    Gradients find their way back into the process from which a row came.
    """
    return _EveryRow.apply(own, batch) if batch.shared else own


class _EveryRow(torch.autograd.Function):
    """Rows of zeros for those of the others, and a sum; the sum of the gradients on the way back."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, batch: Batch) -> Tensor:
        ctx.part = batch.part
        rows = own.new_zeros(batch.whole, *own.shape[1:])
        rows[batch.part] = own
        return all_reduce(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return all_reduce(gradient.contiguous().clone())[ctx.part], None
