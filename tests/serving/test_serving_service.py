"""The service by HTTP: the same lists as in Python, limits, sentences, measures."""

import json
import os
import signal
import socket
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import make_parts

from recbole_stream import Recommender
from recbole_stream.__main__ import main
from recbole_stream.serving.folder import write_model
from recbole_stream.serving.search import Titles

pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
httpx = pytest.importorskip("httpx2", reason="httpx2 is not installed")

from fastapi.testclient import TestClient  # noqa: E402

from recbole_stream.serving.app import app_of  # noqa: E402
from recbole_stream.serving.schema import Limits  # noqa: E402

LIMITS = Limits(body=4_000, histories=3, length=50, k=20, candidates=5, batch=8, patience=5.0)
MODEL = Recommender(make_parts("verifier"))


@pytest.fixture(scope="module")
def client():
    with TestClient(app_of(MODEL, LIMITS), raise_server_exceptions=False) as client:
        yield client


def names(answer: Any) -> list[list[str]]:
    return [[row["item"] for row in rows] for rows in answer.json()["recommendations"]]


def test_the_answer_is_that_of_python(client):
    histories = [["i1", "i2"], "u1", ["i40"]]
    answer = client.post("/recommend", json={"histories": histories, "k": 4, "exclude_seen": False})
    assert answer.status_code == 200
    table = MODEL.recommend(histories, 4, exclude_seen=False)
    rows = [row for rows in answer.json()["recommendations"] for row in rows]
    for column in ("rank", "item", "title"):
        assert [row[column] for row in rows] == table[column].tolist()
    assert [row["score"] for row in rows] == pytest.approx(table["score"].tolist(), abs=1e-5)
    assert "why" not in rows[0]


def test_candidates_for_all_or_for_each(client):
    ask = {"histories": [["i1"], ["i2"]], "candidates": ["i3", "i4"]}
    assert [sorted(own) for own in names(client.post("/recommend", json=ask))] == [["i3", "i4"]] * 2
    ask["candidates"] = [["i3"], ["i9"]]
    assert names(client.post("/recommend", json=ask)) == [["i3"], ["i9"]]


def test_unknown_items_are_counted(client):
    answer = client.post("/recommend", json={"histories": [["i1", "x"], ["y", "z", "i2"]]})
    assert answer.json()["unknown_items"] == 3
    answer = client.post("/recommend", json={"histories": [["x", "y"]]})
    assert answer.status_code == 422
    assert answer.json() == {
        "detail": "History 0 holds only unknown items, such as 'x': give at least one of the model's 40 items."
    }


@pytest.mark.parametrize(
    ("ask", "status", "words"),
    [
        ({"histories": [["i1"]] * 4}, 422, "at most 3 in a request"),
        ({"histories": [["i1"] * 51]}, 422, "the latest 50 at most"),
        ({"histories": [["i1"]], "k": 21}, 422, "k must be from 1 to 20"),
        ({"histories": [["i1"]], "k": 0}, 422, "k must be from 1 to 20"),
        ({"histories": [["i1"]], "k": "ten"}, 422, "k: Input should be a valid integer"),
        ({"histories": [["i1"]], "k": True}, 422, "k: Input should be a valid integer"),
        ({"histories": [["i1"]], "candidates": ["i2"] * 6}, 422, "at most 5 for a history"),
        ({"histories": [["i1"]], "candidates": [["i2"], ["i3"]]}, 422, "one for each history"),
        ({"histories": [["i1"]], "candidates": ["x"]}, 422, "no item 'x'"),
        ({"histories": []}, 422, "There are no histories"),
        ({"histories": [[]]}, 422, "History 0 is empty"),
        ({"histories": ["u9"]}, 422, "no user 'u9'"),
        ({"histories": [[1]]}, 422, "histories.0.0: Input should be a valid string"),
        ({"histories": [["i1"]], "top": 5}, 422, "top: Extra inputs are not permitted"),
        ({}, 422, "histories: Field required"),
        ([], 422, "The body"),
        ({"histories": [["i" * 4_000]]}, 413, "larger than 4,000 bytes"),
    ],
)
def test_limits_and_faults_are_one_sentence(client, ask, status, words):
    answer = client.post("/recommend", json=ask)
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert answer.json().keys() == {"detail"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/recommend", 405),
        ("GET", "/items?limit=101", 422),
        ("GET", "/items?limit=x", 422),
    ],
)
def test_other_addresses(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status and answer.json()["detail"].endswith(".")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["i1", "u1", "x"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["histories", "k", "candidates"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=int(os.environ.get("MALFORMED_BODIES", "60")), deadline=None)
@given(body=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_malformed_bodies_are_refused(client, body):
    answer = client.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 422)
    if answer.status_code != 200:
        assert isinstance(answer.json()["detail"], str) and "Traceback" not in answer.text


def test_a_fault_of_the_service_tells_nothing_and_ends_nothing(client, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("in /home/secret/model.py")

    with monkeypatch.context() as patch:
        patch.setattr(MODEL, "recommend", fail)
        answer = client.post("/recommend", json={"histories": [["i1"]]})
    assert answer.status_code == 500
    assert answer.json() == {"detail": "The service failed on this request: its log says where."}
    assert client.post("/recommend", json={"histories": [["i1"]]}).status_code == 200


def test_health_says_what_ranks(client):
    assert client.get("/health").json() == {"status": "ok", "model": "STREAMRec", "dataset": "toy", "items": 40}


def test_measures_are_counted():
    with TestClient(app_of(MODEL, LIMITS)) as client:
        for history in (["i1"], ["i1", "x"], ["x"]):
            client.post("/recommend", json={"histories": [history]})
        client.get("/somewhere/else")
        lines = client.get("/metrics").text.splitlines()
    assert 'recbole_stream_requests_total{path="/recommend",status="200"} 2.0' in lines
    assert 'recbole_stream_requests_total{path="/recommend",status="422"} 1.0' in lines
    assert 'recbole_stream_requests_total{path="other",status="404"} 1.0' in lines
    assert "recbole_stream_unknown_items_total 1.0" in lines
    assert "recbole_stream_batch_histories_sum 2.0" in lines
    assert "recbole_stream_pending_histories 0.0" in lines


def test_the_pages_fetch_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for text in (page.text, client.get("/docs").text):
        assert "http://" not in text and "https://" not in text
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/recommend", "/items", "/health"}
    assert set(paths["/recommend"]["post"]["responses"]) == {"200", "400", "408", "413", "422", "503"}


def test_titles_are_found_by_words():
    titles = ["The Third Man", "Amélie", "Man of Iron", "Third Star", "Ironman", ""]
    found = Titles(list("abcdef"), titles, [1, 5, 2, 9, 7, 0])
    assert [item.item for item in found.find("man", 9)] == ["c", "a", "e"]  # begins, a word begins, within
    assert [item.item for item in found.find("THIRD", 9)] == ["d", "a"]
    assert [item.item for item in found.find("man third", 9)] == ["a"]
    assert [item.item for item in found.find("amelie", 9)] == ["b"]
    assert [item.item for item in found.find("f", 9)][0] == "f"  # has no title
    assert [item.item for item in found.find("", 3)] == ["d", "e", "b"]
    assert found.find("nowhere", 9) == []


def test_most_frequent_items_come_first(client):
    assert client.get("/items", params={"limit": 4}).json() == [
        {"item": f"i{n}", "title": f"Title {n}"} for n in (1, 2, 3, 4)
    ]
    assert client.get("/items", params={"query": "title 39"}).json() == [{"item": "i39", "title": "Title 39"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("service") / "MODEL", make_parts("states"))


def test_the_command_serves_until_interrupted(folder, capfd):
    port, answers = _free_port(), []

    def ask():
        try:
            answers.append(httpx.post(f"http://127.0.0.1:{port}/recommend", json={"histories": ["u1"]}, timeout=20))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    asking = threading.Timer(0.5, ask)
    asking.start()
    try:
        status = main(["serve", str(folder), "--port", str(port)])
    except KeyboardInterrupt:  # before or after the command proper
        status = 130
    asking.join()
    assert status == 130
    assert len(answers[0].json()["recommendations"][0]) == 10
    assert f"Answering at http://127.0.0.1:{port}/" in capfd.readouterr().out


def test_a_port_in_use_is_named(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(folder), "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"Error: Port {port} of 127.0.0.1 is in use: name another --port.\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["NOWHERE", "--port=0"], "There is no folder NOWHERE"),
        (["MODEL", "--port=70000"], "--port is 70000, but must be from 0 to 65535"),
        (["MODEL", "--host=not an address"], "There is no address 'not an address'"),
        (["MODEL", "--host=192.0.2.1"], "'192.0.2.1' is no address of this machine"),
        (["MODEL", "--queue=0"], "--queue is 0, but must be more than 0"),
        (["MODEL", "--patience=inf"], "--patience is inf, but must be more than 0 and finite"),
    ],
)
def test_bad_options_are_named(words, sentence, capsys):
    assert main(["serve", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_a_missing_extra_is_named(monkeypatch, capsys):
    import importlib.util

    whole = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else whole(name, *rest)
    )
    assert main(["serve", "MODEL"]) == 2
    assert 'serve needs uvicorn, which is not installed: pip install "recbole-stream[serve]"' in capsys.readouterr().err


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as any_port:
        return any_port.getsockname()[1]
