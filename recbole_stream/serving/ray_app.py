"""The service on Ray Serve: ``serve run recbole_stream.serving.ray_app:app model=MODEL replicas=2``.

One gateway checks requests and shows the pages; replicas rank. A request whose replica dies or falls silent is sent again:
ranking changes nothing, so that it may be done twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from recbole_stream.errors import InputError
from recbole_stream.serving.app import Measures, make_app
from recbole_stream.serving.batching import Batcher
from recbole_stream.serving.folder import read_model
from recbole_stream.serving.recommender import Recommender
from recbole_stream.serving.schema import Answer, Busy, Limits, Question
from recbole_stream.serving.search import Titles

__all__ = ["app", "until_answered"]

_PAUSE = 0.1  # seconds before a request whose replica died is sent again
# a replica that lives says within its patience that it is busy; so many seconds later it is taken for gone
_GRACE = 2.0
_PATIENCES = 3  # until the client is told to come again
_GONE = (RayActorError, NodeDiedError, ObjectLostError, ReplicaUnavailableError, DeploymentUnavailableError)


class Options(BaseModel):
    """What ``serve run`` is given as NAME=VALUE.

    Attributes:
        model: an exported model; each machine of the cluster has to see it.
        replicas: processes that rank.
        cpus: of each replica, which computes with as many threads.
        gpus: of each replica.
        patience: seconds that a replica may take for a request; see :func:`until_answered`.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    replicas: int = Field(1, ge=1)
    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    patience: float = Field(Limits.patience, gt=0, allow_inf_nan=False)


class Ranking:
    """A replica: the model, and what batches the questions that come to it."""

    def __init__(self, model: str, limits: Limits) -> None:
        self.batcher = Batcher(Recommender.load(model), limits)
        self._started = False

    async def __call__(self, question: Question) -> Answer | InputError | Busy:
        """The answer, or why there is none; an exception would come back wrapped in Ray's own."""
        if not self._started:
            self._started = True
            await self.batcher.start()
        try:
            return await self.batcher.answer(question)
        except (InputError, Busy) as fault:
            return fault


def app(options: dict[str, str]) -> serve.Application:
    """What ``serve run`` builds and starts.

    Raises:
        InputError: an option is missing or wrong, or there is no model.
    """
    try:
        given = Options.model_validate(options)
    except ValidationError as fault:
        words = "; ".join(f"{'.'.join(map(str, own['loc']))}: {own['msg']}" for own in fault.errors())
        raise InputError(
            f"The options are wrong ({words}): give model=MODEL and, if wanted, replicas, cpus, gpus, patience."
        ) from None
    model = str(Path(given.model).absolute())
    read_model(model)
    limits = replace(Limits(), patience=given.patience)
    ranking = serve.deployment(Ranking).options(
        num_replicas=given.replicas,
        max_ongoing_requests=limits.queue,
        ray_actor_options={"num_cpus": given.cpus, "num_gpus": given.gpus},
    )
    gateway = serve.deployment(serve.ingress(lambda: _gateway(model, limits))(_Gateway)).options(
        name="Gateway", max_ongoing_requests=limits.queue, ray_actor_options={"num_cpus": 0}
    )
    return gateway.bind(ranking.bind(model, limits))


class _Gateway:
    """Keeps the handle of the replicas, where :func:`_gateway`'s app finds it."""

    def __init__(self, ranking: DeploymentHandle) -> None:
        _REPLICAS.append(ranking)


_REPLICAS: list[DeploymentHandle] = []


async def until_answered(send: Callable[[], Awaitable[Any]], patience: float) -> Any:
    """Send a request until a replica answers it.

    It is sent again where its replica died, and where nothing came for ``patience`` + 2 seconds: the machine may be
    gone without a word, which a cluster notices late.

    Args:
        send: sends it to some replica.
        patience: seconds within which a replica answers, if only that it is busy.

    Raises:
        Busy: none has after three times that.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + _PATIENCES * patience
    while (now := clock()) < end:
        try:
            async with asyncio.timeout_at(min(now + patience + _GRACE, end)):
                return await send()
        except TimeoutError:
            continue
        except _GONE:
            await asyncio.sleep(min(_PAUSE, max(0.0, end - clock())))
    raise Busy(f"No answer came within {_PATIENCES * patience:g} seconds: try again later.")


def _gateway(model: str, limits: Limits) -> FastAPI:
    parts, measures = read_model(model), Measures()

    async def answer(question: Question) -> Answer:
        found = await until_answered(lambda: _REPLICAS[-1].remote(question), limits.patience)
        if isinstance(found, Exception):
            raise found
        return found

    return make_app(answer, lambda: True, Titles.of(parts), parts.config, limits, measures)
