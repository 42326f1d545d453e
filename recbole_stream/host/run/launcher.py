"""Several processes for one run: each imports the plugin before it does anything."""

import functools
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from recbole.quick_start.quick_start import run_recboles

from recbole_stream.errors import InputError
from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.torchrun import PATIENCE, started_by_torchrun

__all__ = ["run_distributed", "run_recboles", "together"]

Action = Callable[[dict[str, Any], list[str]], object]


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
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    config_dict = {
        **config_dict,
        "nproc": nproc,
        "world_size": nproc,
        "offset": 0,
        "ip": "localhost",
        "port": str(_free_port()),
    }
    _spawn(_run_child, (model, dataset, config_file_list, config_dict, saved, queue), nproc)
    return queue.get()


def together(action: Action) -> Action:
    """Let a command run in as many processes as its ``nproc`` says, or as torchrun has started.

    Args:
        action: a command, given its options and the words that were typed. Every process runs it.

    Raises:
        InputError: ``nproc`` is no whole number of at least 1; and what the action raises.
    """

    @functools.wraps(action)
    def run(options: dict[str, Any], command: list[str]) -> None:
        nproc = options.get("nproc", 1)
        if not isinstance(nproc, int) or isinstance(nproc, bool) or nproc < 1:
            raise InputError(f"nproc is {nproc!r}, but must be a whole number of at least 1.")
        if started_by_torchrun():
            # CPU tensors and objects travel by gloo, also where GPUs train; torch is not asked for CUDA yet, because
            # the configuration still chooses the GPUs
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.device_count() else "gloo"
            torch.distributed.init_process_group(backend, timeout=PATIENCE)
            try:
                action(options, command)
            finally:
                torch.distributed.destroy_process_group()
        elif nproc > 1:
            _spawn(_take_part, (action, options, command, nproc, _free_port()), nproc)
        else:
            action(options, command)

    return run


def _take_part(rank: int, action: Action, options: dict[str, Any], command: list[str], nproc: int, port: int) -> None:
    """One process of a command, in the environment that torchrun would give it."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // nproc))
    place = {"LOCAL_RANK": rank, "RANK": rank, "LOCAL_WORLD_SIZE": nproc, "WORLD_SIZE": nproc}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with quiet_argv():
        together(action)(options, command)
    _leave(rank)


def _leave(rank: int) -> None:
    """End a process that has done its part.

    While Python shuts down, torch's threads now and then abort a process ("terminate called without an active
    exception"), and a run whose results are written would count as failed. The first process shuts down as usual,
    because it has files to flush.
    """
    if rank:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _spawn(function: Callable[..., None], arguments: tuple[Any, ...], nproc: int) -> None:
    """Run a function in processes of its own, given their ranks and the arguments.

    Raises:
        InputError: raised by one of them.
    """
    try:
        torch.multiprocessing.spawn(function, args=arguments, nprocs=nproc)
    except torch.multiprocessing.ProcessRaisedException as error:
        # a child's error arrives as the text of its traceback
        name, _, message = str(error).rstrip().rpartition("\n")[2].partition(": ")
        if name == f"{InputError.__module__}.{InputError.__qualname__}":
            raise InputError(message) from None
        raise


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
    _leave(rank)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
