"""What several processes draw at random, alike and each for itself."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

# Dropout masks and draws of two epochs of two batches of 5 samples, and those of the second epoch once more after a kill
# at the end of the first.
STAGE = """
import shutil, sys
from pathlib import Path
import torch
from torch import nn
from recbole_stream.data.samples import Samples
from recbole_stream.training.checkpoint import Progress
from recbole_stream.training.loop import Objective, StageContext, train_stage
from recbole_stream.training.processes import process_index
from recbole_stream.training.schedule import Schedule

class Draws(Objective):
    name = "draws"

    def __init__(self):
        self.model, self.drawn = nn.Linear(1, 1), []

    def losses(self, batch):
        mask = nn.functional.dropout(torch.ones(64), 0.5)
        self.drawn.append((mask, batch.rows, batch.uniform(3)))
        yield self.model.weight.sum(), {}

def train(file, keep=lambda *_: None):
    objective = Draws()
    samples = Samples(torch.ones(10, 1, dtype=torch.long), torch.ones(10, dtype=torch.long), torch.arange(10))
    schedule = Schedule(epochs=2, learning_rate=0.1, batch_size=5, seed=7)
    context = StageContext(lambda: {"ndcg": 0.0}, "ndcg", progress=Progress(file), on_epoch=keep, show_progress=False)
    train_stage(objective.model, objective, schedule, samples, context)
    return objective.drawn

def keep(epoch, _):
    if epoch == 0 and process_index() == 0:
        shutil.copy("whole.pth", "killed.pth")

if len(sys.argv) > 1:
    torch.distributed.init_process_group("gloo")
drawn = train("whole.pth", keep)
again = train("killed.pth")
torch.save([drawn, again], f"drawn-{process_index()}.pth")
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """What one process draws, and what each of two does: (uninterrupted, taken up) of each."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    place |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([sys.executable, "-c", STAGE], cwd=one, env=os.environ | place)]
    for rank in range(2):
        environment = os.environ | place | {"RANK": str(rank)}
        running.append(subprocess.Popen([sys.executable, "-c", STAGE, "together"], cwd=two, env=environment))
    assert [process.wait() for process in running] == [0, 0, 0]
    return [torch.load(file) for file in (one / "drawn-0.pth", two / "drawn-0.pth", two / "drawn-1.pth")]


def test_processes_drop_other_units(drawn):
    masks = [[mask for mask, _, _ in uninterrupted] for uninterrupted, _ in drawn]
    for first, second in zip(masks[1], masks[2], strict=True):
        assert 0.25 < (first == second).float().mean() < 0.75
    flat = {tuple(mask.tolist()) for some in masks[1:] for mask in some}
    assert len(flat) == 8  # two processes, four batches


def test_processes_draw_for_a_batch_what_one_process_draws(drawn):
    (one, _), (first, _), (second, _) = drawn
    for (_, rows, whole), (_, some, part), (_, others, other) in zip(one, first, second, strict=True):
        assert (len(some), len(others)) == (3, 2)
        assert torch.equal(rows[0::2], some)
        assert torch.equal(rows[1::2], others)
        assert torch.equal(whole[0::2], part) and torch.equal(whole[1::2], other)


def test_a_process_that_goes_on_draws_what_it_would_have(drawn):
    for uninterrupted, again in drawn:
        assert len(uninterrupted) == 4 and len(again) == 2
        for expected, got in zip(uninterrupted[2:], again, strict=True):
            assert all(torch.equal(e, g) for e, g in zip(expected, got, strict=True))
