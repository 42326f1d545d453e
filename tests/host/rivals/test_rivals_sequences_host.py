"""RPG and LateFusion: rows, resume after a kill, what they recommend, a slice of ml-100k, and their keys."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.quick_start import load_data_and_model
from recbole.utils.case_study import full_sort_scores

from recbole_stream.errors import InputError
from recbole_stream.host.configuration import known_keys
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.run.job import configure, run_job
from recbole_stream.training.all_positions import AllPositions
from tests.cases import write_case

pytestmark = pytest.mark.long

SMALL = {
    "epochs": 2, "hidden_size": 16, "inner_size": 32, "n_heads": 2, "head_size": 8, "encoder_layers": 1,
    "codebook_levels": 8, "codebook_size": 16, "train_batch_size": 16, "MAX_ITEM_LIST_LENGTH": 4,
    "show_progress": False, "gpu_id": "", "state": "error",
}  # fmt: skip


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("toy"), "toy")


@pytest.fixture
def train(toy, cache, monkeypatch):
    """Train a model in a folder, and stop before the batch of this number."""

    def train(name, folder, batches=10**9):
        keys = SMALL | {"data_path": toy, "cache_dir": cache}
        config = configure(name, ["RPG", "LateFusion"], "toy", keys, folder)
        folder.mkdir(exist_ok=True)
        stock, done = AllPositions.losses, []

        def losses(self, batch):
            if len(done) == batches:
                raise Killed
            done.append(batch)
            return stock(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(AllPositions, "losses", losses)
            return run_job(config, folder, ["python", "run_recbole.py"]), done

    return train


@pytest.mark.parametrize(("name", "stages"), [("RPG", [""]), ("LateFusion", ["SASRec", "Fusion"])])
def test_a_run_that_was_killed_ends_as_one_in_one_go(train, name, stages, tmp_path):
    rows, batches = train(name, tmp_path / "whole")
    assert [row.stage for row in rows] == stages and rows[-1].final
    positions = sum(int((batch.histories > 0).sum()) for batch in batches)
    with pytest.raises(Killed):
        train(name, tmp_path / "parts", len(batches) // 2 + 2)  # in the second epoch
    again, _ = train(name, tmp_path / "parts")
    assert [(row.valid, row.test) for row in again] == [(row.valid, row.test) for row in rows]
    (file,) = (tmp_path / "whole" / "checkpoints").glob(f"*{'RPG' if name == 'RPG' else 'Fusion'}.pth")
    (other,) = (tmp_path / "parts" / "checkpoints").glob(file.name)
    weights, others = (torch.load(path, weights_only=False)["state_dict"] for path in (file, other))
    assert all(torch.equal(value, others[key]) for key, value in weights.items())

    # from the checkpoint: the lists of the search-free ranking are the best of the scores of all items
    _, model, _, training, _, test = load_data_and_model(str(file))
    model.eval()
    assert positions == SMALL["epochs"] * len(training._dataset)  # each sample's target once an epoch
    samples = samples_of(test._dataset)
    batch = samples.batch(samples.lengths.argsort()[:20])
    items, scores = model.rank_batch(batch, 10)
    users = test._dataset.inter_feat["user_id"][batch.rows].numpy()
    every = torch.cat([full_sort_scores(np.array([user]), model, test) for user in users])
    assert torch.allclose(every.gather(1, items), scores, atol=1e-4)
    assert torch.allclose(every.topk(10, 1).values, scores, atol=1e-4)
    assert torch.isneginf(every[:, 0]).all() and torch.isfinite(every[:, 1:]).all()


def test_a_slice_of_ml_100k_and_where_the_ids_of_another_paper_stand(tiny_ml100k, cache, tmp_path):
    changes = {"data_path": tiny_ml100k, "cache_dir": cache, "text_fields": ["movie_title"], "train_batch_size": 64}
    config = configure("RPG", ["RPG"], "tiny", SMALL | changes | {"epochs": 1}, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (row,) = run_job(config, tmp_path / "out", ["python", "run_recbole.py"])
    assert 0 <= row.test["ndcg@10"] <= row.test["recall@10"] <= 1 and row.parameters > 16 * 16 * 8
    header, first, *_ = (tmp_path / "out" / "tokenizer-RPG" / "semantic_ids.tsv").read_text().splitlines()
    assert header.split("\t") == ["item_id", *(f"code_{code}" for code in range(1, 9))]
    assert all(0 <= int(code) < 16 for code in first.split("\t")[1:])
    assert not Path(tmp_path, "out", "semantic_ids.tsv").exists()


@pytest.mark.parametrize(
    ("model", "key", "value", "message"),
    [
        ("RPG", "temprature", 1, "did you mean 'temperature'"),
        ("RPG", "verifier_size", 8, "belongs to STREAMRec, not to RPG"),
        ("RPG", "codebook_levels", 65, "codebook_levels is 65, but must be a whole number between 2 and 64"),
        ("LateFusion", "candidats", 9, "did you mean 'candidates'"),
        ("LateFusion", "preset", "paper", "LateFusion has only: default"),
    ],
)
def test_wrong_keys_are_refused(model, key, value, message):
    with pytest.raises(InputError, match=message):
        Config(model, "ml-100k", config_dict={key: value})
    assert "exclude_history" in known_keys(model) and "exclude_history" not in known_keys("TIGER")
