"""Models of a user's own in the same tables, and what is said about files that have none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recbole.config import Config
from recbole.utils import get_model, get_trainer

from recbole_stream.errors import InputError
from recbole_stream.host.configuration import known_keys
from recbole_stream.host.plugins import register_plugins
from recbole_stream.host.run.commands import main
from recbole_stream.host.trainer import TIGERTrainer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "examples" / "my_models.py"
ARGUMENTS = [
    "--model=FocalTIGER,MeanRec,SASRec", f"--plugins={EXAMPLE}", "--dataset=tiny", "--text_fields=[movie_title]",
    "--codebook_size=32", "--codebook_levels=3", "--hidden_size=16", "--inner_size=16", "--n_heads=2", "--head_size=8",
    "--encoder_layers=1", "--decoder_layers=1", "--n_layers=1", "--beam_size=10", "--epochs=1", "--gamma=1.5",
    "--train_batch_size=512", "--show_progress=False", "--gpu_id=", "--state=warning",
]  # fmt: skip


def test_the_example_is_as_short_as_it_is_said_to_be():
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_own_models_stand_in_the_table_of_the_command(tiny_ml100k, tmp_path):
    script = [sys.executable, ROOT / "run_recbole.py"]
    data = [f"--data_path={tiny_ml100k}", f"--cache_dir={tmp_path / 'cache'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*script, *ARGUMENTS, *data, "--output_dir=out"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr[-3000:]
    focal, mean, sasrec = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["model"] for row in (focal, mean, sasrec)] == ["FocalTIGER", "MeanRec", "SASRec"]
    assert all(set(row["test"]) == {"recall@5", "recall@10", "ndcg@5", "ndcg@10"} for row in (focal, mean, sasrec))
    configuration = focal["run"]["configuration"]
    # the command's key, TIGER's, and its own
    assert (configuration["hidden_size"], configuration["temperature"], configuration["gamma"]) == (16, 1.0, 1.5)
    assert mean["parameters"] == 32 * mean_items(tmp_path)
    (curves,) = json.loads((tmp_path / "out" / "curves" / "FocalTIGER-seed2020.json").read_text())
    assert 0 < curves["curves"][0]["sure"] < 1
    assert "FocalTIGER" in run.stdout and "MeanRec" in run.stdout

    # resumed, the run knows its files by itself
    (tmp_path / "out" / "results.json").unlink()
    again = subprocess.run([*script, "--resume=out"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["test"] for row in rows] == [focal["test"], mean["test"], sasrec["test"]]


def mean_items(tmp_path):
    """Items with an interaction, and the padding."""
    lines = (tmp_path / "data" / "tiny" / "tiny.inter").read_text().splitlines()[1:]
    return len({line.split("\t")[1] for line in lines}) + 1


def test_stock_configurations_find_them_and_their_keys():
    config = Config("FocalTIGER", "ml-100k", config_dict={"plugins": [str(EXAMPLE)]})
    assert (config["gamma"], config["beam_size"]) == (2.0, 50)
    assert get_trainer(config["MODEL_TYPE"], "FocalTIGER") is TIGERTrainer
    assert get_model("MeanRec").__module__ == "my_models"
    assert "gamma" in known_keys("FocalTIGER") and "gamma" not in known_keys("TIGER")
    with pytest.raises(InputError, match="^dropout is 2, but must be"):
        Config("FocalTIGER", "ml-100k", config_dict={"plugins": [str(EXAMPLE)], "dropout": 2})


def test_a_model_inherits_the_keys_and_has_the_trainer_beside_it(tmp_path):
    (tmp_path / "derived.py").write_text(
        "from recbole.model.sequential_recommender.gru4rec import GRU4Rec\n"
        "from recbole.trainer import Trainer\n"
        "class DeepGRU(GRU4Rec): pass\n"
        "class DeepGRUTrainer(Trainer): pass\n"
    )
    (tmp_path / "DeepGRU.yaml").write_text("num_layers: 3\n")
    config = Config("DeepGRU", "ml-100k", config_dict={"plugins": ["derived.py"], "train_neg_sample_args": None})
    # RecBole's GRU4Rec.yaml has 128 and 1 layer
    assert (config["hidden_size"], config["num_layers"]) == (128, 3)
    assert get_trainer(config["MODEL_TYPE"], "DeepGRU").__module__ == "derived"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("gone", None, "There is no file"),
        ("broken", "import nothing_of_the_kind\n", "cannot be imported (ModuleNotFoundError"),
        ("torn", "class\n", "cannot be imported (SyntaxError"),
        ("empty", "class MyModel: pass\n", "has no model: derive a class from TIGER"),
        ("imports", "from recbole_stream.host.models import TIGER\n", "has no model: derive a class from TIGER"),
        ("taken", "from recbole_stream.host.models import TIGER as T\nclass SASRec(T): pass\n", "calls a model SASRec"),
        ("cased", "from recbole_stream.host.models import TIGER as T\nclass Sasrec(T): pass\n", "calls a model Sasrec"),
        ("json", "", "which is another module: rename the file"),
    ],
)
def test_a_file_of_no_use_is_one_sentence(tmp_path, capsys, name, code, message):
    if code is not None:
        (tmp_path / f"{name}.py").write_text(code)
    assert main(["--model=MyModel", f"--plugins={name}.py", "--output_dir=out"]) == 2
    error = capsys.readouterr().err
    assert message in error and f"{name}.py" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_model_that_is_not_in_the_file_is_one_sentence(capsys):
    assert main(["--model=MyModel", f"--plugins={EXAMPLE}"]) == 2
    assert "There is no model 'MyModel': STREAMRec, TIGER and RecBole's models and those of" in capsys.readouterr().err


def test_two_files_of_one_name_are_told_apart(tmp_path):
    register_plugins([str(EXAMPLE)])
    shutil.copy(EXAMPLE, tmp_path / "my_models.py")
    with pytest.raises(InputError, match="which is another module: rename the file"):
        register_plugins([str(tmp_path / "my_models.py")])
