"""ETEGRec inside RecBole: a run whose IDs change, and its checkpoint."""

from pathlib import Path

import cases
import pytest
import torch
from recbole.quick_start import load_data_and_model, run_recbole

pytestmark = pytest.mark.long

KEYS = {
    "dataset": "toy", "codebook_size": 8, "codebook_levels": 3, "rq_vae_hidden_sizes": [16], "rq_vae_latent_size": 8,
    "rq_vae_epochs": 2, "collaborative_epochs": 1, "hidden_size": 16, "inner_size": 16, "n_heads": 2, "head_size": 8,
    "encoder_layers": 1, "decoder_layers": 1, "beam_size": 10, "epochs": 4, "etegrec_turns": 1, "etegrec_rate": 5.0,
    "warmup_steps": 1, "stopping_step": 10, "show_progress": False, "use_gpu": False, "state": "warning",
}  # fmt: skip


def test_a_run_learns_its_ids_and_its_checkpoint_has_them(tmp_path: Path):
    data = cases.write_case(tmp_path / "data", "toy")
    keys = KEYS | {"data_path": data, "cache_dir": str(tmp_path / "cache"), "checkpoint_dir": str(tmp_path / "saved")}
    result = run_recbole(model="ETEGRec", config_dict=keys)
    assert 0 <= result["test_result"]["ndcg@10"] <= result["test_result"]["recall@10"] <= 1
    (file,) = (tmp_path / "saved").iterdir()
    _, model, dataset, _, _, _ = load_data_and_model(str(file))
    saved = torch.load(file, weights_only=False)["state_dict"]["network.tokens.table"]
    assert torch.equal(model.network.tokens.table, saved)
    first = torch.from_numpy(dataset.semantic_ids.codes)
    learnt = model.network.tokens.codes(model.network.tokens.table[1:])
    assert not torch.equal(first, learnt)
    # the search finds every item by the ID that it has now
    model.eval()
    items, scores = model.rank(torch.tensor([[1, 2, 3]]), 30)
    assert model.trie.find(learnt).tolist() == list(range(1, len(learnt) + 1))
    assert len(set(items[0].tolist()) - {0}) == 30 and (scores[0].diff() <= 0).all()
