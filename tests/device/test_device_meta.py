"""A step of every stage on the device "meta", whose tensors have no values: what it cannot do, a GPU does late or not at all.

A step that reads a value would make the host wait for the GPU, and fails here. So does one that mixes tensors of two
devices.
"""

import contextlib

import pytest
import torch
from stages import SAMPLES, STAGES
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recbole_stream.data.samples import Samples
from recbole_stream.training.finetune import trace_statistics
from recbole_stream.training.loop import Objective
from recbole_stream.training.schedule import WeightAverage


class OneDevice(TorchDispatchMode):
    """Refuses operators on tensors of several devices, but for copies between them and for CPU scalars."""

    def __torch_dispatch__(self, operator, types, arguments=(), named=None):
        tensors = [leaf for leaf in tree_leaves((arguments, named)) if isinstance(leaf, Tensor) and leaf.dim()]
        if "copy" not in operator.name() and len({tensor.device.type for tensor in tensors}) > 1:
            raise AssertionError(f"{operator} is given tensors on {[tensor.device.type for tensor in tensors]}")
        return operator(*arguments, **(named or {}))


def to_meta(objective: Objective) -> None:
    for name, value in vars(objective).items():
        if isinstance(value, (nn.Module, Tensor, Samples)):
            setattr(objective, name, value.to("meta"))


@pytest.fixture
def _without_autocast(monkeypatch):
    """Autocast knows no "meta"; where it is switched off, nothing has to be done."""
    stock = torch.autocast

    def autocast(device_type, *arguments, **named):
        return contextlib.nullcontext() if device_type == "meta" else stock(device_type, *arguments, **named)

    monkeypatch.setattr(torch, "autocast", autocast)


@pytest.mark.usefixtures("_without_autocast")
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_reads_no_value_and_leaves_no_tensor_on_the_cpu(stage):
    model, objective, _ = STAGES[stage]()
    model.to("meta"), to_meta(objective)
    parameters = [p for p in model.train().parameters() if p.requires_grad]
    optimizer, average = torch.optim.AdamW(parameters), WeightAverage(parameters, 0.9)
    batch = SAMPLES.to("meta").batch(torch.arange(4))
    with OneDevice():
        loss, scalars = next(objective.losses(batch))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update()
    assert {value.device.type for value in (loss, norm, *scalars.values())} == {"meta"}


def test_the_modes_notice_a_value_that_is_read_and_a_tensor_that_was_left():
    with OneDevice():
        with pytest.raises(RuntimeError, match="meta"):
            torch.zeros(2, device="meta").sum().item()
        with pytest.raises(AssertionError, match="is given tensors on"):
            torch.zeros(5, 2)[torch.zeros(3, dtype=torch.long, device="meta")]


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_taken_up_lies_on_the_models_device(stage):
    model, objective, _ = STAGES[stage]()
    state = objective.state_dict()  # on the CPU, as a file's is
    to_meta(objective)
    objective.load_state_dict(state)
    tensors = [value for value in vars(objective).values() if isinstance(value, Tensor)]
    assert {tensor.device.type for tensor in tensors} <= {"meta"}


@pytest.mark.parametrize("steps, tokens", [(1, 3), (4, 3), (12, 40)])
def test_statistics_of_traces_are_those_of_the_operators_that_wait(steps, tokens):
    traces = torch.randint(tokens, (200, steps), generator=torch.Generator().manual_seed(steps))
    scalars = trace_statistics(traces, 2**20)
    assert scalars["distinct_traces"] == len(torch.unique(traces, dim=0))
    for step in range(steps):
        share = torch.bincount(traces[:, step]) / 200
        assert scalars[f"distinct_{step + 1}"] == (share > 0).sum()
        assert scalars[f"entropy_{step + 1}"].item() == pytest.approx(-(share * share.log()).nansum().item(), rel=1e-5)
