"""What the last stage reports, where only some validation users taught it."""

import numpy as np
import pytest
import torch
from recbole.quick_start import load_data_and_model

from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.run.commands import main
from recbole_stream.reporting.results import read_results
from recbole_stream.training.fit_views import learn_to_deliberate


def test_users_that_taught_are_ranked_by_what_others_taught_and_the_rest_by_the_model(small, tmp_path):
    run = tmp_path / "run"
    assert main(["--model=STREAMRec", *small, "--weigh_users=70", f"--output_dir={run}"]) == 0
    (row,) = [row for row in read_results(run) if row.stage == "Deliberation"]
    with quiet_argv():
        config, model, _, _, valid, _ = load_data_and_model(
            str(run / "checkpoints" / "STREAMRec-seed2020-Deliberation.pth")
        )
    model.eval()
    samples = samples_of(valid._dataset)
    items, _ = model.rank(samples.histories, 10)
    hits = items == samples.targets[:, None]
    ranks = np.where(hits.any(1), hits.int().argmax(1) + 1.0, np.inf)  # of users not learnt from

    slow = model.network.deliberation
    slow.weights.copy_(slow.first_weights())
    taught = torch.randperm(len(samples), generator=torch.Generator().manual_seed(2020))[:70]
    learnt = learn_to_deliberate(
        model.network, samples, taught, model.trie, model.beams, model.candidates, config["seed"]
    )
    ranks[learnt.rows.numpy()] = learnt.ranks
    assert len(ranks) > 70 and row.valid["recall@10"] == pytest.approx((ranks <= 10).mean(), abs=1e-6)
    assert row.valid["ndcg@10"] == pytest.approx(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean(), abs=1e-6)
