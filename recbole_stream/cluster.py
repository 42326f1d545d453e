"""Ray: whether it is there, and a cluster, or this machine as one."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any

# to be set before Ray starts
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

from recbole_stream.errors import InputError  # noqa: E402

__all__ = ["STARTS", "check_ray", "check_resources", "connect", "has_joined", "ray_is_installed", "spread"]

OLDEST = (2, 43)  # the first with tune.report(metrics) and tune.RunConfig
STARTS = 4  # of work whose worker or machine is lost each time


def ray_is_installed() -> bool:
    """Whether there is a package of that name, and not just a folder such as the ``/tmp/ray`` that Ray leaves behind."""
    spec = importlib.util.find_spec("ray")
    return spec is not None and spec.origin is not None


def check_ray(what: str) -> None:
    """Check that Ray is there.

    Args:
        what: needs it, for the message.

    Raises:
        InputError: it is not installed.
    """
    if not ray_is_installed():
        raise InputError(f'{what} needs Ray: run `pip install -c requirements.txt -e ".[tune]"`.')


def connect(address: str | None, cpus: float, gpus: float) -> None:
    """Start Ray on this machine, or join the cluster at ``address`` ("auto": the one this machine belongs to).

    Raises:
        InputError: Ray is too old, no cluster answers, or no machine can run a single trial.
    """
    import ray

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


def has_joined() -> bool:
    """Whether this process belongs to a Ray cluster."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def spread(
    function: Callable[..., Any], calls: Iterable[tuple[Any, tuple]], cpus: int = 1
) -> Iterator[tuple[Any, Any]]:
    """Call a function on all machines of the cluster that this process has joined.

    Args:
        function: of a module that every machine has; called again where its worker or machine is lost.
        calls: what to call each result by, and the arguments. They are taken as results come.
        cpus: that each call waits for. A trial of a cluster keeps its own while it waits, so that its calls must wait for
            none: 0 runs one for each core there is, beside whatever else runs.

    Yields:
        what each was called, and what the function returned, as they end.
    """
    import ray

    task = ray.remote(num_cpus=cpus, max_retries=STARTS - 1, scheduling_strategy="SPREAD")(function)
    most = (1 + cpus) * max(1, int(ray.cluster_resources().get("CPU", 1)))  # where calls wait, one for each core does
    running: dict[Any, Any] = {}
    for name, arguments in calls:
        running[task.remote(*arguments)] = name
        if len(running) == most:
            yield _next(ray, running)
    while running:
        yield _next(ray, running)


def _next(ray: Any, running: dict[Any, Any]) -> tuple[Any, Any]:
    (done, *_), _ = ray.wait(list(running))
    return running.pop(done), ray.get(done)
