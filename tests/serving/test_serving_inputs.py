"""Files of histories in all their forms."""

import json

import pandas as pd
import pytest

from recbole_stream.errors import InputError
from recbole_stream.serving.inputs import read_histories

EVENTS = [("ann", "a", 3), ("bob", "b", 1), ("ann", "c", 1), ("ann", "d", 3), ("bob", "a", 2)]
# in time; equal times in the order of the file
HISTORIES = [("ann", ["c", "a", "d"]), ("bob", ["b", "a"])]


def all_of(path, size=10):
    return [row for part in read_histories(path, size) for row in part]


def test_events_become_histories(tmp_path):
    table = pd.DataFrame(EVENTS, columns=["user_id", "ItemID", "timestamp"])
    table.to_csv(tmp_path / "e.csv", index=False)
    table.to_parquet(tmp_path / "e.parquet")
    table.to_json(tmp_path / "e.jsonl", orient="records", lines=True)
    table.to_csv(tmp_path / "e.tsv", index=False, sep="\t")
    for name in ("e.csv", "e.parquet", "e.jsonl", "e.tsv"):
        assert all_of(tmp_path / name) == HISTORIES


def test_dates_are_times(tmp_path):
    dates = ["2024-01-03", "2024-01-01", "2024-01-01", "2024-01-04", "2024-01-02"]
    rows = [(user, item, date) for (user, item, _), date in zip(EVENTS, dates)]
    pd.DataFrame(rows, columns=["user", "item", "date"]).to_csv(tmp_path / "e.csv", index=False)
    assert all_of(tmp_path / "e.csv") == HISTORIES
    rows[3] = ("ann", "d", "soon")
    pd.DataFrame(rows, columns=["user", "item", "date"]).to_csv(tmp_path / "e.csv", index=False)
    with pytest.raises(InputError, match="the time 'soon', which is neither a number nor a date"):
        all_of(tmp_path / "e.csv")
    (tmp_path / "e.csv").write_text("user,item,time\nann,a,inf\n")
    with pytest.raises(InputError, match="e.csv has a time that is infinite"):
        all_of(tmp_path / "e.csv")


def test_ready_histories_keep_their_names(tmp_path):
    lines = [json.dumps({"user": name, "items": items}) for name, items in HISTORIES]
    (tmp_path / "h.jsonl").write_text("\n".join(lines) + "\n\n")
    pd.DataFrame(HISTORIES, columns=["id", "items"]).to_parquet(tmp_path / "h.parquet")
    (tmp_path / "h.csv").write_text("user,items\nann,c a d\nbob,b a\n")
    for name in ("h.jsonl", "h.parquet", "h.csv"):
        assert all_of(tmp_path / name) == HISTORIES
    (tmp_path / "nameless.csv").write_text("items\nc a d\nb a\n")
    assert all_of(tmp_path / "nameless.csv") == [("0", ["c", "a", "d"]), ("1", ["b", "a"])]


def test_parts_are_of_the_size_asked_for(tmp_path):
    (tmp_path / "h.csv").write_text("items\n" + "a b\n" * 7)
    assert [len(part) for part in read_histories(tmp_path / "h.csv", 3)] == [3, 3, 1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "There is no file"),
        ("empty.csv", "user,item,time\n", "has no rows"),
        ("short.csv", "user,thing,time\na,b,1\n", "no column that is plainly the item: rename it"),
        ("torn.parquet", "PAR1", "cannot be read as its name says"),
        ("words.jsonl", '{"items": ["a"]}\nhello\n', "Line 2 of .*words.jsonl is no JSON object"),
        ("number.jsonl", '{"items": ["a"]}\n{"items": 5}\n', "Row 2 of .* has no list in its column items"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        all_of(tmp_path / name)
