"""Tables that people have become atomic files with the same events, or one sentence."""

import csv
import json
import shlex

import pandas as pd
import pytest

from recbole_stream.atomic import read_table
from recbole_stream.data.table import main
from tests.cases import CASES, EVENTS, TITLES, iso, write_atomic, write_case


def sequences(folder):
    """What the files in a folder say: events in the order of user and time, and the items' texts."""
    name = folder.name
    events = read_table(
        folder / f"{name}.inter", {"user_id:token": str, "item_id:token": str, "timestamp:float": float}
    )
    order = events.sort_values(["user_id:token", "timestamp:float"], kind="stable")
    return [tuple(row) for row in order.itertuples(index=False)]


def texts(folder):
    table = read_table(folder / f"{folder.name}.item", {"item_id:token": str, "title:token_seq": str})
    return {item: text.strip() for item, text in table.itertuples(index=False)}


def write_csv(path, header, rows, **form):
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, **form)
        writer.writerow(header)
        writer.writerows(rows)


def convert(*arguments):
    return main(["--output", "out", *map(str, arguments)])


def test_csv_with_quotes_semicolons_and_dates(tmp_path, capsys):
    write_csv(
        tmp_path / "my shop.csv",
        ["Event Time", "User ID", "product-id", "price"],
        [(iso(time), user, item, 2.5) for user, item, time in EVENTS],
        quoting=csv.QUOTE_ALL,
    )
    titles = [(item, f'{title},\n"new"\t{item}', 3.5) for item, title in TITLES.items()]
    write_csv(tmp_path / "items.csv", ["product-id", "title", "price"], titles, delimiter=";")
    assert convert("--inter", "my shop.csv", "--items", "items.csv") == 0
    folder = tmp_path / "out" / "my-shop"
    assert sequences(folder) == EVENTS
    assert texts(folder) == {item: f'{title}, "new" {item}' for item, title in TITLES.items()}
    said = capsys.readouterr().out
    assert f"60 users, 30 items, {len(EVENTS):,} events" in said
    assert "price of items.csv hold numbers and are no text" in said
    command = shlex.split(said.splitlines()[-1].removeprefix("Next: "))
    assert command[-3:] == ["--dataset=my-shop", "--data_path=out", "--text_fields=[title]"]


def test_json_lines_in_milliseconds(tmp_path):
    records = [
        {"user": int(user[1:]), "item": item, "ts": time * 1000, "t": TITLES[item]} for user, item, time in EVENTS
    ]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(record) + "\n\n" for record in records))
    assert convert("--inter", "e.jsonl", "--text", "t", "--name", "own") == 0
    expected = sorted((str(int(user[1:])), item, float(time)) for user, item, time in EVENTS)
    assert sorted(sequences(tmp_path / "out" / "own")) == expected
    assert (tmp_path / "out/own/own.item").read_text().startswith("item_id:token\tt:token_seq\n")


def test_parquet_with_its_own_types(tmp_path, capsys):
    table = pd.DataFrame(EVENTS, columns=["who", "asin", "t"]).assign(
        t=lambda events: pd.to_datetime(events.t, unit="s")
    )
    table.to_parquet(tmp_path / "e.parquet")
    pd.DataFrame({"asin": list(TITLES), "tags": [["a b", "c"]] * 30}).to_parquet(tmp_path / "i.parquet")
    columns = ("--user", "who", "--time", "t")
    assert convert("--inter", "e.parquet", "--items", "i.parquet", *columns) == 0
    assert sequences(tmp_path / "out" / "e") == EVENTS
    assert (tmp_path / "out/e/e.item").read_text().splitlines()[1] == "i00\ta b, c"
    assert convert("--inter", "e.parquet", *columns) == 2
    assert "out/e is there already: choose another --name, or delete it." in capsys.readouterr().err


def test_whole_numbers_stay_whole_beside_missing_ones(tmp_path):
    pd.DataFrame({"user": [1, None, 2, 1], "item": [7, 8, 9, 9], "time": [1, 2, 3, 4]}).to_parquet(
        tmp_path / "e.parquet"
    )
    assert convert("--inter", "e.parquet", "--drop-incomplete") == 0
    assert sequences(tmp_path / "out" / "e") == [("1", "7", 1), ("1", "9", 4), ("2", "9", 3)]


@pytest.mark.parametrize("case", ["toy", "quoted", "halfquote", "naids", "iso"])
def test_names_come_back_as_they_were(tmp_path, case):
    write_case(tmp_path, case)
    assert convert("--inter", f"{case}/{case}.inter", "--items", f"{case}/{case}.item") == 0
    plain = "toy" if case in ("quoted", "iso") else case
    assert sequences(tmp_path / "out" / case) == sorted(CASES[plain][0], key=lambda event: (event[0], event[2]))
    assert texts(tmp_path / "out" / case) == dict(CASES[plain][1])


@pytest.mark.parametrize(
    ("header", "rows", "arguments", "message"),
    [
        (
            "who,item,time",
            ["a,b,1"],
            (),
            "no column that is plainly the user: name it with --user; its columns are who, item",
        ),
        ("user,item,date,ts", ["a,b,1,1"], (), "may have its time in date or ts: name it with --time"),
        (
            "user,item,time",
            ["a,b,1"],
            ("--user", "uid"),
            "has no column 'uid' for --user: its columns are user, item, time",
        ),
        (
            "user,item,time",
            ["a,b,1", ",b,2", "a,b,"],
            (),
            "2 of 3 rows of e.csv are incomplete: user in 1 (first: line 3), ",
        ),
        ("user,item,time", ["a,b,1", "a,b,soon"], (), "Line 3 of e.csv has 'soon' as time"),
        ("user,item,time", ["a,b,1600000000", "a,b,1600000000000"], (), "in several units"),
        ("user,item,time", ["a,b,1600000000", "a,b,2020-01-01"], (), "numbers as time in 1 lines"),
        ("user,item,time", ["a,b,1,c"], (), "cannot be read as a table"),
        ("user,item,time", ["a,b,1", 'a,"b,1', "a,b,1"], (), "cannot be read as a table"),
        ("user,item,time", [], (), "e.csv has no events."),
        (
            "user,item,time",
            ["a,b,1"],
            ("--text", "title"),
            "no column of text title (--text): its columns are user, item",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_no_file(tmp_path, capsys, header, rows, arguments, message):
    (tmp_path / "e.csv").write_text("\n".join([header, *rows]) + "\n")
    assert convert("--inter", "e.csv", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "e").exists()


def test_incomplete_and_repeated_rows_are_dropped_only_where_asked(tmp_path, capsys):
    write_atomic(tmp_path, "odd", [*EVENTS, EVENTS[3], ("", "i00", 5), EVENTS[3]], list(TITLES.items()))
    assert convert("--inter", "odd/odd.inter", "--drop-incomplete") == 0
    assert f"2 of {len(EVENTS) + 2} rows of odd/odd.inter are the same as an earlier one" in capsys.readouterr().out
    assert len(sequences(tmp_path / "out" / "odd")) == len(EVENTS) + 2
    assert convert("--inter", "odd/odd.inter", "--drop-incomplete", "--drop-repeated", "--name", "even") == 0
    assert sequences(tmp_path / "out" / "even") == EVENTS


def test_items_of_other_names(tmp_path, capsys):
    write_csv(tmp_path / "e.csv", ["user", "item", "time"], EVENTS)
    write_csv(tmp_path / "i.csv", ["item", "title"], [("j1", "one")])
    assert convert("--inter", "e.csv", "--items", "i.csv") == 2
    assert "No item of i.csv (such as 'j1') is an item of e.csv" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("**/*"))
