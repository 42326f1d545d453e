"""What the last stage reports, where only some validation users taught it."""

import numpy as np
import pytest
import torch
from recbole.quick_start import load_data_and_model
from scipy.optimize import minimize

from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.run.commands import main
from recbole_stream.reporting.results import read_results

TAUGHT, FOLDS = 70, 4


def fitted(views, targets):
    """The weights under which the targets are likeliest among all items, with the ridge; only repeats may be negative.

    views [U, n, 4] and places [U] -> [4].
    """
    views, rows = torch.from_numpy(views), torch.arange(len(targets))

    def loss(weights):
        weights = torch.tensor(weights, requires_grad=True)
        value = -(views @ weights).log_softmax(-1)[rows, targets].mean() + 1e-3 * weights.square().sum()
        value.backward()
        return value.item(), weights.grad.numpy()

    bounds = [(0, None), (0, None), (0, None), (None, None)]
    return minimize(
        loss, np.ones(4), jac=True, method="SLSQP", bounds=bounds, options={"ftol": 1e-12, "maxiter": 500}
    ).x


def test_users_that_taught_are_ranked_by_what_others_taught_and_the_rest_by_the_model(small, tmp_path):
    """Every item is a candidate and nothing is generated, so that all ranks follow from the views of the catalogue."""
    run = tmp_path / "run"
    small = [option for option in small if not option.startswith("--candidates")]
    simple = ["--views_off=[likelihood]", "--verifier_size=0", "--candidates=5000", f"--weigh_users={TAUGHT}"]
    assert main(["--model=STREAMRec", "--metrics=[Recall,NDCG,GAUC]", *small, *simple, f"--output_dir={run}"]) == 0
    (row,) = [row for row in read_results(run) if row.stage == "Deliberation"]
    with quiet_argv():
        _, model, _, _, valid, _ = load_data_and_model(str(run / "checkpoints" / "STREAMRec-seed2020-Deliberation.pth"))
    model.eval()
    samples, slow = samples_of(valid._dataset), model.network.deliberation
    views = slow.catalogue(samples.histories.to_dense())[:, 1:].double().numpy()  # without the padding item
    targets = (samples.targets - 1).numpy()

    def ranks(users, weights):
        scores = views[users] @ weights
        return (scores >= scores[np.arange(len(users)), targets[users]][:, None]).sum(1)

    found = ranks(np.arange(len(targets)), slow.weights[1:].double().numpy())
    # GAUC is of the model as it is: the share of other items below the target, for there are no ties
    auc = (views.shape[1] - found) / (views.shape[1] - 1)
    assert row.valid["gauc"] == pytest.approx(auc.mean(), abs=1e-5)
    # the order in which users are dealt into folds: drawn by the seed, then by the length of the history
    taught = torch.randperm(len(samples), generator=torch.Generator().manual_seed(2020))[:TAUGHT]
    taught = taught[samples.lengths[taught].argsort(stable=True)].numpy()
    in_sample = found[taught].copy()
    for fold in torch.randperm(TAUGHT, generator=torch.Generator().manual_seed(2020)).chunk(FOLDS):
        held_out, others = taught[fold.numpy()], np.delete(taught, fold.numpy())
        found[held_out] = ranks(held_out, fitted(views[others], targets[others]))
    assert (found[taught] != in_sample).mean() > 0.2  # it matters who taught
    hits = found <= 10
    assert hits[taught].any() and np.delete(hits, taught).any()
    assert row.valid["recall@10"] == pytest.approx(hits.mean(), abs=1e-6)
    assert row.valid["ndcg@10"] == pytest.approx(np.where(hits, 1 / np.log2(found + 1), 0).mean(), abs=1e-6)
