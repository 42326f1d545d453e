"""Sweeps under the real Ray: as a command, killed and resumed, on a cluster that loses a machine."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml

from recbole_stream.host.run.commands import main as run_recbole
from recbole_stream.host.tuning.space import Trial, best_trial, read_trial, write_trial
from recbole_stream.host.tuning.trial import Sweep, read_sweep, run_trial


def old_ray() -> bool:
    try:
        return tuple(map(int, metadata.version("ray").split(".")[:2])) < (2, 43)
    except metadata.PackageNotFoundError:
        return False  # which the marker is for


pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(old_ray(), reason="Ray is older than 2.43"),
]

SCRIPT = Path(__file__).parents[3] / "run_hyper.py"
SASREC = ["--model=SASRec", "--hidden_size=16", "--inner_size=16", "--n_layers=1"]
TIGER = ["--model=TIGER", "--text_fields=[movie_title]", "--codebook_size=32", "--codebook_levels=3", "--hidden_size=16",
         "--inner_size=32", "--n_heads=2", "--head_size=8", "--encoder_layers=1", "--decoder_layers=1",
         "--beam_size=10"]  # fmt: skip


def start(arguments: list[str], script: Path = SCRIPT) -> subprocess.Popen:
    """The command as a user types it, in a process of its own whose folder is not the project's."""
    with open("log.txt", "w") as file:
        return subprocess.Popen([sys.executable, script, *arguments], stdout=file, stderr=subprocess.STDOUT)


def wait_until(what: Callable[[], object], sweep: subprocess.Popen, seconds: float = 240) -> None:
    """Poll until ``what`` holds; the sweep must be running all the while."""
    end = time.monotonic() + seconds
    while not what():
        assert sweep.poll() is None and time.monotonic() < end, Path("log.txt").read_text()
        time.sleep(0.05)


def lines(trial: str) -> int:
    file = Path(f"out/trials/{trial}/epochs.jsonl")
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_a_sweep_with_a_trial_that_fails_ends_with_table_picture_and_best(tiny_ml100k):
    Path("space.yaml").write_text("n_heads: {choice: [2, 3]}\nlearning_rate: {loguniform: [1e-3, 1e-2]}")
    data = ["--dataset=tiny", f"--data_path={os.path.relpath(tiny_ml100k)}", "--epochs=2"]
    # with seed 7 the draws are 3 and 2 heads, of which only 2 divide a width of 16
    sweep = start([*SASREC, *data, "--space=space.yaml", "--trials=2", "--seed=7", "--output_dir=out"])
    assert sweep.wait(400) == 0, Path("log.txt").read_text()
    failed, finished = (read_trial(Path(f"out/trials/{number}")) for number in ("001", "002"))
    assert (failed.state, failed.parameters["n_heads"]) == ("failed", 3)
    assert "not a multiple of the number of attention heads" in failed.error
    assert (finished.state, finished.parameters["n_heads"]) == ("finished", 2)
    assert [line["epoch"] for line in finished.epochs] == [1, 2]
    assert Path("out/trials/002", finished.checkpoint).is_file()
    # a worker writes into its trial's folder, not into ours
    assert {path.name for path in Path().iterdir()} == {"data", "space.yaml", "log.txt", "out"}

    printed = Path("log.txt").read_text()
    assert "trial 1 of 2 failed" in printed and "trial 2 of 2 finished" in printed and "Traceback" not in printed
    assert "Trial 1 failed" in Path("out/trials.md").read_text()
    assert [row["state"] for row in csv.DictReader(open("out/trials.csv"))] == ["failed", "finished"]
    assert Path("out/search.png").stat().st_size > 10_000

    best = yaml.safe_load(Path("out/best.yaml").read_text())
    assert best == {"hidden_size": 16, "inner_size": 16, "n_layers": 1, "epochs": 2, "seed": 7} | finished.parameters
    arguments = ["--model=SASRec", "--dataset=tiny", f"--data_path={tiny_ml100k}", "--config_files=out/best.yaml"]
    assert run_recbole([*arguments, "--output_dir=run", "--use_gpu=False", "--show_progress=False"]) == 0
    (row,) = json.loads(Path("run/results.json").read_text())
    assert row["run"]["configuration"]["learning_rate"] == finished.parameters["learning_rate"]
    assert row["valid"] == pytest.approx(finished.valid, abs=1e-5)  # the same training again


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(tiny_ml100k):
    Path("space.yaml").write_text("dropout: {choice: [0.1, 0.2]}\nlearning_rate: {loguniform: [1e-3, 1e-2]}")
    keys = ["--dataset=tiny", f"--data_path={tiny_ml100k}", "--epochs=4", "--scheduler=none"]
    alone = f"--cpus-per-trial={os.cpu_count()}"  # one trial at a time
    sweep = start([*TIGER, *keys, "--space=space.yaml", "--trials=2", alone, "--output_dir=out"])
    wait_until(lambda: lines("002") >= 1, sweep)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    first, second = (read_trial(Path(f"out/trials/{number}")) for number in ("001", "002"))
    assert first.state == "finished" and second.state == "running"

    # a trial more than before
    assert start(["--resume=out", "--trials=3"]).wait(400) == 0, Path("log.txt").read_text()
    assert read_trial(Path("out/trials/001")) == first  # left alone
    resumed = read_trial(Path("out/trials/002"))
    assert resumed.state == "finished" and len(resumed.nodes) == 2 and resumed.parameters == second.parameters
    assert [line["epoch"] for line in resumed.epochs] == [1, 2, 3, 4]
    assert resumed.epochs[0] == second.epochs[0]  # taken up, not trained again
    assert read_trial(Path("out/trials/003")).state == "finished"
    assert "Trial" in Path("out/trials.md").read_text() and Path("out/best.yaml").is_file()

    # it ended as a trial that nobody killed
    whole = Sweep(**vars(read_sweep(Path("out"))) | {"folder": Path("whole").resolve()})
    whole.write()
    write_trial(whole.trial_folder(2), Trial(2, second.parameters))
    run_trial(whole, 2, "here", lambda line: None)
    assert [line["valid"] for line in read_trial(whole.trial_folder(2)).epochs] == [
        line["valid"] for line in resumed.epochs
    ]


@pytest.mark.slow
def test_a_cluster_that_loses_a_machine_ends_its_sweep(tiny_ml100k):
    from ray.cluster_utils import Cluster

    # each of two machines has room for one trial
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        Path("space.yaml").write_text("dropout: {choice: [0.1, 0.2]}")
        keys = ["--dataset=tiny", f"--data_path={tiny_ml100k}", "--epochs=5", "--scheduler=none"]
        sweep = start(
            [*TIGER, *keys, "--space=space.yaml", "--trials=3", f"--address={cluster.address}", "--output_dir=out"]
        )

        def lost() -> list[str]:
            """The trials that have validated on the other machine and are not at their end."""
            running = [folder.name for folder in Path("out/trials").glob("*") if 1 <= lines(folder.name) < 4]
            return [name for name in running if read_trial(Path("out/trials", name)).nodes == [other.node_id[:8]]]

        wait_until(lost, sweep)
        (name,) = lost()
        cluster.remove_node(other, allow_graceful=False)
        assert sweep.wait(400) == 0, Path("log.txt").read_text()
    finally:
        cluster.shutdown()
    trials = [read_trial(Path(f"out/trials/{number}")) for number in ("001", "002", "003")]
    assert [trial.state for trial in trials] == ["finished"] * 3
    struck = next(trial for trial in trials if f"{trial.number:03d}" == name)
    assert len(struck.nodes) == 2 and struck.nodes[0] == other.node_id[:8] != struck.nodes[1]
    assert all([line["epoch"] for line in trial.epochs] == [1, 2, 3, 4, 5] for trial in trials)
    assert f"trial {struck.number} lost its worker and starts again" in Path("log.txt").read_text()


@pytest.mark.slow
def test_models_and_seeds_train_on_a_cluster_that_loses_a_machine(tiny_ml100k):
    from ray.cluster_utils import Cluster

    data = [
        "--dataset=tiny",
        f"--data_path={os.path.relpath(tiny_ml100k)}",
        "--cache_dir=cache",
        "--show_progress=False",
    ]
    keys = [*TIGER[1:], "--model=TIGER,SASRec", "--seeds=1,2", "--epochs=4", "--n_layers=1", "--use_gpu=False", *data]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        run = start(
            [*keys, f"--address={cluster.address}", "--output_dir=out"], script=SCRIPT.with_name("run_recbole.py")
        )
        # two trainings are under way, one on each machine
        wait_until(lambda: len(list(Path("out").glob("progress/*/*.pth"))) >= 2, run)
        cluster.remove_node(other, allow_graceful=False)
        assert run.wait(400) == 0, Path("log.txt").read_text()
    finally:
        cluster.shutdown()
    rows = json.loads(Path("out/results.json").read_text())
    assert [(row["model"], row["seed"]) for row in rows] == [("TIGER", 1), ("TIGER", 2), ("SASRec", 1), ("SASRec", 2)]
    assert Path("out/table.md").is_file() and Path("out/report.html").is_file()
    assert "resumed after" in Path("out/run.log").read_text()  # on the other machine

    # the same figures as without a cluster; sums over several threads round otherwise
    torch.set_num_threads(1)
    assert run_recbole([*keys, "--output_dir=alone"]) == 0
    for there, here in zip(rows, json.loads(Path("alone/results.json").read_text()), strict=True):
        assert (there["test"], there["valid"]) == (here["test"], here["valid"])


# -- search and scheduler, which need Ray but no sweep -----------------------


def settings(folder: Path, **changes) -> Sweep:
    sweep = Sweep(folder=folder, command=[], model="TIGER", dataset="tiny", keys={},
                  space={"dropout": {"choice": [0.1, 0.2]}, "learning_rate": {"loguniform": [1e-4, 1e-2]},
                         "n_layers": {"randint": [1, 2]}, "temperature": {"quniform": [0.2, 0.8, 0.2]}},
                  trials=6, seed=5, search="hyperopt", scheduler="asha", cpus=1, gpus=0, metric="ndcg@10", bigger=True,
                  max_epochs=18)  # fmt: skip
    return Sweep(**vars(sweep) | changes)


def finish(sweep: Sweep, number: int, values: list[float], state: str = "finished") -> None:
    folder = sweep.trial_folder(number)
    trial = read_trial(folder)
    trial.state = state
    write_trial(folder, trial)
    rows = [{"epoch": epoch, "valid": valid, "seconds": 1.0} for epoch, valid in enumerate(values, start=1)]
    (folder / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("kind", ["random", "hyperopt"])
def test_a_resumed_search_repeats_the_open_trials_and_then_goes_on(kind, tmp_path):
    if kind == "hyperopt":
        pytest.importorskip("hyperopt", reason="hyperopt is not installed")
    from ray.tune.search import Searcher

    from recbole_stream.host.tuning.ray import _Search

    sweep = settings(tmp_path, search=kind)
    search = _Search(sweep, [])
    for ray_id in "abc":
        search.suggest(ray_id)
    finish(sweep, 1, [0.1, 0.3])
    search.on_trial_complete("a", {"valid": 0.3})
    finish(sweep, 3, [], "failed")
    search.on_trial_complete("c", error=True)
    before = sweep.read_trials()
    for trial in before:
        assert trial.parameters["dropout"] in (0.1, 0.2) and 1e-4 <= trial.parameters["learning_rate"] <= 1e-2
        assert trial.parameters["n_layers"] in (1, 2) and list(trial.parameters) == list(sweep.space)
        assert trial.parameters["temperature"] in (0.2, 0.4, 0.6, 0.8)

    resumed = _Search(sweep, sweep.read_trials())
    assert resumed.waiting == [2, 4, 5, 6]
    assert [resumed.suggest(ray_id)["trial"] for ray_id in "xyzw"] == [2, 4, 5, 6]
    assert resumed.suggest("v") == Searcher.FINISHED
    after = sweep.read_trials()
    assert [trial.parameters for trial in after[:3]] == [trial.parameters for trial in before]
    assert len({trial.parameters["learning_rate"] for trial in after}) == 6
    if kind == "hyperopt":
        from hyperopt.base import JOB_STATE_DONE, JOB_STATE_ERROR, JOB_STATE_NEW

        # it knows what trial 1 gave (it minimises the negative) and that trial 3 failed
        entries = resumed.advisor._hpopt_trials._dynamic_trials[:3]  # those that failed included
        outcomes = {(entry["state"], entry["result"].get("loss")) for entry in entries}
        assert outcomes == {(JOB_STATE_DONE, -0.3), (JOB_STATE_NEW, None), (JOB_STATE_ERROR, None)}


def test_a_resumed_scheduler_measures_by_the_trials_before(tmp_path):
    from ray.tune.experiment import Trial as RayTrial
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    from recbole_stream.host.tuning.ray import _scheduler

    sweep = settings(tmp_path)
    for number, value in enumerate((0.1, 0.2, 0.3), start=1):
        write_trial(sweep.trial_folder(number), Trial(number, {}))
        finish(sweep, number, [value] * 18)
    known = sweep.read_trials()
    assert best_trial(known, True).number == 3
    asha = _scheduler(sweep, known)

    def decide(name: str, epoch: int, valid: float) -> str:
        trial = RayTrial("t", trial_id=name, stub=True)
        asha.on_trial_add(None, trial)
        return asha.on_trial_result(None, trial, {"epoch": epoch, "valid": valid})

    # 18 epochs: rungs at 2 and 6. The best third of 0.1, 0.2, 0.3 begins at 0.1 + (0.3 - 0.1) * 2/3 = 0.233
    assert decide("early", 1, 0.0) == TrialScheduler.CONTINUE
    assert decide("good", 2, 0.25) == TrialScheduler.CONTINUE
    assert decide("bad", 6, 0.2) == TrialScheduler.STOP
    # at the end there is no rung: who gets there has finished
    assert asha.on_trial_result(None, _added(asha, "last"), {"epoch": 2, "valid": 0.5}) == TrialScheduler.CONTINUE
    assert isinstance(_scheduler(settings(tmp_path, scheduler="none"), known), FIFOScheduler)
    assert isinstance(_scheduler(settings(tmp_path, max_epochs=1), known), FIFOScheduler)


def _added(asha, name: str):
    from ray.tune.experiment import Trial as RayTrial

    trial = RayTrial("t", trial_id=name, stub=True)
    asha.on_trial_add(None, trial)
    return trial


@pytest.mark.parametrize(
    ("machines", "cpus", "gpus", "message"),
    [
        ([{"CPU": 2}, {"CPU": 4}], 8, 0, "--cpus-per-trial is 8, but no machine has more than 4 CPUs."),
        ([{"CPU": 2}], 1, 1, "--gpus-per-trial is 1, but no machine has more than 0 GPUs."),
        ([{"CPU": 8}, {"CPU": 1, "GPU": 1}], 4, 1, "No machine has 4 CPUs and 1 GPUs, which a trial asks for."),
    ],
)
def test_a_trial_that_fits_on_no_machine_is_refused(machines, cpus, gpus, message):
    from recbole_stream.cluster import check_resources
    from recbole_stream.errors import InputError

    with pytest.raises(InputError) as caught:
        check_resources(machines, cpus, gpus)
    assert str(caught.value) == message
    check_resources([{"CPU": 8, "GPU": 1}, *machines], cpus, gpus)


def test_an_address_where_no_cluster_answers_is_told(tiny_ml100k):
    Path("space.yaml").write_text("dropout: {choice: [0.1, 0.2]}")
    keys = [*TIGER, "--dataset=tiny", f"--data_path={tiny_ml100k}", "--space=space.yaml", "--output_dir=out"]
    assert start([*keys, "--address=auto"]).wait(200) == 2
    printed = Path("log.txt").read_text()
    assert "Error: No Ray cluster answers at auto" in printed and "Traceback" not in printed
    assert not Path("out").exists()
