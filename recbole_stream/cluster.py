"""Ray: whether it is there, and a cluster, or this machine as one."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterable, Mapping
from importlib import metadata

# to be set before Ray starts
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

from recbole_stream.errors import InputError  # noqa: E402

__all__ = ["STARTS", "check_ray", "check_resources", "connect", "ray_is_installed"]

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
