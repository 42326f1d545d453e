"""Product text: what is kept, what is dropped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_stream.data.amazon_files import RELEASES
from recbole_stream.data.amazon_text import (
    ITEM_HEADER,
    MAX_CHARACTERS,
    atomic_cell,
    clean_text,
    item_cells,
    parse_price,
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Rock &amp; Roll &quot;Best&quot;", 'Rock & Roll "Best"'),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("one<br>two<BR/>three", "one two three"),
        ('<p class="a">bold <b>word</b></p>', "bold word"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("before<script>var a = 1;</script>after", "before after"),
        ("before<!-- <p>hidden</p> -->after", "before after"),
        ("<NEW> guitar </NEW>, <NA>", "<NEW> guitar </NEW>, <NA>"),
        ("<H2>Head</H2><script>", "Head"),
        ("sizes < 5 and > 3, I <3 it", "sizes < 5 and > 3, I <3 it"),
        ("tab\tand\r\nlines\u2028and\x0bmore\x00", "tab and lines and more"),
        ("broken \ud83d half", "broken half"),
        ("Gitarre für 5 €, 日本", "Gitarre für 5 €, 日本"),
        ("   ", ""),
        ("var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();", ""),
        (".a-box-inner{background-color:#fff}#olpDiv{margin:0}", ""),
        ("(function(f) {var _np=(window.P._namespace('x'));", ""),
        ("Functions of a Var {Deluxe}", "Functions of a Var {Deluxe}"),
    ],
)
def test_clean_text(raw, expected):
    assert clean_text(raw) == expected


@given(st.text())
def test_clean_text_is_one_printable_line(raw):
    text = clean_text(raw)
    assert text == " ".join(text.split())
    text.encode("utf-8")
    assert "\x00" not in text


def test_long_text_ends_between_words():
    # Words of 9 letters and a space: 200 of them and 199 spaces are 1,999 characters, the 201st does not fit.
    text = clean_text("wordwordw " * 500)
    assert text == " ".join(["wordwordw"] * 200)
    # Without a space to cut at: the limit itself.
    assert clean_text("x" * 5000) == "x" * MAX_CHARACTERS
    # Exactly the limit is not too long.
    assert clean_text("y" * MAX_CHARACTERS) == "y" * MAX_CHARACTERS


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (17.95, 17.95),
        (3, 3.0),
        ("$12.99", 12.99),
        ("$1,299.00", 1299.0),
        ("$5.00 - $9.00", 5.0),
        ("from 4.50", 4.5),
        ("—", None),
        ("", None),
        (None, None),
        (float("nan"), None),
        (".a-box-inner{background-color:#fff}", None),
    ],
)
def test_price(raw, expected):
    assert parse_price(raw) == expected


def test_only_risky_cells_are_guarded():
    assert atomic_cell("NA") == " NA"
    assert atomic_cell('"Best" of') == ' "Best" of'
    assert atomic_cell('23" wide') == '23" wide'
    assert atomic_cell("NA Guitars") == "NA Guitars"
    assert atomic_cell("") == ""


def test_row_of_2014():
    record = {
        "asin": "0006428320",
        "title": "Six Sonatas (#4-6)",
        "price": 17.95,
        "brand": "Chester",
        "categories": [["Musical Instruments", "Sheet Music"], ["Musical Instruments", "Flutes"]],
        "description": "For two <i>flutes</i>.",
    }
    # The shelf that both paths share appears once; 2014 has no features.
    assert item_cells("0006428320", record, RELEASES["2014"]) == [
        "0006428320", "Six Sonatas (#4-6)", "Chester", "Musical Instruments, Sheet Music, Flutes", "",
        "For two flutes .", "17.95",
    ]  # fmt: skip


def test_row_of_2018():
    record = {
        "asin": "B000000001",
        "title": "<span class='a-size-large'>Null modem</span>",
        "brand": "by\n    \n    Acme",
        "category": ["Industrial & Scientific", "Cables &amp; Wires"],
        "feature": ["1 m long", "", "Shielded"],
        "description": ["First.", "Second."],
        "price": ".a-section{margin:0}",
    }
    cells = item_cells("B000000001", record, RELEASES["2018"])
    assert cells[1:] == [
        "Null modem", "Acme", "Industrial & Scientific, Cables & Wires", "1 m long Shielded", "First. Second.", "",
    ]  # fmt: skip


def test_row_of_2023():
    record = {
        "parent_asin": "B0BX",
        "title": "NA",
        "store": '"Quoted" Store',
        "categories": [],
        "features": ["a"],
        "description": [],
        "price": None,
        "main_category": "ignored",
    }
    assert item_cells("B0BX", record, RELEASES["2023"]) == ["B0BX", " NA", ' "Quoted" Store', "", "a", "", ""]


def test_row_without_metadata_has_every_column():
    assert item_cells("B1", {}, RELEASES["2023"]) == ["B1"] + [""] * (len(ITEM_HEADER) - 1)


def test_joined_pieces_are_cut_too():
    # Two pieces of 1,500 and 1,500 characters and a space exceed 2,000: cut at that space.
    record = {"description": ["a" * 1500, "b" * 1500]}
    assert item_cells("B1", record, RELEASES["2018"])[ITEM_HEADER.index("description:token_seq")] == "a" * 1500
