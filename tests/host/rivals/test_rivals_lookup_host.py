"""LookUp through the command line: rows, ranks, resume, its rule on repeats, and its keys."""

import json
from pathlib import Path

import pytest
from recbole.config import Config
from recbole.quick_start import load_data_and_model

from recbole_stream.errors import InputError
from recbole_stream.host.configuration import known_keys
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.recommend import recommend
from recbole_stream.host.run.commands import main
from recbole_stream.reporting.ranks import read_ranks
from tests.cases import write_case

QUIET = ["--show_progress=False", "--use_gpu=False"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lookup")
    arguments = ["--model=LookUp", "--dataset=toy", f"--data_path={write_case(folder / 'data', 'toy')}", *QUIET]
    assert main([*arguments, f"--cache_dir={folder / 'cache'}", f"--output_dir={folder / 'out'}"]) == 0
    return folder / "out"


def test_it_stands_in_the_table_like_any_model(run):
    (row,) = json.loads((run / "results.json").read_text())
    assert (row["model"], row["stage"], row["parameters"], row["final"]) == ("LookUp", "", 2, True)
    # users walk along a ring of 30 items: neighbours of the latest item follow it
    assert row["test"]["recall@10"] > 0.5 and row["valid"]["recall@10"] > 0.5
    assert row["run"]["encoder"]["dimension"] == 384
    assert (run / "report.html").is_file() and not (run / "semantic_ids.tsv").exists()


def test_a_resumed_run_says_the_same_and_ranks_are_kept(run):
    before = json.loads((run / "results.json").read_text())
    (run / "results.json").unlink()
    assert main([f"--resume={run}"]) == 0
    (row,) = json.loads((run / "results.json").read_text())
    assert (row["test"], row["valid"]) == (before[0]["test"], before[0]["valid"])
    hits = read_ranks(run, "LookUp", "", row["seed"])["rank"].notna()  # kept down to the largest cut-off, 10
    assert hits.mean() == pytest.approx(row["test"]["recall@10"], abs=1e-4)


def test_what_the_history_holds_is_not_recommended(run):
    (checkpoint,) = (run / "checkpoints").glob("*.pth")
    _, model, _, _, _, test = load_data_and_model(str(checkpoint))
    samples = samples_of(test._dataset)
    items = model.rank_batch(samples.batch(samples.lengths.argsort()), 10)[0]
    histories = samples.histories[samples.lengths.argsort()]
    assert not (items[:, :, None] == histories[:, None]).any()
    assert len(recommend(checkpoint, ["u00"], 3)) == 3


def test_a_misspelt_key_and_a_key_of_another_model_are_refused(tmp_path):
    data = ["--dataset=toy", f"--data_path={write_case(tmp_path / 'data', 'toy')}"]
    for key, message in (
        ("text_wieght=1", "did you mean 'text_weight'"),
        ("reasoning_steps=2", "belongs to STREAMRec"),
    ):
        with pytest.raises(InputError, match=message):
            Config("LookUp", "toy", config_dict={key.split("=")[0]: 1})
        assert main(["--model=LookUp", *data, f"--{key}"]) == 2
    with pytest.raises(InputError, match="text_weight is -1, but must be a number of at least 0"):
        Config("LookUp", "toy", config_dict={"text_weight": -1})
    assert "text_weight" not in known_keys("STREAMRec") | known_keys("TIGER") | known_keys("SASRec")


def test_without_a_weight_no_text_is_read(tmp_path):
    data = write_case(tmp_path / "data", "toy")
    Path(data, "toy", "toy.item").unlink()
    arguments = [
        "--model=LookUp",
        "--dataset=toy",
        f"--data_path={data}",
        *QUIET,
        "--text_weight=0",
        "--output_dir=out",
    ]
    assert main(arguments) == 0
    (row,) = json.loads(Path("out/results.json").read_text())
    assert row["run"]["encoder"] == {"encoder": None} and row["test"]["recall@10"] > 0.5
