"""build_semantic_ids and read_semantic_ids from end to end on small catalogues."""

import json

import numpy as np
import pytest
import torch

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.rq_kmeans import rq_kmeans
from recbole_stream.tokenizer.rq_vae import RQVAEOptions
from recbole_stream.tokenizer.semantic_ids import build_semantic_ids, read_semantic_ids

TINY = RQVAEOptions(hidden_sizes=(16,), latent_size=4, epochs=5, batch_size=32)
SETTINGS = {"levels": 3, "codebook_size": 8, "seed": 7, "show_progress": False, "options": TINY}


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(150, 12)).astype(np.float32)
    points[100:] = points[:50]  # 50 pairs that must collide
    return points


@pytest.mark.parametrize("method", ["rq_kmeans", "rq_vae"])
@pytest.mark.parametrize("unique", ["reassign", "counter", "sinkhorn"])
def test_every_item_has_its_own_id_and_an_honest_report(embeddings, method, unique):
    ids = build_semantic_ids(embeddings, method=method, unique=unique, **SETTINGS)
    assert ids.codes.shape == (150, 3) and ids.codes.dtype == np.int64
    assert len({tuple(row) for row in ids.codes}) == 150
    assert (ids.codes >= 0).all() and (ids.codes < np.array(ids.codebook_sizes)).all()
    assert ids.codebook_sizes[:2] == (8, 8)
    report = json.loads(json.dumps(ids.report))
    assert report["collisions_before"]["rate"] >= 50 / 150  # 100 rows are copies of each other, in pairs
    assert report["collisions_before"]["items"] >= 100
    assert (report["method"], report["unique"], report["seed"], report["items"]) == (method, unique, 7, 150)
    assert [sum(level["counts"]) for level in report["levels"]] == [150] * 3
    if unique == "counter":
        assert ids.codebook_sizes[2] == report["collisions_before"]["largest_group"]
        assert report["items_moved"] == 0 and len(report["levels_before"]) == 2
        assert report["reconstruction"] == report["reconstruction_before"]
    else:
        assert ids.codebook_sizes[2] == 8 and report["items_moved"] >= 50
    if unique == "reassign":
        assert report["items_moved"] == round(150 * report["collisions_before"]["rate"])
    if unique == "sinkhorn" and method == "rq_kmeans":
        nearest = build_semantic_ids(embeddings, method=method, unique="reassign", **SETTINGS).report
        assert report["levels"][2]["perplexity"] > nearest["levels_before"][2]["perplexity"]


@pytest.mark.parametrize("method", ["rq_kmeans", "rq_vae"])
def test_same_seed_same_ids(embeddings, method):
    first = build_semantic_ids(embeddings, method=method, **SETTINGS)
    torch.rand(3), np.random.rand(3)
    second = build_semantic_ids(embeddings, method=method, **SETTINGS)
    np.testing.assert_array_equal(first.codes, second.codes)
    other = build_semantic_ids(embeddings, method=method, **{**SETTINGS, "seed": 8})
    assert (first.codes != other.codes).any()


def test_rq_kmeans_reconstructs_better_with_every_level(embeddings):
    settings = {**SETTINGS, "unique": "counter"}
    reports = [build_semantic_ids(embeddings, **{**settings, "levels": levels}).report for levels in (2, 3, 4)]
    errors = [report["reconstruction"]["relative"] for report in reports]
    assert 1 > errors[0] > errors[1] > errors[2] > 0


def test_rq_kmeans_codes_are_the_nearest_codewords_of_the_residuals(embeddings):
    result = rq_kmeans(embeddings, 2, 8, seed=0, show_progress=False)
    residual = embeddings.copy()
    for level, codebook in enumerate(result.codebooks):
        distances = ((residual[:, None] - codebook[None]) ** 2).sum(-1)
        np.testing.assert_array_equal(result.codes[:, level], distances.argmin(1))
        residual -= codebook[result.codes[:, level]]


def test_a_small_catalogue_is_quantised_in_its_principal_components():
    # 150 items of 8 codes are 18.75 an item and code: max(32, 4 · 150 // 8 = 75) = 75 components of 100 dimensions.
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(150, 5)) @ rng.normal(size=(5, 100)) + 3.0  # in truth five dimensions and an offset
    result = rq_kmeans(flat.astype(np.float32), 2, 8, seed=0, show_progress=False)
    assert result.latents.shape == (150, 75)
    # Nothing is lost: distances stay, and decoding the latents gives the embeddings.
    np.testing.assert_allclose(result.decode(result.latents), flat, atol=1e-3)
    lengths = np.linalg.norm(flat - flat.mean(0), axis=1)
    np.testing.assert_allclose(np.linalg.norm(result.latents, axis=1), lengths, rtol=1e-3)


def test_a_large_catalogue_is_learnt_from_a_sample():
    # 4 codes: a sample of 4 · 256 = 1,024 of 3,000 points around two centres; all of them are assigned.
    rng = np.random.default_rng(1)
    points = (np.repeat([[0.0, 0.0], [10.0, 10.0]], 1500, axis=0) + 0.1 * rng.normal(size=(3000, 2))).astype(np.float32)
    result = rq_kmeans(points, 1, 4, seed=0, show_progress=False)
    assert len(result.codes) == 3000
    assert not set(result.codes[:1500, 0]) & set(result.codes[1500:, 0])


def test_cache_is_read_and_a_torn_file_is_computed_again(embeddings, tmp_path, caplog):
    first = build_semantic_ids(embeddings, cache_dir=tmp_path, **SETTINGS)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = build_semantic_ids(embeddings, cache_dir=tmp_path, **SETTINGS)
    np.testing.assert_array_equal(first.codes, again.codes)
    # The seconds of the first computation are in the second report: it was read, not made again.
    assert again.report == first.report and again.codebook_sizes == first.codebook_sizes
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:300])
    with caplog.at_level("WARNING"):
        mended = build_semantic_ids(embeddings, cache_dir=tmp_path, **SETTINGS)
    assert "cannot be read" in caplog.text and file.stat().st_size > 300
    np.testing.assert_array_equal(first.codes, mended.codes)
    build_semantic_ids(embeddings, cache_dir=tmp_path, **{**SETTINGS, "codebook_size": 16})
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"method": "kmeans"}, "no tokenizer method 'kmeans'"),
        ({"unique": "none"}, "no way 'none'"),
        ({"levels": 0}, "at least 1 levels"),
        ({"levels": 1, "unique": "counter"}, "at least 2 levels"),
        ({"codebook_size": 1}, "2 codes a level"),
        ({"levels": 2, "codebook_size": 12}, "150 items do not fit 2 levels of 12 codes"),
    ],
)
def test_impossible_settings_are_input_errors(embeddings, wrong, message):
    with pytest.raises(InputError, match=message):
        build_semantic_ids(embeddings, **{**SETTINGS, **wrong})


def test_embeddings_that_are_not_finite_are_input_errors(embeddings):
    broken = embeddings.copy()
    broken[41, 3] = np.nan
    with pytest.raises(InputError, match="item 41 is not finite"):
        build_semantic_ids(broken, **SETTINGS)


def write(tmp_path, text, name="ids.tsv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


TABLE = "item_id\tc1\tc2\nx\t900\t7\ny\t900\t7\nz\t30\t5\nw\t900\t5\n"


def test_own_ids_are_numbered_per_level_and_made_unique(tmp_path):
    ids = read_semantic_ids(write(tmp_path, TABLE), ["z", "x", "y", "w"])
    # Level 1: 30 -> 0, 900 -> 1; level 2: 5 -> 0, 7 -> 1. Prefix 1 holds x, y (both code 1) and w (0): three items,
    # so the level grows to 3 codes and y, the later one, takes the free code 2.
    assert ids.codes.tolist() == [[0, 0], [1, 1], [1, 2], [1, 0]]
    assert ids.codebook_sizes == (2, 3)
    assert ids.report["collisions_before"] == {"rate": 0.25, "items": 2, "groups": 1, "largest_group": 2}
    assert ids.report["items_moved"] == 1 and ids.report["items_left_out"] == 0


def test_own_ids_with_a_counter(tmp_path):
    path = write(tmp_path, TABLE)
    ids = read_semantic_ids(path, ["z", "x", "y", "w"], unique="counter")
    assert ids.codes.tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]] and ids.codebook_sizes == (2, 2, 2)
    unshared = read_semantic_ids(path, ["z", "x", "w"], unique="counter")
    assert unshared.codes.tolist() == [[0, 0], [1, 1], [1, 0]]


def test_commas_quotes_and_typed_headers(tmp_path):
    path = write(tmp_path, 'first,item_id:token,second\n1,"a,b",2\n0,c,2\n', "ids.csv")
    assert read_semantic_ids(path, ["c", "a,b"]).codes.tolist() == [[0, 0], [1, 0]]


def test_a_larger_table_is_fine_and_counted(tmp_path, caplog):
    with caplog.at_level("INFO"):
        ids = read_semantic_ids(write(tmp_path, TABLE), ["w", "z"])
    assert ids.codes.tolist() == [[1, 0], [0, 0]] and ids.report["items_left_out"] == 2
    assert "IDs of 2 items" in caplog.text


@pytest.mark.parametrize(
    "text, items, message",
    [
        (
            TABLE,
            ["x", "q", "r"],
            "no ID for 2 of the data set's 3 items, q for one, "
            "and has IDs for 3 items that do not exist, such as w, y, z",
        ),
        (TABLE, ["1", "2"], "no ID for 2 of the data set's 2 items"),
        (TABLE, ["x", "y", "z", "w", "q"], "no ID for 1 of the data set's 5 items, q for one: give"),
        ("item\tc1\nx\t1\n", ["x"], "must have the column item_id.*it has item, c1"),
        ("item_id\nx\n", ["x"], "one column per level: it has item_id"),
        ("", ["x"], "it has none"),
        ("item_id\tc1\nx\t-1\n", ["x"], "Line 2 .* whole numbers of at least 0"),
        ("item_id\tc1\tc2\nx\t1\n", ["x"], "Line 2 .* 2 whole numbers"),
        ("item_id\tc1\nx\t1\nx\t2\n", ["x"], r"gives item x two IDs \(line 3\)"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, items, message):
    with pytest.raises(InputError, match=message):
        read_semantic_ids(write(tmp_path, text), items)


def test_missing_table_and_sinkhorn_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no file .*nowhere.*`semantic_ids_file`"):
        read_semantic_ids(tmp_path / "nowhere", ["x"])
    with pytest.raises(InputError, match="no distances for unique=sinkhorn"):
        read_semantic_ids(write(tmp_path, TABLE), ["x"], unique="sinkhorn")
