"""Two processes on a CPU: the run, its metrics and its checkpoint."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import recbole.quick_start
import torch
from recbole.utils import ensure_dir, get_trainer

from recbole_stream.errors import InputError
from recbole_stream.host.run.commands import main
from recbole_stream.host.run.launcher import run_distributed

ROOT = Path(__file__).parents[3]


@pytest.fixture
def keys(tiny_ml100k):
    return {
        "data_path": tiny_ml100k,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        # 9 users: the two processes evaluate 5 and 4 of them
        "val_interval": {"user_id": [str(user) for user in range(1, 10)]},
        "MAX_ITEM_LIST_LENGTH": 10,
        "hidden_size": 16,
        "inner_size": 16,
        "epochs": 2,
        "train_neg_sample_args": None,
        "train_batch_size": 512,
        "eval_batch_size": 4,
        "learning_rate": 0.01,
        "metrics": ["Recall", "NDCG", "MRR"],
        "topk": [50, 200],
        "valid_metric": "NDCG@200",
        "metric_decimal_place": 12,
        "show_progress": False,
        "state": "error",
        "gpu_id": "",
    }


def assert_is_the_exact_average(test_result):
    """The same checkpoint evaluated by one process gives the same numbers."""
    (checkpoint,) = Path("saved").glob("SASRec-*.pth")
    config, model, _, _, _, test_data = recbole.quick_start.load_data_and_model(str(checkpoint))
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    alone = trainer.evaluate(test_data, load_best_model=False)
    assert len(test_data._dataset) == 9
    # rounded to 12 places in each process, averaged in float32
    assert test_result == pytest.approx(dict(alone), rel=1e-6)
    assert alone["recall@200"] > 0


@pytest.mark.parametrize("start", ["our launcher", "stock run"])
def test_two_processes_train_and_average_over_users(keys, start):
    if start == "our launcher":
        run = run_distributed
    else:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = str(probe.getsockname()[1])
        run = functools.partial(recbole.quick_start.run, port=port)
    before = dict(keys)
    result = run("SASRec", "tiny", config_dict=keys, nproc=2)
    assert_is_the_exact_average(result["test_result"])
    if start == "our launcher":
        assert keys == before


def test_a_folder_made_by_another_process_in_between_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: False)  # as the slower process saw it
    ensure_dir(str(tmp_path))
    ensure_dir(str(tmp_path / "new"))
    assert (tmp_path / "new").is_dir()


def test_a_mistake_in_the_input_comes_back_as_one_sentence(keys):
    keys |= {"epochs": 1, "preset": "no such preset"}
    with pytest.raises(InputError, match="^preset is 'no such preset', but TIGER has only"):
        run_distributed("TIGER", "tiny", keys, nproc=2)


AVERAGE = """
import json, pathlib, torch
from recbole_stream.host.repairs.parallel import AveragedGradients

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
model = torch.nn.BatchNorm1d(2)
model.weight.data.fill_(1 + rank), model.running_mean.fill_(rank)
averaged = AveragedGradients(model)
began, gradients = [model.weight.tolist(), model.running_mean.tolist()], []
for epoch in range(2):
    averaged(torch.zeros(1))
    model.zero_grad()
    (model.weight * (10 * rank + 2)).sum().backward()
    gradients.append(model.weight.grad.tolist())
torch.distributed.destroy_process_group()
threads = [(task / "comm").read_text().strip() for task in pathlib.Path("/proc/self/task").iterdir()]
print(json.dumps([*began, gradients, [name for name in threads if "gloo" in name]]))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="names of threads are read from Linux's /proc")
def test_gradients_are_averaged_and_the_group_ends_with_its_threads():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", AVERAGE], env=os.environ | place | {"RANK": str(rank)}, stdout=subprocess.PIPE
        )
        for rank in range(2)
    ]
    for process in running:
        weight, mean, gradients, threads = json.loads(process.communicate()[0])
        assert weight == [1, 1] and mean == [0, 0]  # those of the first
        assert gradients == [[7, 7], [7, 7]]  # (2 + 12) / 2
        assert threads == []  # one that still runs may abort the process while it ends


def test_two_processes_take_the_steps_of_one(keys):
    """Each batch is shared and gradients are averaged over its samples: the same weights within rounding."""
    ours = {
        "text_fields": ["movie_title"], "codebook_size": 16, "codebook_levels": 3, "n_heads": 2, "head_size": 8,
        "encoder_layers": 1, "decoder_layers": 1, "beam_size": 200, "dropout": 0.0, "precision": "float32",
        "cache_dir": "cache", "topk": [5, 10], "valid_metric": "NDCG@10", "learning_rate": 1e-3, "warmup_steps": 0,
        "metrics": ["Recall", "NDCG", "MRR", "GAUC", "ItemCoverage"],
    }  # fmt: skip
    keys = {key: value for key, value in keys.items() if key not in ("train_batch_size",)} | ours
    together = run_distributed("TIGER", "tiny", keys | {"train_batch_size": 64, "checkpoint_dir": "two"}, nproc=2)
    alone = recbole.quick_start.run_recbole(
        model="TIGER", dataset="tiny", config_dict=keys | {"train_batch_size": 64, "checkpoint_dir": "one"}
    )
    found = dict(together["test_result"])
    (one,), (two,) = Path("one").glob("*.pth"), Path("two").glob("*.pth")
    # GAUC, of the scores of all items, and coverage, of all lists, as one process measures the same weights
    config, model, _, train_data, _, test_data = recbole.quick_start.load_data_and_model(str(two))
    trainer = get_trainer(config["MODEL_TYPE"], "TIGER")(config, model)
    trainer.eval_collector.data_collect(train_data)
    assert found == pytest.approx(dict(trainer.evaluate(test_data, load_best_model=False)), rel=1e-6)
    assert found["gauc"] > 0.3 and found["itemcoverage@10"] > 0.01
    for metric in ("recall@10", "ndcg@10", "mrr@10", "recall@5", "ndcg@5", "mrr@5"):
        assert found[metric] == pytest.approx(alone["test_result"][metric], rel=1e-6)
    weights = [torch.load(file, weights_only=False)["state_dict"] for file in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


# 3,811 samples of 29 users: the last batch of 512 has 227, of which one process takes 114 and the other 113. The preset
# has all five rewards, both decoders and the RQ-VAE; deliberation, which the paper has not, is put back.
USERS = 29
COMMAND = [
    f"--val_interval={{user_id: {[str(user) for user in range(1, USERS + 1)]}}}",
    "--dataset=tiny", "--preset=paper", "--text_fields=[movie_title]", "--codebook_size=32", "--codebook_levels=3",
    "--rq_vae_epochs=5", "--hidden_size=16", "--inner_size=16", "--n_heads=2", "--head_size=8", "--encoder_layers=1",
    "--decoder_layers=1", "--beam_size=10", "--similar_items=5", "--reasoning_steps=2", "--epochs=2",
    "--pretrain_epochs=2", "--finetune_epochs=2", "--collect_rounds=2", "--collect_epochs=1", "--dpo_weight=0.5",
    "--reinforce_epochs=2", "--reinforce_samples=70", "--reinforce_batch_size=32", "--group_size=4",
    "--reward_normalisation=each", "--train_batch_size=512", "--dropout=0", "--matching_epochs=2",
    "--matching_dropout=0", "--precision=float32", "--MAX_ITEM_LIST_LENGTH=5", "--learning_rate=0.01",
    "--show_progress=False", "--gpu_id=", "--state=warning", "--pointer_size=0",
]  # fmt: skip


# a recommender of RecBole that tells from where each of its processes draws, and for how long it waits for the others
TOLD = """
from pathlib import Path
import torch
from recbole.model.sequential_recommender import SASRec

class Told(SASRec):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        group = torch.distributed.distributed_c10d._get_default_group()
        waits = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
        Path(f"told-by-{torch.distributed.get_rank()}").write_text(f"{torch.initial_seed()} {waits}")
"""


class TestCommand:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        return tmp_path_factory.mktemp("parallel")

    @pytest.fixture(scope="class")
    def arguments(self, folder, module_tinier_ml100k):
        return [*COMMAND, f"--data_path={module_tinier_ml100k}", f"--cache_dir={folder / 'cache'}"]

    @pytest.fixture(scope="class")
    def one(self, folder, arguments):
        """The run of a single process."""
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        script = [sys.executable, ROOT / "run_recbole.py", "--model=STREAMRec", "--output_dir=one"]
        run = subprocess.run([*script, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        return folder / "one"

    @staticmethod
    def assert_equal(run, one, models=("STREAMRec", "TIGER")):
        for model in models:
            ours, theirs = (json.loads((path / "curves" / f"{model}-seed2020.json").read_text()) for path in (run, one))
            for stage, other in zip(ours, theirs, strict=True):
                assert stage["epoch"] == other["epoch"]
                for epoch, expected in zip(stage["curves"], other["curves"], strict=True):
                    for name, value in expected.items():
                        # counts within a batch are not those of its halves
                        if stage["stage"] != "RL" or not name.startswith(("distinct_", "entropy_")):
                            assert epoch[name] == pytest.approx(value, rel=1e-3, abs=1e-5), (
                                model,
                                stage["stage"],
                                name,
                            )
            for file in (one / "ranks").glob(f"{model}*"):
                assert pd.read_parquet(run / "ranks" / file.name).equals(pd.read_parquet(file))
        rows = [
            [row for row in json.loads((path / "results.json").read_text()) if row["model"] in models]
            for path in (run, one)
        ]
        assert [row["test"] for row in rows[0]] == [pytest.approx(row["test"], abs=1e-9) for row in rows[1]]

    def test_two_processes_give_the_losses_and_ranks_of_one_in_all_stages(
        self, folder, arguments, one, monkeypatch, capfd
    ):
        monkeypatch.chdir(folder)
        assert main(["--model=STREAMRec", "--nproc=2", "--output_dir=two", *arguments]) == 0
        self.assert_equal(folder / "two", one)
        assert {path.name for path in (folder / "two").iterdir()} == {path.name for path in one.iterdir()}
        assert capfd.readouterr().out.count("Written to") == 1

    @pytest.mark.long
    def test_torchrun_starts_ours_and_recboles_models(self, folder, arguments, one):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
        command = [
            ROOT / "run_recbole.py",
            "--model=TIGER,Told",
            "--plugins=told.py",
            "--n_layers=1",
            "--output_dir=three",
            *arguments,
        ]
        (folder / "told.py").write_text(TOLD)
        before = set(folder.glob("log/*/*"))
        run = subprocess.run([*start, *command], cwd=folder, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        self.assert_equal(folder / "three", one, ["TIGER"])
        ranks = pd.read_parquet(folder / "three" / "ranks" / "Told-seed2020.parquet")
        (row,) = [row for row in json.loads((folder / "three" / "results.json").read_text()) if row["model"] == "Told"]
        assert len(ranks) == ranks["user"].nunique() == USERS
        assert (ranks["rank"] <= 10).mean() == pytest.approx(row["test"]["recall@10"], abs=1e-4)
        assert run.stdout.count("Written to") == 1
        assert len(set(folder.glob("log/*/*")) - before) == 2  # one process logs each model
        told = [(folder / f"told-by-{rank}").read_text().split() for rank in range(2)]
        assert int(told[0][0]) == 2020 != int(told[1][0])  # as in stock RecBole: dropout masks of their own
        # while the first encodes a catalogue, which takes hours, the others wait
        assert min(float(seconds) for _, seconds in told) > 86400

    @pytest.mark.long
    def test_two_killed_processes_go_on(self, folder, arguments, one):
        run = folder / "killed"
        script = [sys.executable, ROOT / "run_recbole.py"]
        process = subprocess.Popen(
            [*script, "--model=STREAMRec", "--nproc=2", f"--output_dir={run}", *arguments],
            cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while not (run / "progress" / "STREAMRec" / "seed2020-stage-1.pth").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        again = subprocess.run([*script, f"--resume={run}", "--nproc=2"], cwd=folder, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr[-3000:]
        assert "was kept by" not in (run / "run.log").read_text()
        self.assert_equal(run, one)

    @pytest.mark.parametrize(
        ("more", "message"),
        [(["--nproc=0"], "nproc is 0, but must be"), (["--nproc=2", "--dropout=2"], "dropout is 2, but must be")],
    )
    def test_bad_input_is_said_once(self, more, message, capfd):
        assert main(["--model=TIGER", "--output_dir=bad", *more]) == 2
        error = capfd.readouterr().err
        assert message in error and "Traceback" not in error and error.count("Error") == 1
        assert not Path("bad").exists()
