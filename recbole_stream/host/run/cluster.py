"""The trainings of a run spread over a Ray cluster."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import ray
import torch
from ray.exceptions import RayTaskError
from recbole.config import Config

from recbole_stream.cluster import STARTS
from recbole_stream.host.plugins import plugin_list, register_plugins
from recbole_stream.host.run.job import run_job
from recbole_stream.reporting.results import Row

__all__ = ["run_jobs"]


def run_jobs(
    configs: Iterable[Config],
    arguments: Callable[[Config], tuple | None],
    ended: Callable[[Config, list[Row]], None],
    cpus: float,
    gpus: float,
) -> None:
    """Train models anywhere on the cluster, as many at once as fit. :func:`connect` comes first.

    Args:
        configs: of the models, with absolute paths that every machine sees.
        arguments: gives those of ``run_job`` for a configuration, None as long as it has to wait for another one.
        ended: called here with the rows of each that has ended.
        cpus, gpus: of one training.

    Raises:
        Exception: that of the first training that fails.
    """
    job = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=STARTS - 1)(_job)
    waiting, running = list(configs), {}
    while waiting or running:
        for config in list(waiting):
            given = arguments(config)
            if given is not None:
                waiting.remove(config)
                # pickled here: a worker registers the user's own models first and unpickles them then
                running[job.remote(plugin_list(config["plugins"]), pickle.dumps(given), cpus, gpus)] = config
        (done, *_), _ = ray.wait(list(running))
        config = running.pop(done)
        try:
            rows = ray.get(done)
        except RayTaskError as fault:
            raise fault.cause from None
        ended(config, rows)


def _job(plugins: list[str], pickled: bytes, cpus: float, gpus: float) -> list[Row]:
    register_plugins(plugins)
    config, folder, *rest = pickle.loads(pickled)
    config["device"] = torch.device("cuda" if gpus else "cpu")  # Ray shows a worker its own GPUs only
    config["show_progress"] = False
    torch.set_num_threads(max(1, int(cpus)))
    return run_job(config, Path(folder), *rest)
