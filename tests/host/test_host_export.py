"""What leaves a run ranks as the run did: for every test user the same ten items, whatever the row."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from recbole.utils.case_study import full_sort_topk

from recbole_stream import Recommender, export
from recbole_stream.__main__ import main
from recbole_stream.errors import InputError
from recbole_stream.host.checkpoints import load
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.run.commands import main as compare
from recbole_stream.reporting.results import read_results

ROWS = [
    ("SASRec", ""), ("TIGER", ""), ("STREAMRec", "PT"), ("STREAMRec", "SFT"), ("STREAMRec", "RL"),
    ("STREAMRec", "States"), ("STREAMRec", "Deliberation"),
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory, module_small) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    keys = [*module_small, f"--output_dir={folder / 'run'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["pytest"])
        assert compare(["--model=SASRec,STREAMRec,Caser", *keys]) == 0
    return folder / "run"


def file_of(run, model, stage):
    return run / "checkpoints" / f"{model}-seed2020{'-' + (stage or 'TIGER') if model != 'SASRec' else ''}.pth"


@pytest.mark.parametrize(("name", "stage"), ROWS)
def test_every_row_recommends_as_the_run_did(run, tmp_path, name, stage):
    model = Recommender.load(export(run, tmp_path / "MODEL", name, stage or None), "cpu")
    config, network, dataset, *_, test = load(file_of(run, name, stage), state="warning")
    network.eval()
    samples = samples_of(test._dataset)
    if name == "SASRec":
        users = test._dataset.inter_feat[dataset.uid_field].numpy()
        items = full_sort_topk(users, network, test, 10, "cpu")[1]
    else:
        items = network.rank_batch(samples.batch(torch.arange(len(samples))), 10)[0][:, :10]
    names = [[model.items[item - 1] for item in own if item] for own in samples.histories.to_dense().tolist()]
    table = model.recommend(names, 10, exclude_seen=model.leave_out_seen)
    expected = [dataset.id2token(dataset.iid_field, own).tolist() for own in items.numpy()]
    assert table.groupby("row")["item"].agg(list).tolist() == expected
    assert len(expected) > 100


def test_the_best_row_is_taken_with_what_is_known_of_it(run, tmp_path, capsys):
    assert main(["export", str(run), f"--output={tmp_path / 'MODEL'}"]) == 0
    assert "python -m recbole_stream recommend" in capsys.readouterr().out
    best = max((row for row in read_results(run) if row.final), key=lambda row: row.valid["ndcg@10"])
    model = Recommender.load(tmp_path / "MODEL", "cpu")
    assert (model.parts.config["model"], model.parts.config["stage"]) == (best.model, best.stage)
    assert f"value: {best.test['ndcg@10']:.4f}"[:11] in model.parts.card
    assert "The target is ranked among all items" in model.parts.card


def test_users_have_all_their_events(run, tmp_path, module_tiny_ml100k):
    model = Recommender.load(export(run, tmp_path / "MODEL", "TIGER"), "cpu")
    events = pd.read_csv(Path(module_tiny_ml100k) / "tiny" / "tiny.inter", sep="\t", dtype=str)
    own = events[events["user_id:token"] == "7"]
    known = [model.items[number - 1] for number in model.history_of("7")]
    assert sorted(known) == sorted(own["item_id:token"])
    last = own.loc[own["timestamp:float"].astype(float).idxmax(), "timestamp:float"]
    assert known[-1] in set(own[own["timestamp:float"] == last]["item_id:token"])
    titles = model.recommend(["7"], 5)["title"]
    assert titles.str.len().gt(0).all()


def test_users_may_stay_at_home(run, tmp_path):
    assert main(["export", str(run), f"--output={tmp_path / 'MODEL'}", "--model=TIGER", "--no-users"]) == 0
    model = Recommender.load(tmp_path / "MODEL", "cpu")
    assert len(model.recommend([[model.items[0]]], 3)) == 3
    with pytest.raises(InputError, match="knows no user '7': name one of the 0"):
        model.recommend(["7"])


def test_a_run_opens_as_its_best_row(run):
    model = Recommender.load(run, "cpu")
    table = model.recommend(["7"], 3)
    (folder,) = (run / "models").iterdir()
    assert json.loads((folder / "config.json").read_text())["stage"] == model.parts.config["stage"]
    assert Recommender.load(run, "cpu").recommend(["7"], 3).equals(table)
    shutil.rmtree(run / "models")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model=GRU4Rec"], "has no row with model GRU4Rec, but TIGER (seed 2020), SASRec (seed 2020)"),
        (["--model=STREAMRec", "--stage=XX"], "has no row with model STREAMRec, stage XX"),
        (["--seed=1"], "has no row with seed 1"),
        (["--model=Caser"], "Caser needs more than a history to rank by"),
    ],
)
def test_what_cannot_be_exported_is_named(run, tmp_path, words, sentence, capsys):
    assert main(["export", str(run), f"--output={tmp_path / 'MODEL'}", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "MODEL").exists()


def test_nothing_is_overwritten(run, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match="is there already"):
        export(run, tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        export(tmp_path, tmp_path / "MODEL")
