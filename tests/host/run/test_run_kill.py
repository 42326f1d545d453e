"""Processes killed with SIGKILL: the run that goes on ends with the weights, metrics and tables of one never killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_stream.host.run.commands import main
from recbole_stream.reporting.results import read_results

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
ARGUMENTS = [
    "--model=STREAMRec,SASRec", "--dataset=tiny", "--text_fields=[movie_title]", "--codebook_size=32",
    "--codebook_levels=3", "--hidden_size=16", "--inner_size=16", "--n_heads=2", "--head_size=8", "--encoder_layers=1",
    "--decoder_layers=1", "--n_layers=1", "--beam_size=10", "--similar_items=5", "--reasoning_steps=2", "--epochs=3",
    "--pretrain_epochs=2", "--finetune_epochs=3", "--collect_rounds=2", "--collect_epochs=1", "--dpo_weight=0.1",
    "--reinforce_epochs=2", "--reinforce_samples=128", "--reinforce_batch_size=16", "--group_size=4", "--ema=0.9",
    "--dropout=0.1", "--train_batch_size=160", "--MAX_ITEM_LIST_LENGTH=10", "--learning_rate=0.01",
    "--matching_epochs=2", "--show_progress=False", "--gpu_id=", "--state=warning",
]  # fmt: skip

_STEP, _SASREC_STEP = ("torch.nn.utils", "clip_grad_norm_"), ("recbole.trainer.trainer", "Trainer._check_nan")
_COLLECT, _RANK = (
    ("recbole_stream.model.streamrec", "STREAMRecModel.collect"),
    ("recbole_stream.host.run.job", "rank_users"),
)
# 25 steps an epoch of STREAMRec's stages, TIGER and SASRec, but 8 of reinforcement; 7 batches a collection
DEATHS = [
    ["half", "TIGER", 2],  # in the second epoch's progress
    ["call", *_STEP, 80],  # after TIGER's last two epochs, in the second epoch of pretraining
    ["half", "stage-0", 1],  # while its progress is written
    ["call", *_COLLECT, 2],  # in the first collection
    ["renamed", "stage-1.previous", 1],  # fine-tuning: the last state has become the previous one, and none the last
    ["call", *_COLLECT, 3],  # in the second collection
    ["call", *_STEP, 30],  # in the third epoch
    ["torn", "progress/STREAMRec/seed2020-stage-1.pth"],
    ["call", *_STEP, 62],  # two epochs again, then in the second one of reinforcement
    ["call", *_STEP, 30],  # in the second epoch of the matching tower
    ["call", "recbole_stream.training.fit_views", "choose_weights", 1],
    ["call", *_RANK, 2],  # while the second stage's checkpoint is to be ranked
    ["call", *_SASREC_STEP, 30],  # RecBole's model: in the second epoch
    ["half", "SASRec-seed2020", 1],  # while its best checkpoint is written
    ["call", "recbole_stream.host.run.runner", "write_results", 1],
    ["call", "recbole_stream.host.run.runner", "write_tables", 1],  # between the results and their table
    ["call", "shutil", "rmtree", 1],  # with the tables written
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, module_tinier_ml100k):
    """The runs ``whole``, never killed, and ``chain``, killed at each of the moments above, and the twin alone as ``clock``."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = [*ARGUMENTS, f"--data_path={module_tinier_ml100k}", f"--cache_dir={folder / 'cache'}"]
    twin = ["--model=TIGER", *(option for option in arguments[1:] if not option.startswith("--n_layers"))]
    (folder / "twin.json").write_text(json.dumps(twin))
    plan = [
        {"folder": "whole", "arguments": arguments, "deaths": []},
        {"folder": "chain", "arguments": arguments, "deaths": DEATHS},
        {"folder": "clock", "arguments": [*twin, "--save_seconds=0"], "deaths": [["seconds", 1.5]] * 4},
    ]
    (folder / "plan.json").write_text(json.dumps(plan))
    script = [sys.executable, ROOT / "tests" / "killing.py", "plan.json"]
    played = subprocess.run(script, cwd=folder, capture_output=True, text=True, env=_environment())
    assert played.returncode == 0, played.stdout[-2000:] + played.stderr[-4000:]
    return folder


def _environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def assert_same(run, whole):
    """Everything but times is equal, bit for bit, and nothing lies about that the other run has not left."""

    def rows(folder):
        times = ("train_seconds", "rank_seconds_per_1000_users", "run")
        return [
            {k: v for k, v in row.items() if k not in times}
            for row in json.loads((folder / "results.json").read_text())
        ]

    def files(folder):
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    assert rows(run) == rows(whole) and len(rows(run)) == 7
    assert files(run) == files(whole)
    for name in files(whole):
        ours, theirs = run / name, whole / name
        if name.startswith("checkpoints/items-"):  # what was computed of the items, before any training
            with np.load(ours) as items, np.load(theirs) as others:
                assert all(np.array_equal(items[key], others[key]) for key in {*items, *others}), name
        elif name.startswith("checkpoints/"):
            weights, others = (torch.load(file, weights_only=False)["state_dict"] for file in (ours, theirs))
            assert weights.keys() == others.keys()
            assert all(torch.equal(value, others[key]) for key, value in weights.items()), name
        elif name.startswith("ranks/"):
            assert pd.read_parquet(ours).equals(pd.read_parquet(theirs)), name
        elif name.startswith("curves/"):
            assert curves(ours) == curves(theirs), name
        elif name.startswith("comparison"):
            assert ours.read_bytes() == theirs.read_bytes(), name


def curves(file):
    stages = json.loads(file.read_text())
    for stage in stages:
        stage["seconds"] = None
        for epoch in stage["curves"]:
            epoch.pop("seconds", None)
    return stages


def assert_same_twin(run, whole):
    """A TIGER alone has the figures and the weights that it has beside STREAMRec."""
    (row,), other = read_results(run), read_results(whole)[0]
    assert (row.model, row.test, row.valid) == (other.model, other.test, other.valid)
    (ours,), theirs = run.glob("checkpoints/TIGER-*.pth"), whole / "checkpoints/TIGER-seed2020-TIGER.pth"
    weights, others = (torch.load(file, weights_only=False)["state_dict"] for file in (ours, theirs))
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_killed_in_every_stage_and_between(folder):
    assert_same(folder / "chain", folder / "whole")
    log = (folder / "chain" / "run.log").read_text()
    assert "seed2020-stage-1.pth cannot be read (BadZipFile) and is left aside" in log
    assert not (folder / "chain" / "progress").exists()


def test_killed_by_the_clock_with_progress_after_every_batch(folder):
    assert_same_twin(folder / "clock", folder / "whole")


def test_the_command_itself_is_killed_and_goes_on(folder):
    script, run = [sys.executable, ROOT / "run_recbole.py"], folder / "command"
    process = subprocess.Popen(
        [*script, *json.loads((folder / "twin.json").read_text()), f"--output_dir={run}"],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not any((run / "progress" / "TIGER").rglob("*.pth")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "results.json").exists()
    again = subprocess.run([*script, f"--resume={run}"], cwd=folder, env=_environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-4000:]
    assert_same_twin(run, folder / "whole")
    # a finished run has nothing more to do
    before = (run / "results.json").read_bytes()
    assert main([f"--resume={run}"]) == 0
    assert (run / "results.json").read_bytes() == before
