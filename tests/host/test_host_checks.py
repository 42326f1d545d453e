"""Data sets on which something is wrong, odd or unusual: said before training, or taken."""

import json
from pathlib import Path

import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation

from recbole_stream.data.table import main as convert
from recbole_stream.host.checks import check_data, data_warnings
from recbole_stream.host.run.commands import main
from recbole_stream.reporting.ranks import read_ranks
from tests.cases import CASES, EVENTS, TITLES, iso, last_items, write_atomic, write_case, write_split
from tests.host.conftest import SMALL

SPLIT = [
    "--benchmark_filename=[train,valid,test]",
    "--load_col={inter: [user_id, item_id_list, item_id]}",
    "--alias_of_item_id=[item_id_list]",
]
WITHOUT_TIME = len(range(7, len(EVENTS), 25))
KEYS = [key for key in SMALL if not key.startswith(("--dataset", "--text_fields"))]


def refused(arguments, capsys):
    """The one sentence with which a command ends before training."""
    assert main(["--model=TIGER", "--output_dir=out", "--use_gpu=False", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("Error: ")
    return error


def train(name, folder, cache, model="TIGER", *keys):
    arguments = [f"--model={model}", f"--dataset={name}", f"--data_path={folder}", f"--output_dir=out-{name}"]
    return main([*arguments, *KEYS, "--text_fields=[title]", f"--cache_dir={cache}", *keys])


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "notime",
            f"{WITHOUT_TIME} of {len(EVENTS)} rows of notime/notime.inter have no timestamp (first",
        ),
        ("isolater", "numbers as timestamp in 40 lines (first: line 2, "),
    ],
)
def test_rows_without_a_usable_time_are_refused(tmp_path, monkeypatch, capsys, case, message):
    write_case(tmp_path, case)
    assert message in refused([f"--dataset={case}", "--data_path=."], capsys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["--val_interval={size: '[3,inf)'}"],
            "val_interval names 'size', which is no column of own: there are user_id, ",
        ),
        (
            ["--val_interval={title: [red]}"],
            "a column of own/own.item that load_col leaves out: add item: [item_id, title]",
        ),
        (
            ["--val_interval={rating: [3,inf)}"],
            "val_interval is '{rating: [3,inf)}', but must give columns intervals in quotes",
        ),
        (["--val_interval={rating: 3}"], "val_interval of rating is 3, but must be intervals"),
        (["--user_inter_num_interval=5"], "user_inter_num_interval is 5, but must be intervals"),
        (["--params_file=x.test"], "Unknown key 'params_file': in RecBole's run_hyper.py it names the space"),
        (["--space=x.test"], "Unknown key 'space': it belongs to run_hyper.py"),
        (["--benchmark_filename=[train,test]"], "must name three parts to train, validate and test with"),
    ],
)
def test_keys_that_do_not_fit_the_columns(tmp_path, capsys, keys, message):
    rated(tmp_path)
    assert message in refused(["--dataset=own", "--data_path=.", *keys], capsys)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u01\ti01", "1 of {rows} rows of own/own.inter have no timestamp (first: line {line})"),
        ("u01\ti01\t5\t3\tx", "Line {line} of own/own.inter has 5 columns where the header has 4"),
        ('u01\t"i01', "Line {line} of own/own.inter opens a quote in column 2 that does not end on its line"),
        ("u01\ti01\t5\tgood", "Line {line} of own/own.inter has 'good' as rating: write a number, or leave it empty"),
    ],
)
def test_a_line_far_below_the_first_is_named(tmp_path, capsys, line, message):
    file = rated(tmp_path)
    file.write_text(file.read_text() + line + "\n")
    text = refused(["--dataset=own", "--data_path=.", "--val_interval={rating: '[1,inf)'}"], capsys)
    assert message.format(line=len(EVENTS) + 2, rows=len(EVENTS) + 1) in text


def rated(tmp_path):
    """The data set "own", whose events have a rating: 0, 1, 2, 3, 0 and so on."""
    folder = write_atomic(tmp_path, "own", [(*event, n % 4) for n, event in enumerate(EVENTS)], list(TITLES.items()))
    file = Path(folder, "own", "own.inter")
    file.write_text("\ufeff" + file.read_text().replace("timestamp:float", "timestamp:float\trating:float", 1))
    return file


def configured(name, folder, **keys):
    keys = {
        "data_path": str(folder),
        "train_neg_sample_args": None,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    } | keys
    return Config(model="GRU4Rec", dataset=name, config_dict=keys)


def test_a_column_that_a_key_names_is_loaded(tmp_path):
    rated(tmp_path)
    config = configured("own", tmp_path, val_interval={"rating": "[1,inf)"})
    check_data(config)
    assert config["load_col"]["inter"] == ["user_id", "item_id", "timestamp", "rating"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("toy", None),
        ("iso", None),
        ("mixed", "has timestamp in several units"),
        ("twice", f"{len(EVENTS)} of {2 * len(EVENTS)} rows of"),
    ],
)
def test_what_is_odd_with_rows(tmp_path, case, message):
    config = configured(case, write_case(tmp_path, case))
    check_data(config)
    warnings = data_warnings(config)
    assert len(warnings) == (message is not None)
    assert not warnings or (message in warnings[0] and "first: line" in warnings[0])


def test_a_converted_table_gives_recbole_the_same_sequences(tmp_path):
    events = "".join(f"{user},{item},{iso(time)}\n" for user, item, time in EVENTS)
    Path("events.csv").write_text(f"user,item,time\n{events}")
    assert convert(["--inter=events.csv", "--output=data"]) == 0
    keys = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}}
    config = configured("events", "data", **keys)
    *_, test = data_preparation(config, create_dataset(config))
    data = test._dataset
    users, items = (data.id2token(field, data.inter_feat[field].numpy()).tolist() for field in ("user_id", "item_id"))
    assert dict(zip(users, items)) == last_items()


def test_rows_without_a_name_are_counted(tmp_path):
    folder = write_atomic(tmp_path, "own", [*EVENTS, ("", "i01", 1_600_000_000)], [])
    (warning,) = data_warnings(configured("own", folder))
    assert (
        f"1 of {len(EVENTS) + 1} rows of" in warning and f"have no user_id (first: line {len(EVENTS) + 2})" in warning
    )


def test_other_names_and_quotes_give_the_same_figures(tmp_path, cache, capsys):
    figures = {}
    for case in ("toy", "naids", "quoted"):
        assert train(case, write_case(tmp_path / "data", case), cache) == 0, capsys.readouterr().err
        (row,) = json.loads(Path(f"out-{case}/results.json").read_text())
        figures[case] = row["test"], row["valid"]
    assert figures["naids"] == figures["quoted"] == figures["toy"]
    ranks = read_ranks("out-naids", "TIGER", "", 2020)
    names = dict(zip((user for user, _, _ in EVENTS), (user for user, _, _ in CASES["naids"][0])))
    assert set(ranks["user"]) == set(names.values())


def test_warnings_stand_under_the_table_and_in_the_log(tmp_path, capsys):
    folder = write_case(tmp_path / "data", "twice")
    arguments = ["--model=GRU4Rec", "--dataset=twice", f"--data_path={folder}", "--output_dir=out-twice", "--epochs=1"]
    assert main([*arguments, "--loss_type=CE", "--show_progress=False", "--use_gpu=False"]) == 0
    said = capsys.readouterr().out
    assert said.index("GRU4Rec") < said.index("Warning: ") and "are the same as an earlier one" in said
    assert "are the same as an earlier one" in Path("out-twice/run.log").read_text()


def test_a_split_of_the_users_own_needs_no_time(tmp_path, cache, capsys):
    folder = write_split(tmp_path / "data", "own")
    keys = [*SPLIT, "--MAX_ITEM_LIST_LENGTH=3"]
    assert train("own", folder, cache, "SASRec,TIGER", *keys, "--n_layers=1") == 0, capsys.readouterr().err
    for model in ("SASRec", "TIGER"):
        ranks = read_ranks("out-own", model, "", 2020).set_index("user")
        assert ranks["target"].to_dict() == last_items()
        assert ranks["history_length"].max() > 3  # what is not shown counts
    assert "SASRec" in Path("out-own/comparison.csv").read_text() and Path("out-own/report.html").is_file()


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("--alias_of_item_id", "alias_of_item_id does not name 'item_id_list'"),
        ("--load_col", "load_col leaves out 'item_id_list': add it to the list of inter."),
    ],
)
def test_a_split_needs_what_recbole_asks_for(tmp_path, capsys, left_out, message):
    folder = write_split(tmp_path / "data", "own")
    keys = [key for key in SPLIT if not key.startswith(left_out)]
    assert message in refused(["--dataset=own", f"--data_path={folder}", *keys], capsys)


def test_a_split_without_histories_is_one_sentence(tmp_path, capsys):
    folder = Path(write_split(tmp_path / "data", "own"))
    for file in folder.glob("own/*.inter"):
        file.write_text(file.read_text().replace("item_id_list", "earlier"))
    text = refused(["--dataset=own", f"--data_path={folder}", *SPLIT], capsys)
    assert "has no column 'item_id_list' but user_id, earlier, item_id: with benchmark_filename each row needs" in text
