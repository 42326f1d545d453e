"""The ONNX graph ranks as the model does."""

import numpy as np
import pytest
import torch
from helpers import random_histories
from parts import make_parts, make_ranker

from recbole_stream import __main__ as package
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.errors import InputError
from recbole_stream.serving.folder import write_model
from recbole_stream.serving.onnx_export import Graph, quantised, to_onnx

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

HISTORIES = random_histories(40, (1, 5, 3, 4, 2))


def run(path, histories: torch.Tensor) -> list[np.ndarray]:
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"histories": histories.numpy()}
    )


def silent(kind: str) -> Ranker:
    """A ranker whose likelihood has no weight."""
    ranker, _ = make_ranker(kind)
    ranker.network.deliberation.weights[0] = 0
    return ranker


@pytest.mark.parametrize("kind", ["verifier", "pointer"])
def test_it_ranks_as_the_model_does(kind, tmp_path):
    ranker = silent(kind)
    path = to_onnx(ranker, tmp_path / "model.onnx")
    for histories in (HISTORIES, HISTORIES[:1, :1], HISTORIES[1:3]):  # both sizes are free
        items, scores = run(path, histories)
        theirs, values = ranker.rank(histories, ranker.candidates)
        assert items.tolist() == theirs.tolist()
        assert np.allclose(scores, values, atol=1e-4)
    small = quantised(path, tmp_path / "small.onnx")
    assert small.stat().st_size < path.stat().st_size
    kept = [
        len({*own} & {*theirs})
        for own, theirs in zip(run(small, HISTORIES)[0].tolist(), run(path, HISTORIES)[0].tolist())
    ]
    assert np.mean(kept) > 0.8 * ranker.candidates


def test_the_graph_of_states():
    ranker, _ = make_ranker("states")
    items, scores = Graph(ranker)(HISTORIES)
    theirs, values = ranker.rank(HISTORIES, ranker.candidates)
    assert items.tolist() == theirs.tolist()
    assert torch.allclose(scores, values, atol=1e-5)


def test_the_graph_of_a_weighted_sum():
    # without the exporter: what it is given does what the ranker does
    for off in ((), ("transitions", "repeats"), ("matching", "text")):
        ranker = silent("deliberation")
        ranker.network.deliberation.switch_off(off)
        items, scores = Graph(ranker)(HISTORIES)
        _, values = ranker.rank(HISTORIES, ranker.candidates)
        assert torch.allclose(scores, values, atol=1e-4)
        assert torch.allclose(ranker.scores(HISTORIES, items), values, atol=1e-4)  # of equal scores either is right


def test_a_model_that_searches_is_refused(tmp_path, capsys):
    for kind in ("TIGER", "likelihood"):
        with pytest.raises(InputError, match="searches for the tokens"):
            to_onnx(make_ranker(kind)[0], tmp_path / "model.onnx")
    write_model(tmp_path / "model", make_parts("TIGER"))
    assert package.main(["onnx", str(tmp_path / "model"), f"--output={tmp_path / 'model.onnx'}"]) == 2
    assert "no ONNX graph does" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
