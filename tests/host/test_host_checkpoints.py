"""Trained models on another machine: another folder, an empty cache, other arithmetic, data that has grown."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.quick_start import load_data_and_model
from recbole.utils import get_trainer

import recbole_stream
from experiments.runs import load as load_experiment
from recbole_stream.errors import InputError
from recbole_stream.host.checkpoints import load
from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.run.commands import main
from recbole_stream.tokenizer.semantic_ids import read_semantic_ids
from tests.host.conftest import SMALL

FINAL = ("STREAMRec-seed2020-Deliberation", "TIGER-seed2020-TIGER", "SASRec-seed2020", "Caser-seed2020")


@pytest.fixture(scope="module")
def trained(module_tiny_ml100k, tmp_path_factory):
    """A run's folder, moved away from where it was trained, whose cache is gone."""
    folder = tmp_path_factory.mktemp("checkpoints")
    options = [
        *SMALL,
        f"--data_path={module_tiny_ml100k}",
        f"--cache_dir={folder / 'cache'}",
        "--embedding_size=16",
        "--verifier_size=0",
    ]
    assert main(["--model=STREAMRec,SASRec,Caser", *options, f"--output_dir={folder / 'run'}"]) == 0
    shutil.rmtree(folder / "cache")
    (folder / "run").rename(folder / "moved")
    return folder / "moved"


@pytest.fixture
def no_encoder(monkeypatch):
    """On another processor vectors and IDs would be others: whoever makes them anew fails."""

    def made_anew(*arguments, **keys):
        raise AssertionError("made anew")

    for name in ("encode_texts", "build_semantic_ids"):
        monkeypatch.setattr(f"recbole_stream.host.dataset.{name}", made_anew)


def evaluate(config, model, train, split):
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    trainer.eval_collector.data_collect(train)
    return trainer.evaluate(split, load_best_model=False)


def test_a_moved_run_ranks_as_it_did_where_it_was_trained(trained, no_encoder):
    results = json.loads((trained / "results.json").read_text())
    for row in results:
        stage = {"TIGER": "-TIGER", "STREAMRec": f"-{row['stage']}"}.get(row["model"], "")
        with quiet_argv():
            config, model, _, train, _, test = load_data_and_model(
                str(trained / "checkpoints" / f"{row['model']}-seed2020{stage}.pth")
            )
        assert evaluate(config, model, train, test) == pytest.approx(row["test"], abs=1e-6), row["model"]
    assert len(results) == 8 and not (trained.parent / "run").exists()


def test_experiments_load_a_moved_run(trained, no_encoder):
    loaded = load_experiment(trained, "STREAMRec-seed2020-PT")
    assert loaded.model.items.encoder["revision"] and len(loaded.test) == 120


def test_the_ids_can_be_read_and_used_again(trained):
    with quiet_argv():
        _, model, dataset, *_ = load(trained / "checkpoints" / f"{FINAL[1]}.pth")
    again = read_semantic_ids(trained / "semantic_ids.tsv", model.items.tokens)
    assert (trained / "semantic_ids.tsv").read_text().startswith("item_id\tcode_1\tcode_2\tcode_3\n")
    for own, read in zip(dataset.semantic_ids.codes.T, again.codes.T):  # the same but for codes that no item has
        assert np.array_equal(np.unique(own, return_inverse=True)[1], read)


def test_a_killed_run_goes_on_elsewhere_with_what_it_has_computed(
    module_tiny_ml100k, tmp_path, monkeypatch, request, capsys
):
    options = [*SMALL, f"--data_path={module_tiny_ml100k}", "--cache_dir=cache", "--output_dir=begun"]

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recbole_stream.host.run.job.fit", killed)
        assert main(["--model=TIGER", *options]) == 130
    shutil.rmtree("cache")
    Path("begun").rename("elsewhere")
    shutil.copytree(module_tiny_ml100k, "data")
    request.getfixturevalue("no_encoder")
    assert main(["--resume=elsewhere", "--data_path=data"]) == 0
    assert Path("elsewhere/table.md").is_file()
    assert main(["--resume=elsewhere", "--hidden_size=8"]) == 2
    assert "hidden_size" in capsys.readouterr().err


# -- data that has grown -----------------------------------------------------


@pytest.fixture
def grown(module_tiny_ml100k, tmp_path):
    """The data set with its users in another order and one more event for each, of item 50."""
    folder = tmp_path / "grown" / "tiny"
    shutil.copytree(Path(module_tiny_ml100k) / "tiny", folder)
    head, *rows = (folder / "tiny.inter").read_text().splitlines()
    rows += [f"{user}\t50\t3\t999999999" for user in range(1, 121)]
    rows.sort(key=lambda row: -int(row.split("\t")[0]))
    (folder / "tiny.inter").write_text("\n".join([head, *rows]) + "\n")
    return folder


def histories_of(folder, dataset, users, length):
    """The latest items of users, read from the file by hand; and all of them."""
    rows = [line.split("\t") for line in (folder / "tiny.inter").read_text().splitlines()[1:]]
    latest = torch.zeros(len(users), length, dtype=torch.long)
    for number, user in enumerate(users):
        events = sorted((row for row in rows if row[0] == user), key=lambda row: float(row[3]))  # stable, as RecBole's
        items = dataset.token2id("item_id", [row[1] for row in events[-length:]])
        latest[number, : len(items)] = torch.from_numpy(items)
    return latest


@pytest.mark.parametrize("name", FINAL)
def test_recommendations_follow_everything_that_is_known(trained, grown, no_encoder, name):
    users = ["3", "115", "7"]
    file = trained / "checkpoints" / f"{name}.pth"
    table = recbole_stream.recommend(file, users, k=4, data_path=grown.parent)
    with quiet_argv():
        config, model, dataset, *_ = load(file)  # the numbers of the training
    model.eval()
    histories = histories_of(grown, dataset, users, config["MAX_ITEM_LIST_LENGTH"])
    assert dataset.id2token("item_id", histories[:, -1]).tolist() == ["50"] * 3
    batch = {"item_id_list": histories, "item_length": (histories > 0).sum(1)}
    batch["user_id"] = torch.from_numpy(dataset.token2id("user_id", users))
    if "STREAMRec" in name or "TIGER" in name:
        items, scores = model.rank(histories, 4)
    else:
        with torch.no_grad():
            all_scores = model.full_sort_predict(Interaction(batch)).view(3, -1)
        all_scores[:, 0] = -torch.inf
        scores, items = all_scores.topk(4)
    if "Deliberation" not in name:  # whose transitions have grown with the data
        assert table["item"].tolist() == dataset.id2token("item_id", items.flatten()).tolist()
        assert table["score"].to_numpy() == pytest.approx(scores.flatten().numpy(), abs=1e-4)
    assert table["user"].tolist() == np.repeat(users, 4).tolist() and table["rank"].tolist() == [1, 2, 3, 4] * 3
    titles = dict(line.split("\t")[:2] for line in (grown / "tiny.item").read_text().splitlines()[1:])
    assert table["title"].tolist() == [titles[item] for item in table["item"]]


def test_recommend_does_not_print_the_configuration(trained, grown, no_encoder, capfd):
    recbole_stream.recommend(trained / "checkpoints" / f"{FINAL[1]}.pth", ["9"], data_path=grown)
    assert "Hyper Parameters" not in "".join(capfd.readouterr())


def test_titles_are_found_in_a_file_of_quoted_cells(trained, grown, no_encoder):
    checkpoint, file = trained / "checkpoints" / f"{FINAL[2]}.pth", grown / "tiny.item"
    before = recbole_stream.recommend(checkpoint, ["3"], data_path=grown)
    head, *rows = file.read_text().splitlines()
    rows = ["\t".join(f'"{cell}"' for cell in row.split("\t")) for row in rows]
    file.write_text("\n".join([head, *rows]) + "\n")
    assert recbole_stream.recommend(checkpoint, ["3"], data_path=grown).equals(before)
    assert before["title"].all()


def test_events_of_new_items_are_left_out_with_a_word(trained, grown, no_encoder, caplog):
    file = grown / "tiny.inter"
    before = recbole_stream.recommend(trained / "checkpoints" / f"{FINAL[1]}.pth", ["9"], data_path=grown)
    file.write_text(file.read_text() + "9\tnovelty\t5\t1000000001\n8\tnovelty\t5\t1000000001\n")
    with caplog.at_level("WARNING"):
        after = recbole_stream.recommend(trained / "checkpoints" / f"{FINAL[1]}.pth", ["9"], data_path=grown)
    assert "2 events of tiny with 1 items that the checkpoint does not know are left out" in caplog.text
    assert after.equals(before)


def test_new_users_are_served_by_models_that_know_users_by_their_histories(trained, grown, no_encoder):
    file = grown / "tiny.inter"
    file.write_text(file.read_text() + "newcomer\t50\t5\t1000000000\n")
    table = recbole_stream.recommend(trained / "checkpoints" / f"{FINAL[2]}.pth", ["newcomer", "1"], 3, grown)
    assert table["user"].tolist() == ["newcomer"] * 3 + ["1"] * 3
    with pytest.raises(InputError, match="1 users of the data set are new, and Caser has to know its users"):
        recbole_stream.recommend(trained / "checkpoints" / f"{FINAL[3]}.pth", ["newcomer"], 3, grown)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"users": ["1", "nobody"]}, "tiny has no user 'nobody' \\(1 of the 2 asked for"),
        ({"users": ["1"], "k": 100_000}, "k is 100000, but must be a whole number from 1 to"),
        (
            {"users": ["1"], "data_path": "nowhere"},
            "was trained on the data set 'tiny' in nowhere/tiny, which is not there",
        ),
        ({"users": ["1"], "checkpoint": "nothing.pth"}, "There is no checkpoint nothing.pth"),
        ({"users": ["1"], "checkpoint": __file__}, "is no checkpoint of RecBole, or is damaged"),
        ({"users": "115"}, "users is '115', but must be a list of names"),
        ({"users": []}, "users is empty"),
    ],
)
def test_what_cannot_be_recommended_is_one_sentence(trained, keys, message):
    with pytest.raises(InputError, match=message) as caught:
        recbole_stream.recommend(**{"checkpoint": trained / "checkpoints" / f"{FINAL[2]}.pth"} | keys)
    assert "\n" not in str(caught.value)


def test_another_data_set_is_refused(trained, grown, no_encoder):
    file = grown / "tiny.inter"
    head, *rows = file.read_text().splitlines()
    rows = [f"{user}\tx{item}\t{rest}" for user, item, rest in (row.split("\t", 2) for row in rows)]
    file.write_text("\n".join([head, *rows]) + "\n")
    with pytest.raises(InputError, match="knows the items of only 0 of the .* events of tiny"):
        recbole_stream.recommend(trained / "checkpoints" / f"{FINAL[2]}.pth", ["1"], data_path=grown)
