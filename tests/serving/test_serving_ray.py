"""The service on Ray Serve: a request whose replica is killed or falls silent is answered by another."""

import asyncio
import concurrent.futures
import contextlib
import time

import psutil
import pytest
from parts import make_parts

from recbole_stream import Recommender
from recbole_stream.errors import InputError
from recbole_stream.serving.folder import write_model

pytestmark = pytest.mark.ray
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
pytest.importorskip("ray.serve", reason='Ray Serve is not installed: pip install "ray[serve]"', exc_type=ImportError)
httpx = pytest.importorskip("httpx2", reason="httpx2 is not installed")

import ray  # noqa: E402
from ray import serve  # noqa: E402

from recbole_stream.serving import ray_app  # noqa: E402
from recbole_stream.serving.ray_app import app, until_answered  # noqa: E402
from recbole_stream.serving.schema import Busy  # noqa: E402

PORT = 18_765
URL = f"http://127.0.0.1:{PORT}"
PATIENCE = 4.0


def replicas() -> list[psutil.Process]:
    """Those that rank, among the processes of the cluster that this one started."""
    own = psutil.Process().children(recursive=True)
    return [process for process in own if "Ranking" in " ".join(process.cmdline())]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What each request is to get of the service, which runs with two replicas as long as this module's tests."""
    folder = write_model(tmp_path_factory.mktemp("ray") / "MODEL", make_parts("states"))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": PORT})
        options = {"model": str(folder), "replicas": "2", "patience": str(PATIENCE)}
        serve.run(app(options), name="recommendations", route_prefix="/")
        assert httpx.get(URL + "/health", timeout=60).json()["items"] == 40
        yield Recommender.load(folder).recommend([["i1", "i2"]], 5)["item"].tolist()
    finally:
        serve.shutdown()
        ray.shutdown()


def two_replicas() -> list[psutil.Process]:
    """Waits for them: a killed one is started again."""
    for _ in range(600):
        if len(found := replicas()) == 2 and httpx.get(URL + "/health", timeout=60).status_code == 200:
            return found
        time.sleep(0.1)
    raise AssertionError("there are not two replicas")


def ask(_) -> tuple[list[str], float]:
    """The items of an answer, and the seconds that it took."""
    start = time.monotonic()
    answer = httpx.post(URL + "/recommend", json={"histories": [["i1", "i2"]], "k": 5}, timeout=60)
    assert answer.status_code == 200, answer.text
    return [row["item"] for row in answer.json()["recommendations"][0]], time.monotonic() - start


def under_load(hurt, number: int) -> list[tuple[list[str], float]]:
    """Answers of eight clients, while ``hurt`` is called after the twentieth."""
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask, n) for n in range(number)]
        while sum(one.done() for one in asked) < 20:
            time.sleep(0.01)
        hurt()
        assert not all(one.done() for one in asked)
        return [one.result() for one in asked]


@pytest.mark.slow
def test_a_killed_replica_loses_no_request(expected):
    for _ in range(3):
        victim = two_replicas()[0]
        assert all(items == expected for items, _ in under_load(victim.kill, 200))
    answer = httpx.post(URL + "/recommend", json={"histories": [["nothing"]]}, timeout=60)
    assert answer.status_code == 422 and "only unknown items" in answer.json()["detail"]


@pytest.mark.slow
def test_requests_of_a_replica_that_falls_silent_are_sent_again(expected):
    victim = two_replicas()[0]
    try:
        answers = under_load(victim.suspend, 200)  # it neither answers nor dies
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    assert all(items == expected for items, _ in answers)
    longest = max(seconds for _, seconds in answers)
    assert PATIENCE + ray_app._GRACE <= longest < 3 * PATIENCE


GONE = ray.exceptions.ActorDiedError()


@pytest.mark.parametrize("replies", [[7], [GONE, GONE, 7], [None, 7], [None, GONE, 7]])  # None: silence
def test_a_request_is_sent_until_it_is_answered(replies, monkeypatch):
    monkeypatch.setattr(ray_app, "_GRACE", 0.05)
    monkeypatch.setattr(ray_app, "_PAUSE", 0.01)
    waiting = iter(replies)

    async def send():
        reply = next(waiting)
        if isinstance(reply, Exception):
            raise reply
        return reply or await asyncio.sleep(60)

    assert asyncio.run(until_answered(send, 0.2)) == 7
    assert not list(waiting)


@pytest.mark.parametrize("reply", [GONE, None])
def test_where_nobody_answers_the_client_is_told_after_three_times_the_patience(reply):
    async def send():
        if reply:
            raise reply
        await asyncio.sleep(60)

    start = time.monotonic()
    with pytest.raises(Busy, match="No answer came within 0.3 seconds"):
        asyncio.run(until_answered(send, 0.1))
    assert 0.3 <= time.monotonic() - start < 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": "M", "replica": "2"},
        {"model": "M", "replicas": "two"},
        {"model": "M", "replicas": "0"},
        {"model": "M", "patience": "nan"},
    ],
)
def test_wrong_options_are_named(options):
    with pytest.raises(InputError, match="give model=MODEL"):
        app(options)
