"""Data sets that nobody has described: other names of columns, no ``text_fields``, short histories, odd files."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation

from recbole_stream.host.run.commands import main
from recbole_stream.reporting.ranks import read_ranks

NAMES = {"user_id": "reader", "item_id": "book", "timestamp": "when"}
FIELDS = ["--USER_ID_FIELD=reader", "--ITEM_ID_FIELD=book", "--TIME_FIELD=when"]


def renamed(data_path):
    """The data set "tiny" under other names of its columns."""
    for ending in ("inter", "item"):
        file = Path(data_path, "tiny", f"tiny.{ending}")
        header, body = file.read_text().split("\n", 1)
        for old, new in NAMES.items():
            header = header.replace(f"{old}:", f"{new}:")
        file.write_text(f"{header}\n{body}")


def test_other_names_and_no_text_fields(small, tiny_ml100k):
    renamed(tiny_ml100k)
    arguments = [argument for argument in small if not argument.startswith("--text_fields")]
    assert main(["--model=SASRec,TIGER,STREAMRec", "--output_dir=out", "--n_layers=1", *FIELDS, *arguments]) == 0
    assert [row["model"] for row in json.loads(Path("out/results.json").read_text())][:2] == ["SASRec", "TIGER"]
    events = pd.read_csv(
        Path(tiny_ml100k, "tiny", "tiny.inter"), sep="\t", dtype={"reader:token": str, "book:token": str}
    )
    events = events.sort_values(["reader:token", "when:float"], kind="stable")
    last = events.groupby("reader:token")["book:token"].last()
    for model, stage in (("SASRec", ""), ("TIGER", ""), ("STREAMRec", "PT")):
        ranks = read_ranks("out", model, stage, 2020).set_index("user")
        assert ranks["target"].to_dict() == last.to_dict()
    log = Path("out/run.log").read_text()
    assert "text_fields is not set: item text is made of movie_title, release_year, class." in log


def inter(rows, header="user_id:token\titem_id:token\ttimestamp:float"):
    folder = Path("data/own")
    folder.mkdir(parents=True)
    lines = ["\t".join(map(str, row)) for row in rows]
    (folder / "own.inter").write_text("\n".join([header, *lines]) + "\n")
    items = sorted({str(row[1]) for row in rows})
    (folder / "own.item").write_text(
        "\n".join(["item_id:token\tname:token_seq", *(f"{i}\tthing {i}" for i in items)]) + "\n"
    )
    return ["--model=TIGER", "--dataset=own", "--data_path=data", "--output_dir=out", "--use_gpu=False"]


def histories(*lengths):
    return [(f"u{user}", f"i{(user + n) % 7}", n) for user, length in enumerate(lengths) for n in range(length)]


def test_users_of_three_are_tested_but_not_validated(caplog):
    inter(histories(3, 3, 4, 6))
    keys = {"codebook_levels": 2, "codebook_size": 4, "use_gpu": False, "data_path": "data", "show_progress": False}
    config = Config(model="TIGER", dataset="own", config_dict=keys)
    with caplog.at_level(logging.WARNING):
        dataset = create_dataset(config)
    assert "2 of 4 users of own have 3 interactions" in caplog.text
    train, valid, test = (loader._dataset for loader in data_preparation(config, dataset))
    users = [sorted(data.id2token("user_id", data.inter_feat["user_id"].numpy())) for data in (valid, test)]
    assert users == [["u2", "u3"], ["u0", "u1", "u2", "u3"]]
    assert len(train) == 1 + 1 + 1 + 3


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (None, histories(3, 3, 3), "No user of own has more than 3 interactions"),
        (
            "user_id:token\titem_id:token\ttimestamp:token",
            histories(5),
            "says timestamp:token: it must be timestamp:float",
        ),
        (
            "user_id\titem_id\ttimestamp",
            histories(5),
            "says 'user_id': it must be a name and one of token, token_seq, ",
        ),
        (
            "user_id:token\titem_id:token\trating:float",
            histories(5),
            "no column 'timestamp' but user_id, item_id, rating",
        ),
        (
            "user:token\titem:token\ttimestamp:float",
            histories(5),
            "no column 'user_id', 'item_id' but user, item, timestamp",
        ),
        (
            None,
            [*histories(5), ("u1", "i1", "soon")],
            "Line 7 of data/own/own.inter has 'soon' as timestamp: write times as",
        ),
    ],
)
def test_files_that_cannot_be_used_are_one_sentence(header, rows, message, capsys):
    arguments = inter(rows, header) if header else inter(rows)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_another_encoding_is_one_sentence(capsys):
    arguments = inter(histories(5))
    Path("data/own/own.inter").write_bytes(
        "user_id:token\titem_id:token\ttimestamp:float\tpreço:float\n".encode("latin-1")
    )
    assert main(arguments) == 2
    assert "own.inter is not in utf-8 (byte 0xe7): save it so, or set `encoding` to its own." in capsys.readouterr().err


def test_a_corrected_command_may_use_the_same_folder(capsys):
    arguments = inter(histories(3, 3, 3, 3))
    assert main(arguments) == 2
    file = Path("data/own/own.inter")
    file.write_text(file.read_text() + "".join(f"u0\ti{n}\t{n + 9}\n" for n in range(4, 7)))
    sizes = [
        "--codebook_levels=2",
        "--codebook_size=4",
        "--beam_size=5",
        "--topk=[5]",
        "--valid_metric=NDCG@5",
        "--epochs=1",
    ]
    assert main([*arguments, *sizes, "--show_progress=False"]) == 0, capsys.readouterr().err
