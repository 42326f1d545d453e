"""On a GPU: the values of the CPU, steps that wait for nothing, and runs that are killed and go on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import random_histories
from stages import CODES, SAMPLES, STAGES
from torch import Tensor, nn

from recbole_stream.data.samples import Samples
from recbole_stream.decoding.rank import rank_items
from recbole_stream.decoding.rank_by_views import deliberate, rank_by_states
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.verifier import Verifier
from recbole_stream.precision import automatic_precision
from recbole_stream.tokenizer.rq_vae import RQVAEOptions, rq_vae
from recbole_stream.training.checkpoint import Progress
from recbole_stream.training.fit_verifier import fit_scorer
from recbole_stream.training.loop import StageContext, autocast, train_stage
from recbole_stream.training.schedule import Schedule, WeightAverage

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]


def on_gpu(stage):
    """A stage's model and objective, moved with all that they hold."""
    model, objective, _ = STAGES[stage]()
    model.to("cuda")
    for name, value in vars(objective).items():
        if isinstance(value, (nn.Module, Tensor, Samples)):
            setattr(objective, name, value.to("cuda"))
    return model, objective


@pytest.mark.parametrize("stage", STAGES)
def test_loss_and_gradients_are_the_cpus_within_rounding(stage):
    found = []
    for device in ("cpu", "cuda"):
        model, objective = on_gpu(stage) if device == "cuda" else STAGES[stage]()[:2]
        batch = SAMPLES.to(device).batch(torch.arange(4), draws=torch.Generator().manual_seed(0))
        loss, scalars = next(objective.losses(batch))
        loss.backward()
        gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        found.append((loss.item(), {name: float(value) for name, value in scalars.items()}, gradients))
    (loss, scalars, gradients), (other, others, theirs) = found
    assert other == pytest.approx(loss, rel=1e-4, abs=1e-6)
    assert others == pytest.approx(scalars, rel=1e-3, abs=1e-5)
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-2, atol=1e-4, msg=name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_waits_for_nothing(stage, precision):
    model, objective = on_gpu(stage)
    parameters = [p for p in model.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    average, samples = WeightAverage(parameters, 0.9), SAMPLES.to("cuda")

    def step():
        batch, sums = samples.batch(torch.arange(4)), torch.zeros((), device="cuda")
        with autocast("cuda", precision):
            loss, scalars = next(objective.losses(batch))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update()
        for value in (loss, norm, *scalars.values()):
            sums += value.detach()

    step()  # CUDA's libraries set themselves up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_was_killed_goes_on_as_if_it_had_not_been(stage, tmp_path):
    schedule, samples = Schedule(epochs=3, learning_rate=1e-3, batch_size=2), SAMPLES.to("cuda")

    def train(file, steps=None):
        model, objective = on_gpu(stage)
        losses, left = objective.losses, iter(range(steps or 99))

        def until_killed(batch):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return losses(batch)

        objective.losses = until_killed
        context = StageContext(lambda: {"ndcg": 0.0}, "ndcg", progress=Progress(file, seconds=0), show_progress=False)
        return train_stage(model, objective, schedule, samples, context), model

    whole, model = train(tmp_path / "whole.pth")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed.pth", 3)  # in the middle of the second epoch
    result, again = train(tmp_path / "killed.pth")
    for curve, expected in zip(result.curves, whole.curves, strict=True):
        assert curve == pytest.approx(expected, rel=1e-2, abs=1e-3)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("way", ["generate", "states", "deliberate"])
def test_lists_are_the_cpus(way):
    model, _, _ = STAGES["States"]()
    model.steps.fill_(2)
    histories, lists = random_histories(40, [1, 4, 9, 3, 2, 7]), []
    for device in ("cpu", "cuda"):
        trie, some = Trie(CODES).to(device), histories.to(device)
        model.to(device).eval()
        if way == "generate":
            items, scores = rank_items(model, some, trie, 10)
        elif way == "states":
            items, scores = rank_by_states(model, some, 10)
        else:
            items, scores = deliberate(model, some, trie, 10, 10, 10)
        lists.append((items.cpu(), scores.cpu()))
    assert torch.equal(lists[0][0], lists[1][0])
    torch.testing.assert_close(lists[0][1], lists[1][1], rtol=1e-4, atol=1e-4)


def test_what_is_trained_on_the_cpu_leaves_the_gpus_random_numbers_alone():
    torch.cuda.manual_seed(1)
    before = torch.cuda.get_rng_state()
    fit_scorer(Verifier(2, 4, torch.ones(3)), torch.rand(8, 3, 5), torch.zeros(8).long(), torch.ones(8, 3).bool(), 0)
    rq_vae(np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32), 2, 4, 0, RQVAEOptions((8,), 4, 1))
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_automatic_precision_is_bfloat16_from_ampere_on():
    expected = "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float32"
    assert automatic_precision("cuda") == expected


STEP = ("torch.nn.utils", "clip_grad_norm_")
ARGUMENTS = [
    "--model=STREAMRec", "--dataset=tiny", "--text_fields=[movie_title]", "--codebook_size=32",
    "--codebook_levels=3", "--hidden_size=16", "--inner_size=16", "--n_heads=2", "--head_size=8", "--encoder_layers=1",
    "--decoder_layers=1", "--beam_size=10", "--similar_items=5", "--reasoning_steps=2", "--pretrain_epochs=2",
    "--finetune_epochs=2", "--dpo_weight=0.1", "--reinforce_epochs=1", "--reinforce_samples=128",
    "--reinforce_batch_size=16", "--group_size=4", "--train_batch_size=512", "--MAX_ITEM_LIST_LENGTH=10",
    "--matching_epochs=2", "--show_progress=False", "--gpu_id=0", "--state=warning",
]  # fmt: skip
# 25 steps an epoch, 8 of reinforcement: in the second epoch of pretraining and of fine-tuning, in reinforcement, in the
# second epoch of the matching tower, while views are weighed
DEATHS = [
    ["call", *STEP, 30], ["call", *STEP, 60], ["call", *STEP, 30], ["call", *STEP, 38],
    ["call", "recbole_stream.training.fit_views", "choose_weights", 1],
]  # fmt: skip


@pytest.mark.slow
def test_a_run_that_was_killed_in_every_stage_ends_with_all_rows(module_tiny_ml100k, tmp_path):
    arguments = [*ARGUMENTS, f"--data_path={module_tiny_ml100k}", f"--cache_dir={tmp_path / 'cache'}"]
    plan = [
        {"arguments": arguments, "folder": "whole", "deaths": []},
        {"arguments": arguments, "folder": "chain", "deaths": DEATHS},
    ]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = [sys.executable, ROOT / "tests" / "killing.py", "plan.json"]
    run = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    whole, chain = (json.loads((tmp_path / folder / "results.json").read_text()) for folder in ("whole", "chain"))
    assert [row["stage"] for row in chain] == [row["stage"] for row in whole]
    for ours, theirs in zip(chain, whole, strict=True):
        # sums on a GPU differ in their last digit from one run to the next
        assert ours["test"] == pytest.approx(theirs["test"], abs=0.1)
    for file in (tmp_path / "whole" / "ranks").iterdir():
        assert len(pd.read_parquet(tmp_path / "chain" / "ranks" / file.name)) == 120
