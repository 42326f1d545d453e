"""read_item_text: the `.item` file as it is, without quoting."""

import pytest

from recbole_stream.errors import InputError
from recbole_stream.text.item_text import read_item_text, text_columns

HEADER = "item_id:token\ttitle:token_seq\tyear:token\tclass:token_seq\n"


def write(tmp_path, body, header=HEADER, encoding="utf-8"):
    path = tmp_path / "toy.item"
    path.write_bytes((header + body).encode(encoding))
    return path


def test_fields_become_sentences_in_the_order_asked_for(tmp_path):
    path = write(tmp_path, "1\tToy Story\t1995\tAnimation Comedy\n")
    assert read_item_text(path, ["title", "year", "class"], ["1"]) == ["Toy Story. 1995. Animation Comedy."]
    assert read_item_text(path, ["class", "title"], ["1"]) == ["Animation Comedy. Toy Story."]


def test_texts_follow_the_item_tokens_not_the_file(tmp_path):
    path = write(tmp_path, "b\tBee\t\t\na\tAy\t\t\nc\tSea\t\t\n")
    assert read_item_text(path, ["title"], ["a", "c", "absent", "b"]) == ["Ay.", "Sea.", "", "Bee."]


@pytest.mark.parametrize(
    "title, expected",
    [
        ('"Unbalanced', '"Unbalanced.'),
        ('12" vinyl "mint"', '12" vinyl "mint".'),
        ("NA", "NA."),
        ("null", "null."),
        ("  spaced \u00a0 out  ", "spaced out."),
        ("Who? What!", "Who? What!"),
        ("Ends already.", "Ends already."),
        ("form\x0cfeed and \u2028 separator", "form feed and separator."),
        ("", ""),
    ],
)
def test_titles_that_break_csv_readers_survive(tmp_path, title, expected):
    path = write(tmp_path, f"1\t{title}\t\t\n2\tNext\t\t\n")
    assert read_item_text(path, ["title"], ["1", "2"]) == [expected, "Next."]


def test_windows_line_ends_byte_order_mark_and_short_rows(tmp_path):
    path = write(tmp_path, "1\tOne\t1990\tA\r\n2\tTwo\r\n", header=HEADER.replace("\n", "\r\n"), encoding="utf-8-sig")
    assert read_item_text(path, ["title", "class"], ["1", "2"]) == ["One. A.", "Two."]


def test_first_row_of_an_item_counts(tmp_path):
    path = write(tmp_path, "1\t\t\t\n1\tLater\t\t\n")
    assert read_item_text(path, ["title"], ["1"]) == [""]


def test_missing_column_names_those_there_are_and_both_keys(tmp_path):
    path = write(tmp_path, "1\tOne\t1990\tA\n")
    message = "no column brand.*item_id, title, year, class.*`text_fields`.*`semantic_ids_file`"
    with pytest.raises(InputError, match=message):
        read_item_text(path, ["title", "brand"], ["1"])


def test_missing_file_empty_fields_and_long_row_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="nowhere.item.*`text_fields`.*`semantic_ids_file`"):
        read_item_text(tmp_path / "nowhere.item", ["title"], ["1"])
    path = write(tmp_path, "1\tOne\t1990\tA\textra\n")
    with pytest.raises(InputError, match="`text_fields` is empty.*`semantic_ids_file`"):
        read_item_text(path, [], ["1"])
    with pytest.raises(InputError, match="Line 2 .* 5 columns where the header has 4"):
        read_item_text(path, ["title"], ["1"])


def test_other_separator_and_id_field(tmp_path):
    path = write(tmp_path, "x;Red\n", header="asin:token;color:token\n")
    assert read_item_text(path, ["color"], ["x"], id_field="asin", separator=";") == ["Red."]


def test_empty_cells_beyond_the_header_are_no_columns(tmp_path):
    path = write(tmp_path, "1\tOne\t1990\tA\t\n")
    assert read_item_text(path, ["title"], ["1"]) == ["One."]


def test_items_under_other_ids_are_named(tmp_path):
    path = write(tmp_path, "i1\tOne\t\t\ni2\tTwo\t\t\n")
    with pytest.raises(
        InputError, match=r"no row of any of the 2 items: its item_id \(such as 'i2'\) .* \(such as '1'\)"
    ):
        read_item_text(path, ["title"], ["1", "2"])
    with pytest.raises(InputError, match=r"its item_id \(none\)"):
        read_item_text(write(tmp_path, ""), ["title"], ["1", "2"])


def test_missing_id_column_is_not_a_matter_of_text_fields(tmp_path):
    path = write(tmp_path, "1\tOne\t1990\tA\n")
    with pytest.raises(InputError, match="no column asin, which names the items") as caught:
        read_item_text(path, ["title"], ["1"], id_field="asin")
    assert "text_fields" not in str(caught.value)


def test_other_encodings(tmp_path):
    path = write(tmp_path, "1\tAmélie\t2001\tComédie\n", encoding="latin-1")
    assert read_item_text(path, ["title"], ["1"], encoding="latin-1") == ["Amélie."]
    with pytest.raises(InputError, match=r"is not in utf-8 \(byte 0xe9\): .*`encoding`"):
        read_item_text(path, ["title"], ["1"])


def test_columns_of_words(tmp_path):
    header = "price:float\ttitle:token_seq\titem_id:token\tbrand:token\tvector:float_seq\n"
    path = write(tmp_path, "", header=header)
    assert text_columns(path) == ["title", "brand"]
    assert text_columns(path, id_field="brand") == ["title", "item_id"]
    with pytest.raises(InputError, match="no column of words .* but item_id, price: .*`semantic_ids_file`"):
        text_columns(write(tmp_path, "", header="item_id:token\tprice:float\n"))
    with pytest.raises(InputError, match="no item file .*nowhere.item .*`semantic_ids_file`"):
        text_columns(tmp_path / "nowhere.item")


def test_quotes_around_whole_cells_are_none_of_their_text(tmp_path):
    path = write(
        tmp_path,
        '"1"\t"The ""Best"" Lamp"\t"A"\n"2\t"Best" of "all"\tB\n',
        header="item_id:token\ttitle:token_seq\tclass:token\n",
    )
    assert read_item_text(path, ["title", "class"], ["1", '"2']) == ['The "Best" Lamp. A.', '"Best" of "all". B.']


def test_a_quoted_title_that_goes_on_in_the_next_line(tmp_path):
    path = write(tmp_path, '1\t"One\nmore"\n', header="item_id:token\ttitle:token_seq\tclass:token\n")
    with pytest.raises(InputError, match="Line 2 of .* opens a quote in column 2 that does not end on its line"):
        read_item_text(path, ["title"], ["1"])
