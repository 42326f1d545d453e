"""The stock RecBole finds our models, trainers, datasets and YAML files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import recbole.data.dataset
import recbole.trainer
from recbole.config import Config
from recbole.utils import get_model, get_trainer

from recbole_stream.errors import InputError
from recbole_stream.host.registration import check_recbole, installed_recbole, register

# A script that knows stock RecBole and one import
STOCK = """
import json, sys
import recbole_stream
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils.case_study import full_sort_scores, full_sort_topk

keys = json.loads(sys.stdin.read())
result = run_recbole(model=keys["model"], dataset="tiny", config_dict=keys)
import glob
checkpoint = sorted(glob.glob("saved/*.pth"))[-1]
config, model, dataset, train, valid, test = load_data_and_model(checkpoint)
users = dataset.token2id("user_id", ["1", "2", "3"])
scores, items = full_sort_topk(users, model, test, k=5)
every = full_sort_scores(users, model, test)
print(json.dumps({
    "classes": [type(entry).__name__ for entry in (model, dataset)],
    "valid": dict(result["best_valid_result"]),
    "test": dict(result["test_result"]),
    "items": items.tolist(),
    "sorted": bool((scores.diff(dim=1) <= 0).all()),
    "shape": list(every.shape),
    "n_items": dataset.item_num,
}))
"""

TINY_STAGES = {
    "pretrain_epochs": 1,
    "finetune_epochs": 1,
    "reinforce_epochs": 1,
    "matching_epochs": 1,
    "pointer_size": 0,
    "reinforce_samples": 32,
}


def test_classes_are_found_by_name():
    for name in ("TIGER", "STREAMRec"):
        model = get_model(name)
        assert (model.__module__, model.__name__) == ("recbole_stream.host.models", name)
        trainer = get_trainer(model.type, name)
        assert (trainer.__module__, trainer.__name__) == ("recbole_stream.host.trainer", f"{name}Trainer")
        assert issubclass(getattr(recbole.data.dataset, f"{name}Dataset"), recbole.data.dataset.SequentialDataset)
    assert get_trainer(get_model("Pop").type, "Pop") is recbole.trainer.TraditionalTrainer


def test_registering_again_changes_nothing():
    before = Config._load_internal_config_dict, recbole.trainer.Trainer.evaluate
    register()
    assert (Config._load_internal_config_dict, recbole.trainer.Trainer.evaluate) == before


@pytest.mark.parametrize(
    ("version", "begin"),
    [("1.2.0", "RecBole 1.2.0 is installed, but only 1.2.1"), (None, "RecBole is not installed")],
)
def test_another_recbole_or_none_stops_with_the_command_that_helps(version, begin):
    with pytest.raises(InputError) as caught:
        check_recbole(version)
    assert str(caught.value).startswith(begin)
    assert "`pip install --no-deps recbole==1.2.1`" in str(caught.value)
    assert "-r requirements.txt" in str(caught.value)


def test_the_installed_recbole_is_looked_up_without_importing_it():
    check_recbole(installed_recbole())
    code = "import importlib.metadata as metadata\nmetadata.version = lambda name: '1.1.1'\nimport recbole_stream\n"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "RecBole 1.1.1 is installed" in result.stderr.splitlines()[-1]


# -- configuration --


def configure(model, dataset="amazon-scientific-2018", **keys):
    if model == "SASRec":
        keys["train_neg_sample_args"] = None
    return Config(model=model, dataset=dataset, config_dict=keys)


def test_a_stock_model_keeps_recboles_description_of_its_own_data_set():
    """RecBole's ml-100k.yaml scales timestamps; ours does not, and rules only where our models run."""
    assert configure("SASRec", "ml-100k")["normalize_all"] is True
    assert configure("SASRec", "ml-100k")["MAX_ITEM_LIST_LENGTH"] == 50
    assert configure("TIGER", "ml-100k")["normalize_all"] is False
    assert configure("TIGER", "ml-100k")["MAX_ITEM_LIST_LENGTH"] == 20


@pytest.mark.parametrize("model", ["SASRec", "TIGER"])
def test_data_set_yaml_holds_for_every_model(model):
    config = configure(model)
    assert config["text_fields"] == ["text"]
    assert config["MAX_ITEM_LIST_LENGTH"] == 20


def test_the_user_overrides_our_yaml_and_ours_overrides_recboles(tmp_path, monkeypatch):
    file = tmp_path / "mine.yaml"
    file.write_text("beam_size: 61\ncodebook_size: 7\ndropout: 0.3\n")
    monkeypatch.setattr(sys, "argv", ["run.py", "--dropout=0.4"])
    config = Config("TIGER", "ml-100k", config_file_list=[str(file)], config_dict={"codebook_size": 8})
    assert [config[key] for key in ("beam_size", "codebook_size", "dropout")] == [61, 8, 0.4]
    assert config["train_neg_sample_args"]["distribution"] == "none"  # ours; overall.yaml says uniform
    assert config["preset"] == "default"


def test_the_paper_preset_lies_between_ours_and_the_users():
    default = configure("TIGER")
    paper = configure("TIGER", preset="paper", decoder_layers=3)
    assert (default["hidden_size"], paper["hidden_size"]) == (128, 256)
    assert paper["decoder_layers"] == 3
    assert paper["codebook_levels"] == default["codebook_levels"] == 4
    with pytest.raises(InputError, match="^preset is 'papr', but STREAMRec has only: default, paper.$"):
        configure("STREAMRec", preset="papr")


def test_tuned_keys_come_from_the_sets_own_recipe_or_from_the_one_named():
    assert [configure("SASRec", name)["hidden_size"] for name in ("amazon-scientific-2018", "amazon-beauty-2014")] == [
        128,
        128,
    ]
    assert configure("SASRec", "my-own-set")["hidden_size"] == 64  # RecBole's
    assert configure("SASRec", "my-own-set", recipe="amazon-scientific-2018")["hidden_size"] == 128
    assert configure("SASRec", "amazon-beauty-2014", recipe=None)["hidden_size"] == 64
    assert configure("SASRec", "my-own-set", recipe="amazon-scientific-2018", hidden_size=32)["hidden_size"] == 32
    assert (
        configure("Caser", "my-own-set", recipe="amazon-scientific-2018", train_neg_sample_args=None)["nh"] == 8
    )  # no file
    assert [configure("TIGER", name)["epochs"] for name in ("ml-100k", "my-own-set")] == [12, 40]
    assert configure("TIGER", "my-own-set", recipe="ml-100k")["epochs"] == 12
    with pytest.raises(InputError, match="^recipe is 'amazon', but there are only: amazon-scientific-2018, ml-100k.$"):
        configure("SASRec", "my-own-set", recipe="amazon")


def test_the_paper_preset_leaves_out_recipes_of_our_models_alone():
    assert configure("TIGER", "ml-100k", preset="paper")["epochs"] != 12
    assert configure("SASRec", preset="paper")["hidden_size"] == 128  # the baselines of the paper's rows are tuned ones


def test_a_key_or_value_that_cannot_be_stops_before_any_data_is_read():
    with pytest.raises(InputError, match="^Unknown key 'beam_sise': did you mean 'beam_size'\\?$"):
        configure("TIGER", data_path="/nowhere", beam_sise=3)
    with pytest.raises(InputError, match="^codebook_size is 0, but must be a whole number of at least 2.$"):
        configure("TIGER", data_path="/nowhere", codebook_size=0)
    assert configure("SASRec", beam_sise=3)["beam_sise"] == 3  # RecBole's own models are as they were


# -- a run --


@pytest.mark.parametrize("model", ["TIGER", "STREAMRec"])
def test_stock_entry_points_run_our_models(tiny_ml100k, tmp_path, model):
    items = Path(tiny_ml100k, "tiny", "tiny.item").read_text().splitlines()[1:]
    # three levels of 12 codes: the digits of the row in base 12
    rows = [f"{line.split(chr(9))[0]}\t{row // 144}\t{row // 12 % 12}\t{row % 12}\n" for row, line in enumerate(items)]
    Path(tiny_ml100k, "tiny", "ids.tsv").write_text("item_id\tc1\tc2\tc3\n" + "".join(rows))
    keys = {
        "model": model,
        "data_path": tiny_ml100k,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "val_interval": {"user_id": [str(user) for user in range(1, 21)]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "MAX_ITEM_LIST_LENGTH": 5,
        "semantic_ids_file": "ids.tsv",
        "hidden_size": 16,
        "inner_size": 16,
        "head_size": 4,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "show_progress": False,
        "state": "warning",
        **({"epochs": 1} if model == "TIGER" else TINY_STAGES),
    }
    result = subprocess.run(
        [sys.executable, "-c", STOCK],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        input=json.dumps(keys),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    assert told["classes"] == [model, f"{model}Dataset"]
    assert set(told["test"]) == set(told["valid"]) == {"recall@5", "recall@10", "ndcg@5", "ndcg@10"}
    assert told["sorted"]
    assert told["shape"] == [3, told["n_items"]]
    assert all(0 < item < told["n_items"] for row in told["items"] for item in row)
    assert all(len(set(row)) == 5 for row in told["items"])
