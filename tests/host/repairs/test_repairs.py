"""Each repair, by what fails in RecBole without it."""

import dis
import functools
import http.server
import importlib.util
import inspect
import itertools
import shutil
import subprocess
import sys
import threading
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recbole
import torch
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import get_model, get_trainer

RECBOLE = Path(recbole.__file__).parent


def in_a_new_process(code):
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_interactions_can_be_made_before_any_config():
    code = (
        "import recbole_stream; from recbole.data.interaction import Interaction;"
        "print(Interaction({'a': [1, 2, 3]})['a'].sum().item())"
    )
    assert in_a_new_process(code) == ["6"]


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
@pytest.mark.parametrize("folder", [False, True])
def test_without_ray_only_its_use_fails(folder):
    if folder:  # as Ray leaves /tmp/ray behind: no package, but Python would import it
        Path("ray").mkdir()
    code = """
import sys, recbole_stream
from recbole.quick_start import objective_function, run_recbole
from recbole.quick_start.quick_start import tune
print("ray" not in sys.modules)
try:
    tune.report(score=1)
except recbole_stream.errors.InputError as error:
    print(error)
"""
    assert " ".join(in_a_new_process(code)) == (
        "True ray.tune.report needs Ray, which is not installed: run `pip install 'ray[tune]'`."
    )


@pytest.mark.ray
def test_with_ray_recbole_has_the_real_one():
    code = (
        "import recbole_stream, ray.tune; from recbole.quick_start import quick_start;"
        "print(quick_start.tune is ray.tune)"
    )
    assert in_a_new_process(code) == ["True"]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("pass", "False"),
        ("import recbole.model.sequential_recommender", "False"),
        ("torch.autograd.set_detect_anomaly(True)", "True"),
    ],
)
def test_anomaly_mode_is_on_only_where_the_user_switched_it_on(first, expected):
    code = (
        f"import torch; {first}; import recbole_stream; from recbole.utils import get_model;"
        "get_model('SASRec'); print(torch.is_anomaly_enabled())"
    )
    assert in_a_new_process(code) == [expected]


def test_metrics_that_count_items_can_be_asked_for(tiny_ml100k):
    keys = {
        "data_path": tiny_ml100k, "epochs": 1, "state": "error", "show_progress": False,
        "topk": [5], "valid_metric": "Recall@5", "repeatable": True,
        "metrics": ["Recall", "ItemCoverage", "GiniIndex", "AveragePopularity", "TailPercentage"],
    }  # fmt: skip
    test = run_recbole(model="Pop", dataset="tiny", config_dict=keys)["test_result"]
    # Pop recommends everybody the same 5 of 1265 items and the padding: 5 / 1266 = 0.00395
    assert test["itemcoverage@5"] == 0.0039
    assert test["averagepopularity@5"] > 0


# -- checkpoints --


def trained_pop(data_path):
    keys = {
        "data_path": data_path, "epochs": 1, "state": "error", "show_progress": False,
        "topk": [5], "metrics": ["Recall"], "valid_metric": "Recall@5",
    }  # fmt: skip
    result = run_recbole(model="Pop", dataset="tiny", config_dict=keys)
    (checkpoint,) = Path("saved").glob("Pop-*.pth")
    return result, checkpoint


def test_a_stock_run_ends_and_its_checkpoint_loads_and_resumes(tiny_ml100k):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*GradScaler")
        result, checkpoint = trained_pop(tiny_ml100k)
    loaded, model, _, _, _, test_data = load_data_and_model(str(checkpoint))
    trainer = get_trainer(loaded["MODEL_TYPE"], "Pop")(loaded, model)
    assert trainer.epochs == 1  # TraditionalTrainer's
    trainer.resume_checkpoint(checkpoint)
    assert trainer.start_epoch == 1
    again = trainer.evaluate(test_data, model_file=str(checkpoint))
    assert again == result["test_result"]
    assert again["recall@5"] > 0


def test_every_torch_load_of_recbole_is_told_to_read_whole_files():
    told = {
        code.co_filename.rpartition("/")[2]: "weights_only" in str(code.co_consts)
        for name, module in sys.modules.items()
        if name.startswith("recbole.")
        for code in _codes(module)
        if any(
            first.argval == "torch" and second.argval == "load"
            for first, second in itertools.pairwise(dis.get_instructions(code))
        )
    }
    files = "convncf kd_dagfm nais neumf ract s3rec trainer".split()  # quick_start calls ours
    assert told == {f"{file}.py": True for file in files}


def _codes(module):
    for entry in vars(module).values():
        for function in vars(entry).values() if isinstance(entry, type) else [entry]:
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                yield inspect.unwrap(function).__code__


def test_a_pretrained_s3rec_starts_from_its_checkpoint(tiny_ml100k, config):
    keys = {
        "data_path": tiny_ml100k, "item_attribute": "class", "MAX_ITEM_LIST_LENGTH": 5,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]},
    }  # fmt: skip
    stage = config(model="S3Rec", train_stage="pretrain", **keys)
    dataset = create_dataset(stage)
    torch.manual_seed(1)
    pretrained = get_model("S3Rec")(stage, dataset)
    torch.save({"config": stage, "state_dict": pretrained.state_dict()}, "pretrained.pth")
    torch.manual_seed(2)
    stage = config(model="S3Rec", train_stage="finetune", pre_model_path="pretrained.pth", **keys)
    tuned = get_model("S3Rec")(stage, dataset)
    assert torch.equal(tuned.item_embedding.weight, pretrained.item_embedding.weight)


def test_trainers_made_in_one_second_have_checkpoints_of_their_own(toy):
    settings = toy()
    model = get_model("SASRec")(settings, create_dataset(settings))
    trainer = get_trainer(settings["MODEL_TYPE"], "SASRec")
    files = {trainer(settings, model).saved_model_file for _ in range(3)}
    assert len(files) == 3


# -- data --


def test_sequences_become_their_own_tokens(toy):
    dataset = create_dataset(toy())
    tags = dict(zip(dataset.item_feat["item_id"], dataset.item_feat["tags"]))
    names = {
        item: [str(tag) for tag in dataset.id2token("tags", tags[dataset.token2id("item_id", item)])] for item in "xyz"
    }
    assert names == {"x": ["red", "blue"], "y": [], "z": ["blue"]}


def test_missing_values_are_filled(toy):
    dataset = create_dataset(toy())
    dataset.build()
    items = dataset.item_feat
    row = {item: dataset.token2id("item_id", item) for item in "xyz"}
    assert items["year"][0] == 0  # the padding row
    assert items["year"][row["y"]] == 0
    assert dataset.id2token("year", items["year"][row["z"]]) == "2000"
    # the mean of 1 and 5
    assert [items["price"][row[item]].item() for item in "xyz"] == [1, 3, 5]
    assert items["price"][0] == 3


@pytest.mark.parametrize(
    ("keys", "of_x"),
    [
        # (value - 1) / (5 - 1)
        ({"normalize_field": ["sizes"]}, [0, 0.25, 0.5]),
        # the values, and the 1 that RecBole sets beside each
        ({"numerical_features": ["sizes"]}, [[1, 2, 3], [1, 1, 1]]),
        # two buckets over [1, 5]: floor((v - 1) * 2 / (4 + 1e-9) + 1) is 1, 1 and just not 2
        (
            {
                "numerical_features": ["sizes"],
                "discretization": {"sizes": {"method": "ED", "bucket": 2}},
            },
            [[1, 1, 1], [1, 1, 1]],
        ),
    ],
)
def test_number_sequences_are_split_where_their_items_end(toy, keys, of_x):
    dataset = create_dataset(toy(**keys))
    value = dataset.item_feat["sizes"][dataset.token2id("item_id", "x")]
    assert np.array(value).tolist() == of_x


def test_split_files_keep_their_rows_and_lengths(tmp_path, config):
    folder = tmp_path / "data" / "split"
    folder.mkdir(parents=True)
    head = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float\n"
    (folder / "split.train.inter").write_text(head + "b\tx y\tz\t9\na\tx\ty\t8\n")
    (folder / "split.valid.inter").write_text(head + "b\tx y z\tx\t7\n")
    (folder / "split.test.inter").write_text(head + "a\tz y\tx\t6\n")
    settings = config(
        "split",
        data_path=str(folder.parent),
        benchmark_filename=["train", "valid", "test"],
        alias_of_item_id=["item_id_list"],
        load_col={"inter": ["user_id", "item_id_list", "item_id", "timestamp"]},
    )
    train, valid, test = create_dataset(settings).build()
    assert train.inter_feat["item_length"].tolist() == [2, 1]
    assert train.id2token("user_id", train.inter_feat["user_id"]).tolist() == ["b", "a"]
    assert [valid.inter_feat["item_length"].tolist(), test.inter_feat["item_length"].tolist()] == [[3], [2]]


def test_knowledge_graph_sequences_are_split_too():
    dataset_class = importlib.import_module("recbole.data.dataset").KnowledgeBasedDataset
    feat = pd.DataFrame({"links": [np.array([1, 2]), np.array([], dtype=int), np.array([0])]})
    graph = types.SimpleNamespace(
        field2id_token={}, field2token_id={}, field2type={"links": None}, field2feats=lambda field: [feat]
    )
    dataset_class._reset_ent_remapID(graph, "links", np.array([7, 8, 9]), None, None)
    # ids 0, 1, 2 are renamed 7, 8, 9
    assert [links.tolist() for links in feat["links"]] == [[8, 9], [], [7]]


def test_tensors_do_not_share_memory_with_the_frame(toy):
    dataset = create_dataset(toy())
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            converted = dataset._dataframe_to_interaction(dataset.inter_feat)
    finally:
        torch.set_warn_always(False)
    before = dataset.inter_feat["item_id"].tolist()
    converted["item_id"].zero_()
    assert dataset.inter_feat["item_id"].tolist() == before


def test_a_data_set_downloads_without_other_processes(toy, tmp_path, monkeypatch, config):
    (tmp_path / "served").mkdir()
    with zipfile.ZipFile(tmp_path / "served" / "toy.zip", "w") as archive:
        archive.write(tmp_path / "data" / "toy" / "toy.inter", "toy.inter")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    dataset_class = importlib.import_module("recbole.data.dataset").Dataset
    monkeypatch.setattr(
        dataset_class,
        "_get_download_url",
        lambda self, *_: f"http://localhost:{server.server_port}/toy.zip",
    )
    try:
        dataset = create_dataset(config("toy", data_path=str(tmp_path / "fetched")))
    finally:
        server.shutdown()
    assert dataset.inter_num == 6


# -- saved data sets --


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text_fields", ["tags"]),
        ("semantic_ids_file", "ids.tsv"),
        ("encoding", "utf-8"),
        ("discretization", {}),
        ("data_path", "elsewhere"),
    ],
)
def test_a_saved_data_set_is_used_again_only_with_the_same_keys(toy, tmp_path, key, value):
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    create_dataset(toy(save_dataset=True))
    same, changed = toy(), toy(**{key: value})
    assert create_dataset(same).config is not same  # it came from the file
    assert create_dataset(changed).config is changed


def test_data_preparation_gives_the_baselines_their_loaders(toy):
    settings = toy()
    train, valid, test = data_preparation(settings, create_dataset(settings))
    # two users of three interactions: one training row each, no validation row, one test row each
    assert [len(part._dataset) for part in (train, valid, test)] == [2, 0, 2]
