"""The converter as a whole, and its files in RecBole's own reader."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_stream
from recbole_stream.data.amazon import Statistics, convert, dataset_name, main
from recbole_stream.errors import InputError

# In file order: user, item, time. With k = 2 and the repeat (u1, a) dropped:
# item c has one action, so it goes; u3 then has one, so it goes. Users in order of appearance, times ascending,
# the two actions of u1 at time 50 in file order.
ACTIONS = [
    ("u2", "a", 100),
    ("u1", "b", 50),
    ("u1", "a", 50),
    ("u2", "b", 10),
    ("u3", "c", 5),
    ("u3", "a", 6),
    ("u1", "a", 70),
]
FIRST = ["u2 b 10", "u2 a 100", "u1 b 50", "u1 a 50"]


def write_json(path, records):
    path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode("utf-8")))
    return path


def review_2023(user, item, time):
    return {"rating": 4.5, "title": "x", "asin": "z", "parent_asin": item, "user_id": user, "timestamp": time}


@pytest.fixture
def files(tmp_path):
    reviews = write_json(tmp_path / "Toys.jsonl.gz", [review_2023(*action) for action in ACTIONS])
    records = [
        {"parent_asin": "c", "title": "Gone"},
        {"parent_asin": "a", "title": "Drum", "store": "Acme", "categories": ["Music", "Drums"], "price": 9.5},
        {"parent_asin": "a", "title": "Repeated"},
    ]
    meta = write_json(tmp_path / "meta_Toys.jsonl.gz", records)
    return {"reviews": reviews, "meta": meta, "output": tmp_path / "out"}


def table(path):
    return [line.split("\t") for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]


def actions(path):
    return [f"{user} {item} {time}" for user, item, _, time in table(path)[1:]]


def as_command(files, *more, version="2023"):
    arguments = ["--version", version, "--category", "Toys", *more]
    for key, value in files.items():
        arguments += [f"--{key}", str(value)]
    return arguments


def test_files_of_2023(files):
    statistics = convert("2023", "Toys_and_Games", **files, min_interactions=2)
    folder = files["output"] / "amazon-toys-and-games-2023"
    assert sorted(path.name for path in files["output"].iterdir()) == [folder.name]
    inter = table(folder / f"{folder.name}.inter")
    assert inter[0] == ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    assert inter[1] == ["u2", "b", "4.5", "10"]
    assert actions(folder / f"{folder.name}.inter") == FIRST
    # The first record of an item counts; b is unknown to the metadata.
    assert table(folder / f"{folder.name}.item") == [
        ["item_id:token", "title:token_seq", "brand:token_seq", "categories:token_seq", "features:token_seq",
         "description:token_seq", "price:float"],
        ["a", "Drum", "Acme", "Music, Drums", "", "", "9.50"],
        ["b", "", "", "", "", "", ""],
    ]  # fmt: skip
    assert statistics == Statistics("amazon-toys-and-games-2023", sequences=2, items=2, actions=4, without_text=1)


@pytest.mark.parametrize(
    ("duplicates", "expected"),
    [
        ("first", FIRST),
        ("last", ["u2 b 10", "u2 a 100", "u1 b 50", "u1 a 70"]),
        ("keep", ["u2 b 10", "u2 a 100", "u1 b 50", "u1 a 50", "u1 a 70"]),
    ],
)
def test_duplicates(files, duplicates, expected):
    name = convert("2023", "Toys", **files, min_interactions=2, duplicates=duplicates).dataset
    assert actions(files["output"] / name / f"{name}.inter") == expected


def test_repeats_do_not_count_towards_the_core(tmp_path, files):
    # u9 has two actions, but with one item: a single one is left, which is below 2.
    repeated = [*ACTIONS, ("u9", "a", 1), ("u9", "a", 2)]
    files["reviews"] = write_json(tmp_path / "more.jsonl.gz", [review_2023(*action) for action in repeated])
    name = convert("2023", "Toys", **files, min_interactions=2).dataset
    assert actions(files["output"] / name / f"{name}.inter") == FIRST


def test_five_core_is_the_default(tmp_path, files):
    # Five users by five items survive whole; a sixth user with four items does not.
    grid = [(f"u{user}", f"i{item}", item) for user in range(5) for item in range(5)]
    grid += [("u6", f"i{item}", item) for item in range(4)]
    files["reviews"] = write_json(tmp_path / "grid.jsonl.gz", [review_2023(*action) for action in grid])
    assert convert("2023", "Toys", **files) == Statistics("amazon-toys-2023", 5, 5, 25, without_text=5)


def test_ratings_csv_of_2018_gives_the_same_as_its_reviews(tmp_path, files):
    meta = write_json(tmp_path / "meta_Toys.json.gz", [{"asin": "a", "title": "Drum", "category": ["Music"]}])
    reviews = [{"reviewerID": u, "asin": i, "overall": 3.0, "unixReviewTime": t} for u, i, t in ACTIONS]
    ratings = tmp_path / "Toys.csv"
    ratings.write_text("".join(f"{i},{u},3.0,{t}\n" for u, i, t in ACTIONS), encoding="utf-8")
    written = []
    for source in (write_json(tmp_path / "Toys.json.gz", reviews), ratings):
        name = convert("2018", "Toys", source, meta, tmp_path / "out", min_interactions=2).dataset
        written.append([(tmp_path / "out" / name / f"{name}.{kind}").read_text("utf-8") for kind in ("inter", "item")])
    assert written[0] == written[1]
    assert written[0][1].splitlines()[1].split("\t")[:4] == ["a", "Drum", "", "Music"]


def test_line_of_table_1():
    # 511,836 / 57,439 = 8.911; 1 - 8.911 / 24,587 = 0.99964.
    line = Statistics("amazon-musical-instruments-2023", 57439, 24587, 511836, without_text=0).line()
    assert line == (
        "amazon-musical-instruments-2023: 57,439 sequences, 24,587 items, 511,836 actions, "
        "average length 8.91, sparsity 99.96%"
    )


def test_dataset_names():
    assert dataset_name("Beauty", "2014") == "amazon-beauty-2014"
    assert dataset_name("Industrial_and_Scientific", "2018") == "amazon-industrial-and-scientific-2018"
    assert dataset_name("Toys & Games", "2023") == "amazon-toys-games-2023"
    with pytest.raises(InputError, match="--category '../' names no category"):
        dataset_name("../", "2023")


def test_command_prints_the_statistics(files, capsys):
    assert main(as_command(files, "--min_interactions", "2")) == 0
    out, err = capsys.readouterr()
    # 4 actions of 2 users: 2.00 each, on 2 items: every pair is there.
    assert "amazon-toys-2023: 2 sequences, 2 items, 4 actions, average length 2.00, sparsity 0.00%" in out
    assert "1 items have no text." in out
    assert err == ""


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        ({"reviews": Path("absent.jsonl.gz")}, [], "There is no file absent.jsonl.gz"),
        ({"meta": Path("absent.jsonl.gz")}, [], "There is no file absent.jsonl.gz"),
        ({}, [], "No interaction of .* is left .* lower --min_interactions"),
        ({}, ["--min_interactions", "0"], "--min_interactions 0 is below 1"),
        ({}, ["--version", "2018", "--min_interactions", "2"], "has no 'reviewerID'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(files, change, more, words, capsys):
    assert main(as_command(files | change, *more)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(".\n") and err.count("\n") == 1
    assert re.search(words, err)
    assert not files["output"].exists() or not list(files["output"].iterdir())


def test_failure_in_the_metadata_keeps_the_earlier_files(tmp_path, files):
    name = convert("2023", "Toys", **files, min_interactions=2).dataset
    folder = files["output"] / name
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    # The interactions are fine and other ones than before; the metadata breaks off.
    files["reviews"] = write_json(tmp_path / "other.jsonl.gz", [review_2023(u + "x", i, t) for u, i, t in ACTIONS])
    files["meta"] = write_json(tmp_path / "bad.jsonl.gz", [{"parent_asin": "a", "title": "New"}, ["no", "product"]])
    with pytest.raises(InputError, match="Line 2 of .*bad.jsonl.gz is not a JSON object"):
        convert("2023", "Toys", **files, min_interactions=2)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in files["output"].iterdir()] == [name]


def test_output_that_is_a_file(files, capsys):
    files["output"].write_text("in the way", encoding="utf-8")
    assert main(as_command(files, "--min_interactions", "2")) == 2
    assert str(files["output"]) in capsys.readouterr().err


def test_as_a_module_without_traceback(files):
    source = Path(recbole_stream.__file__).parents[1]
    done = subprocess.run(
        # Packages that RecBole imports may warn; that is not what is tested.
        [sys.executable, "-W", "ignore", "-m", "recbole_stream.data.amazon", *as_command(files)],
        cwd=source, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "every user and item needs 5" in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


# Titles that break RecBole's reader, or vanish in it, unless they are guarded: quotes, and all words that pandas
# takes for missing.
TITLES = [
    '"Best" of 12" Singles', '"', '""', "tab\there", "line\nbreak\r\nand\rreturn", "Rock &amp; &quot;Roll&quot;",
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "1984", "'single'", "back\\slash\\", "日本 ギター", "it's",
]  # fmt: skip
READ = {
    "tab\there": "tab here",
    "line\nbreak\r\nand\rreturn": "line break and return",
    "Rock &amp; &quot;Roll&quot;": 'Rock & "Roll"',
}


@pytest.fixture
def recbole_dataset(tmp_path):
    """Every title by four users, converted and loaded by RecBole, text columns included."""
    from recbole.config import Config
    from recbole.data import create_dataset

    users = [f"user{number}" for number in range(4)]
    reviews = []
    for number in range(len(TITLES)):
        # Each user starts elsewhere, all at one time: only the file order says which item is last.
        items = [f"B{(number + 3 * k) % len(TITLES)}" for k in range(len(users))]
        reviews += [review_2023(user, item, 1588687728923) for user, item in zip(users, items, strict=True)]
    meta = [
        {"parent_asin": f"B{number}", "title": title, "store": title, "price": 1.5, "features": [title, "feature"]}
        for number, title in enumerate(TITLES)
    ]
    arguments = {
        "reviews": write_json(tmp_path / "r.jsonl.gz", reviews),
        "meta": write_json(tmp_path / "m.jsonl.gz", meta),
        "output": tmp_path / "data",
    }
    name = convert("2023", "Quotes", **arguments, min_interactions=4).dataset
    config = Config(
        model="SASRec",
        dataset=name,
        config_dict={
            "data_path": str(tmp_path / "data"),
            "load_col": {
                "inter": ["user_id", "item_id", "timestamp"],
                "item": ["item_id", "title", "brand", "features", "description", "price"],
            },
            "user_inter_num_interval": "[4,inf)",
            "item_inter_num_interval": "[4,inf)",
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
            "train_neg_sample_args": None,
            "MAX_ITEM_LIST_LENGTH": 50,
        },
    )
    return config, create_dataset(config)


def test_titles_cover_what_pandas_takes_for_missing():
    from pandas._libs.parsers import STR_NA_VALUES

    assert STR_NA_VALUES - {""} <= set(TITLES)


def test_recbole_reads_every_title_whole(recbole_dataset):
    _, dataset = recbole_dataset
    assert dataset.item_num == len(TITLES) + 1  # and the padding
    for field in ("title", "brand"):
        words = dataset.field2id_token[field]
        for number, title in enumerate(TITLES):
            row = dataset.token2id("item_id", f"B{number}")
            tokens = [words[token] for token in dataset.item_feat[field][row].tolist() if token]
            assert tokens == READ.get(title, title).split(), (field, title)
    assert set(dataset.item_feat["price"][1:].tolist()) == {1.5}


def test_recbole_splits_off_the_true_last_item(recbole_dataset):
    from recbole.data import data_preparation

    config, dataset = recbole_dataset
    test = data_preparation(config, dataset)[2].dataset.inter_feat
    last = {
        dataset.id2token("user_id", user): dataset.id2token("item_id", item)
        for user, item in zip(test["user_id"].tolist(), test["item_id"].tolist(), strict=True)
    }
    # 29 titles, user k ends at 28 + 3 k modulo 29: 28, 2, 5, 8.
    assert len(TITLES) == 29
    assert last == {"user0": "B28", "user1": "B2", "user2": "B5", "user3": "B8"}
