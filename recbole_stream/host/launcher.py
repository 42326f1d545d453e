"""Several processes for one run: each imports the plugin before it does anything."""

import os
import socket
from collections.abc import Sequence
from typing import Any

import torch
from recbole.quick_start.quick_start import run_recboles

from recbole_stream.errors import InputError

__all__ = ["run_distributed", "run_recboles"]


def run_distributed(
    model: str,
    dataset: str,
    config_dict: dict[str, Any],
    nproc: int,
    config_file_list: Sequence[str] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """Train and test a model with ``nproc`` processes on this machine.

    The processes share every batch: each takes ``train_batch_size / nproc`` of
    it on its own GPU of ``gpu_id``, or on the CPU where there is none.

    Args:
        model: a model's name.
        dataset: a data set's name.
        config_dict: configuration, as for ``run_recbole``; it is not changed.
        nproc: number of processes.
        config_file_list: YAML files, which ``config_dict`` overrides.
        saved: whether to keep the best checkpoint and to test with it.

    Returns:
        what ``run_recbole`` returns in the first process: ``best_valid_score``,
        ``best_valid_result``, ``test_result`` and ``valid_score_bigger``.

    Raises:
        InputError: raised by a process for the input it was given.
    """
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    config_dict = {
        **config_dict,
        "nproc": nproc,
        "world_size": nproc,
        "offset": 0,
        "ip": "localhost",
        "port": str(_free_port()),
    }
    try:
        torch.multiprocessing.spawn(
            _run_child,
            args=(model, dataset, config_file_list, config_dict, saved, queue),
            nprocs=nproc,
        )
    except torch.multiprocessing.ProcessRaisedException as error:
        # a child's error arrives as the text of its traceback
        name, _, message = str(error).rstrip().rpartition("\n")[2].partition(": ")
        if name == f"{InputError.__module__}.{InputError.__qualname__}":
            raise InputError(message) from None
        raise
    return queue.get()


def _run_child(
    rank: int,
    model: str,
    dataset: str,
    config_file_list: Sequence[str] | None,
    config_dict: dict[str, Any],
    saved: bool,
    queue: Any,
) -> None:
    # each process would otherwise start a thread for every core
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // config_dict["nproc"]))
    run_recboles(
        rank,
        model,
        dataset,
        config_file_list,
        {"config_dict": config_dict, "saved": saved, "queue": queue},
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
