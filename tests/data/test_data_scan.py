"""One look at every row: counts, and the line of the first of each kind."""

import numpy as np
import pytest

from recbole_stream.data.scan import Scan, scan_file
from tests.cases import write_case


def scanned(times, users=None):
    scan = Scan(["user"], time="time")
    users = users or [f"u{n}" for n in range(len(times))]
    scan.add(np.arange(2, len(times) + 2), list(zip(users, times)), {"user": users, "time": times})
    scan.finish()
    return scan


def test_each_kind_is_counted_with_its_first_line():
    scan = scanned(["5", "", "yesterday", "2020-01-01", "NA", "7"], users=["a", "", "", "b", "c", "d"])
    assert scan.rows == 6
    found = (scan.empty["user"], scan.empty["time"], scan.words["time"], scan.dates, scan.figures)
    assert [(kind.count, kind.line) for kind in found] == [(2, 3), (2, 3), (1, 4), (1, 5), (2, 2)]
    faults = scan.faults("F", "fill it in")
    assert faults[0] == "2 of 6 rows of F have no time (first: line 3): fill it in."
    assert faults[1] == "Line 4 of F has 'yesterday' as time: write times as seconds or as ISO dates."
    assert "numbers as time in 2 lines (first: line 2, '5') and dates in 1 (first: line 5, '2020-01-01')" in faults[2]


def test_units_of_times():
    scan = scanned(["1600000000", "1600000000000", "1600000001", "1600000000000000"])
    assert (
        "2 lines in seconds (first: line 2, 1600000000) and 1 lines in milliseconds (first: line 3"
        in scan.mixed_units("F")
    )
    assert "1 lines in microseconds (first: line 5" in scan.mixed_units("F")
    for alike in (["1600000000", "1700000000"], ["1600000000000"], ["1", "2", "300"], ["20200101", "20210101"]):
        assert scanned(alike).mixed_units("F") is None


def test_times_that_stand_for_unknown():
    assert "1 of 2 rows of F have a time before 1973 (first: line 3, -1)" in scanned(["1600000000", "-1"]).early_times(
        "F"
    )
    assert scanned(["0", "1", "2"]).early_times("F") is None


def test_repeated_rows_in_several_parts():
    scan = Scan(["user"])
    for lines, rows in (([2, 3], ["a", "b"]), ([5, 6, 7], ["a", "c", "a"])):
        scan.add(np.array(lines), rows, {"user": rows})
    scan.finish()
    assert (scan.repeated.count, scan.repeated.line, scan.repeated.cell) == (2, 5, "2")
    assert "2 of 5 rows of F are the same as an earlier one (first: line 5, the same as line 2)" in scan.repeats(
        "F", "x"
    )
    assert scanned(["1", "1"]).repeats("F", "x") is None


@pytest.mark.parametrize(("case", "repeated"), [("toy", 0), ("twice", 1)])
def test_a_file_is_looked_at_once_while_it_does_not_change(tmp_path, case, repeated):
    path = tmp_path / case / f"{case}.inter"
    write_case(tmp_path, case)
    scan = scan_file(path, ["user_id", "item_id"], time="timestamp")
    assert scan.repeated.count == repeated * scan.rows // 2
    assert scan_file(path, ["user_id", "item_id"], time="timestamp") is scan
    path.write_text(path.read_text() + "u\t\t1\n")
    again = scan_file(path, ["user_id", "item_id"], time="timestamp")
    assert again.rows == scan.rows + 1 and again.empty["item_id"].line == scan.rows + 2
