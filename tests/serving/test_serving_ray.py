"""The service on Ray Serve: a killed replica loses no accepted request."""

import concurrent.futures
import os
import signal
import time

import pytest
from parts import make_parts

from recbole_stream import Recommender
from recbole_stream.errors import InputError
from recbole_stream.serving.folder import write_model

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
pytest.importorskip("ray.serve", reason='Ray Serve is not installed: pip install "ray[serve]"', exc_type=ImportError)
httpx = pytest.importorskip("httpx2", reason="httpx2 is not installed")

import ray  # noqa: E402
from ray import serve  # noqa: E402

from recbole_stream.serving.ray_app import app  # noqa: E402


def replicas() -> dict[str, int]:
    """Ids and process ids of the living ones that rank."""
    from ray.util.state import list_actors

    return {
        actor["actor_id"]: actor["pid"]
        for actor in list_actors(detail=True, filters=[("state", "=", "ALIVE")])
        if "Ranking" in actor["name"]
    }


def test_a_killed_replica_loses_no_request(tmp_path):
    folder = write_model(tmp_path / "MODEL", make_parts("states"))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 18_765})
        serve.run(app({"model": str(folder), "replicas": "2"}), name="recommendations", route_prefix="/")
        url = "http://127.0.0.1:18765"
        assert httpx.get(url + "/health", timeout=60).json()["items"] == 40
        expected = Recommender.load(folder).recommend([["i1", "i2"]], 5)["item"].tolist()

        def ask(_):
            answer = httpx.post(url + "/recommend", json={"histories": [["i1", "i2"]], "k": 5}, timeout=60)
            assert answer.status_code == 200, answer.text
            return [row["item"] for row in answer.json()["recommendations"][0]]

        before = replicas()
        assert len(before) == 2
        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            asked = [clients.submit(ask, n) for n in range(200)]
            while sum(one.done() for one in asked) < 20:
                time.sleep(0.01)
            os.kill(next(iter(before.values())), signal.SIGKILL)
            assert all(one.result() == expected for one in asked)
        answer = httpx.post(url + "/recommend", json={"histories": [["nothing"]]}, timeout=60)
        assert answer.status_code == 422 and "only unknown items" in answer.json()["detail"]
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.mark.parametrize("options", [{}, {"model": "M", "replica": "2"}, {"model": "M", "replicas": "two"}])
def test_wrong_options_are_named(options):
    with pytest.raises(InputError, match="give model=MODEL"):
        app(options)
