"""``tokenizer: letter`` inside RecBole: vectors of the training split alone, IDs for both models."""

from pathlib import Path

import cases
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole
from recbole.utils import init_seed

from recbole_stream.errors import InputError
from recbole_stream.host.dataset import samples_of

pytestmark = pytest.mark.long

KEYS = {
    "dataset": "toy", "tokenizer": "letter", "codebook_size": 8, "codebook_levels": 3, "rq_vae_hidden_sizes": [16],
    "rq_vae_latent_size": 8, "rq_vae_epochs": 3, "letter_clusters": 4, "collaborative_epochs": 1, "hidden_size": 16,
    "inner_size": 16, "n_heads": 2, "head_size": 8, "encoder_layers": 1, "decoder_layers": 1, "beam_size": 10,
    "epochs": 1, "show_progress": False, "use_gpu": False, "state": "warning",
}  # fmt: skip


@pytest.fixture
def keys(tmp_path: Path) -> dict:
    return KEYS | {"data_path": cases.write_case(tmp_path / "data", "toy"), "cache_dir": str(tmp_path / "cache")}


def test_the_vectors_are_of_the_split_that_recbole_draws_later(keys):
    config = Config(model="TIGER", config_dict=keys)
    init_seed(config["seed"], True)
    before = torch.get_rng_state()
    dataset = create_dataset(config)
    ahead = dataset.training_samples
    assert torch.equal(torch.get_rng_state(), before)
    later = samples_of(data_preparation(config, dataset)[0]._dataset)
    assert torch.equal(ahead.histories.to_dense(), later.histories.to_dense()) and torch.equal(
        ahead.targets, later.targets
    )
    # no user's last two items are targets: five events give at most two samples
    assert len(ahead) == len(cases.EVENTS) - 3 * 60
    assert dataset.semantic_ids.report["method"] == "letter"
    assert len(dataset.semantic_ids.codes.tolist()) == len({tuple(row) for row in dataset.semantic_ids.codes.tolist()})


def test_tiger_trains_on_these_ids(keys):
    result = run_recbole(model="TIGER", config_dict=keys)
    assert 0 <= result["test_result"]["ndcg@10"] <= result["test_result"]["recall@10"] <= 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"rq_vae_latent_size": 6}, "multiple of 4"), ({"letter_clusters": 5}, "at most 4 clusters of two codewords")],
)
def test_impossible_sizes_stop_before_data_is_read(keys, changed, message):
    config = Config(model="TIGER", config_dict=keys | changed)
    with pytest.raises(InputError, match=message):
        create_dataset(config)
