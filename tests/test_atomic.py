"""How a line of an atomic file becomes cells, and cells become numbers."""

import math

import numpy as np
import pytest

from recbole_stream.atomic import parse_numbers, read_header, read_rows, read_table, unquoted
from recbole_stream.errors import InputError


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "x.inter"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ('"a"', "a"),
        ('"a ""b"" c"', 'a "b" c'),
        ('""', ""),
        ('"a', '"a'),
        ('a"', 'a"'),
        ('"', '"'),
        ('"""', '"""'),
        ('"Best" of "all"', '"Best" of "all"'),
        ("", ""),
    ],
)
def test_quotes_count_where_they_enclose_the_whole_cell(cell, read):
    assert unquoted(cell) == read


def test_rows_keep_the_numbers_of_their_lines(tmp_path):
    path = write(tmp_path, '\ufeff"a:token"\tb:token\r\n1\t"x"\r\n\r\n2\r\n3\ty\t\t\r\n')
    assert read_header(path) == ["a:token", "b:token"]
    (rows,) = read_rows(path, ["b", "a:token"])
    assert rows.lines.tolist() == [2, 4, 5]
    assert rows.cells == {"b": ["x", "", "y"], "a:token": ["1", "2", "3"]}


def test_more_lines_than_are_held_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("recbole_stream.atomic._CHUNK", 3)
    path = write(tmp_path, "a:token\tb:float\n" + "".join(f"n{n}\t{n}\n" for n in range(8)))
    assert [rows.lines.tolist() for rows in read_rows(path, ["a"])] == [[2, 3, 4], [5, 6, 7], [8, 9]]
    table = read_table(path, {"a:token": str, "b:float": np.float64})
    assert table["a:token"].tolist() == [f"n{n}" for n in range(8)]
    assert table["b:float"].tolist() == list(range(8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:token\tb:token\n1\tx\n2\ty\tz\n", "Line 3 of .* has 3 columns where the header has 2"),
        (
            'a:token\tb:token\n1\tx\n2\n3\t"y\n\n"\n',
            "Line 6 of .* opens a quote in column 1 that does not end on its line",
        ),
        ('a:token\tb:token\n"two\nlines"\tx\n', "Line 2 of .* opens a quote in column 1"),
        ("a:token\tb:float\n1\t2\n2\tmany\n", "Line 3 of .* has 'many' as b: write a number"),
    ],
)
def test_lines_that_cannot_be_read_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_table(
            write(tmp_path, text),
            {"a:token": str, text.split("\t")[1].split("\n")[0]: float if "float" in text else str},
        )


def test_only_an_empty_name_is_missing(tmp_path):
    names = ["NA", "null", "None", "nan", "N/A", "", '""']
    path = write(tmp_path, "a:token\tb:float\n" + "".join(f"{name}\tNA\n" for name in names))
    table = read_table(path, {"a:token": str, "b:float": np.float64})
    assert table["a:token"].isna().tolist() == [False] * 5 + [True] * 2
    assert table["a:token"].tolist()[:5] == names[:5]
    assert table["b:float"].isna().all()


def test_cells_as_numbers():
    cells = [
        "12",
        " 1e3 ",
        "",
        "NA",
        "1970-01-02",
        "1970-01-01T01:00:00+01:00",
        "1970-01-01 00:01:00.5 UTC",
        "soon",
        "inf",
        "now",
    ]
    numbers = parse_numbers(cells)
    assert numbers.values[:2].tolist() == [12, 1000]
    assert numbers.values[4:7].tolist() == [86400, 0, 60.5]
    assert all(map(math.isnan, numbers.values[[2, 3, 7, 8, 9]]))
    assert np.flatnonzero(numbers.empty).tolist() == [2, 3]
    assert np.flatnonzero(numbers.dates).tolist() == [4, 5, 6]
    assert np.flatnonzero(numbers.words).tolist() == [7, 8, 9]


def test_plain_numbers_take_no_detour():
    numbers = parse_numbers(["1600000000", "0.1", "-1"])
    assert numbers.values.tolist() == [1600000000, 0.1, -1]
    assert not (numbers.empty.any() or numbers.dates.any() or numbers.words.any())
