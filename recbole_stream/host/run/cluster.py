"""Ray: a cluster, or this machine as one; and the trainings of a run spread over it."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path

import torch

# to be set before Ray starts
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # noqa: E402
from ray.exceptions import RayTaskError  # noqa: E402
from recbole.config import Config  # noqa: E402

from recbole_stream.errors import InputError  # noqa: E402
from recbole_stream.host.plugins import plugin_list, register_plugins  # noqa: E402
from recbole_stream.host.run.job import run_job  # noqa: E402
from recbole_stream.reporting.results import Row  # noqa: E402

__all__ = ["STARTS", "check_resources", "connect", "run_jobs"]

OLDEST = (2, 43)  # the first with tune.report(metrics) and tune.RunConfig
STARTS = 4  # of a training whose worker or machine is lost each time


def connect(address: str | None, cpus: float, gpus: float) -> None:
    """Start Ray on this machine, or join the cluster at ``address`` ("auto": the one this machine belongs to).

    Raises:
        InputError: Ray is too old, no cluster answers, or no machine can run a single trial.
    """
    version = metadata.version("ray")
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise InputError(f"Ray {version} is too old: tuning needs {'.'.join(map(str, OLDEST))} or later.")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(address="local", include_dashboard=False, **quiet)
    except (ConnectionError, ValueError) as fault:
        raise InputError(
            f"No Ray cluster answers at {address}: start one with `ray start --head`, or leave --address out."
        ) from fault
    check_resources([node["Resources"] for node in ray.nodes() if node["Alive"]], cpus, gpus)


def check_resources(machines: Iterable[Mapping[str, float]], cpus: float, gpus: float) -> None:
    """Check that some machine has what one trial takes, or it would wait for ever.

    Args:
        machines: "CPU" and "GPU" of each.

    Raises:
        InputError: there is none.
    """
    machines = list(machines)
    for name, option, wanted in (("CPU", "cpus", cpus), ("GPU", "gpus", gpus)):
        most = max((machine.get(name, 0) for machine in machines), default=0)
        if wanted > most:
            raise InputError(f"--{option}-per-trial is {wanted:g}, but no machine has more than {most:g} {name}s.")
    if not any(machine.get("CPU", 0) >= cpus and machine.get("GPU", 0) >= gpus for machine in machines):
        raise InputError(f"No machine has {cpus:g} CPUs and {gpus:g} GPUs, which a trial asks for.")


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
