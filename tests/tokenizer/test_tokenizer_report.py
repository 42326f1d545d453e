"""Statistics of a tokenizer against values worked out by hand."""

import json
import math

import numpy as np
import pytest

from recbole_stream.tokenizer.report import (
    collision_summary,
    level_usage,
    perplexity,
    reconstruction_error,
    save_report,
)


@pytest.mark.parametrize(
    "counts, expected",
    [
        ([3, 3, 3, 3], 4.0),
        ([0, 7, 0], 1.0),
        # p = 1/2, 1/4, 1/4: entropy (1/2) ln 2 + 2 (1/4) ln 4 = 1.5 ln 2, so 2^1.5.
        ([4, 2, 2, 0], 2**1.5),
    ],
)
def test_perplexity(counts, expected):
    assert perplexity(np.array(counts)) == pytest.approx(expected)


def test_level_usage():
    levels = level_usage(np.array([[0, 1], [0, 1], [2, 1], [0, 1]]), (4, 2))
    # Level 1: three of code 0, one of code 2: exp(-(.75 ln .75 + .25 ln .25)).
    assert levels[0]["perplexity"] == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert (levels[0]["used"], levels[0]["dead"], levels[0]["counts"]) == (2, 2, [3, 0, 1, 0])
    assert (levels[1]["codebook_size"], levels[1]["used"], levels[1]["dead"], levels[1]["perplexity"]) == (2, 1, 1, 1)


def test_collision_summary():
    # IDs: a a a b b c: three distinct of six, five items share, in two groups of at most three.
    codes = np.array([[0, 1], [0, 1], [2, 2], [0, 1], [2, 2], [1, 1]])
    assert collision_summary(codes) == {"rate": 0.5, "items": 5, "groups": 2, "largest_group": 3}
    assert collision_summary(np.array([[0, 1], [1, 0]])) == {"rate": 0, "items": 0, "groups": 0, "largest_group": 1}


def test_reconstruction_error():
    # Points 0 and 4, rebuilt as 1 and 4: errors 1 and 0, mean .5; variance around 2 is 4; .5 / 4 = .125.
    error = reconstruction_error(np.array([[0.0], [4.0]]), lambda rows: np.array([[1.0], [4.0]])[rows])
    assert error == {"absolute": 0.5, "relative": 0.125}


def test_reconstruction_error_of_items_that_are_all_equal():
    assert reconstruction_error(np.ones((3, 2)), lambda rows: np.ones((3, 2))[rows]) == {"absolute": 0, "relative": 0}


def test_report_is_saved_as_json_and_picture(tmp_path):
    codes = np.array([[0, 0], [0, 0], [1, 1]])
    report = {
        "method": "rq_kmeans",
        "unique": "reassign",
        "items": 3,
        "levels": level_usage(np.array([[0, 0], [0, 1], [1, 1]]), (2, 2)),
        "levels_before": level_usage(codes, (2, 2)),
        "collisions_before": collision_summary(codes),
        "items_moved": 1,
    }
    save_report(report, tmp_path / "new" / "folder")
    assert json.loads((tmp_path / "new/folder/tokenizer.json").read_text()) == report
    assert (tmp_path / "new/folder/tokenizer.png").read_bytes().startswith(b"\x89PNG")
