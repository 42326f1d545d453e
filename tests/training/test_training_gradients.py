"""Every weight that a stage trains gets a gradient, in both precisions."""

import pytest
import torch
from stages import SAMPLES, STAGES

from recbole_stream.training.loop import autocast


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("stage", STAGES)
def test_every_weight_that_is_trained_gets_a_gradient(stage, precision):
    model, objective, parts = STAGES[stage]()
    model.train()
    with autocast("cpu", precision):
        loss, _ = next(objective.losses(SAMPLES.batch(torch.arange(4))))
    loss.backward()
    learnt = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt == {name for name, _ in model.named_parameters() if name.startswith(tuple(f"{p}." for p in parts))}
    assert all(p.requires_grad for name, p in model.named_parameters() if name in learnt)
    assert all(p.grad.isfinite().all() for name, p in model.named_parameters() if name in learnt)
