"""The official formats, in files exactly as upstream has them."""

import gzip
import json
import re

import pytest

from recbole_stream.data.amazon_files import RELEASES, read_interactions, read_metadata
from recbole_stream.errors import InputError

REVIEW_2014 = {
    "reviewerID": "A2SUAM1J3GNN3B",
    "asin": "0000013714",
    "reviewerName": "J. McDonald",
    "helpful": [2, 3],
    "reviewText": "I bought this for my husband who plays the piano.",
    "overall": 5.0,
    "summary": "Heavenly Highway Hymns",
    "unixReviewTime": 1252800000,
    "reviewTime": "09 13, 2009",
}
REVIEW_2018 = {
    "overall": 4.0,
    "vote": "3",
    "verified": True,
    "reviewTime": "10 20, 2014",
    "reviewerID": "A1C6M8LCIX4M6M",
    "asin": "0140503528",
    "style": {"Format:": " Hardcover"},
    "reviewerName": "June Bug",
    "reviewText": 'Nice "cover"\nand \u2028 pages',
    "summary": "Four stars",
    "unixReviewTime": 1413763200,
}
REVIEW_2023 = {
    "rating": 5.0,
    "title": "Such a lovely scent",
    "text": "This spray is really nice.<br />Love it",
    "images": [],
    "asin": "B00YQ6X8EO",
    "parent_asin": "B00YQ6X8EP",
    "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
    "timestamp": 1588687728923,
    "helpful_vote": 0,
    "verified_purchase": True,
}


def packed(path, text):
    path.write_bytes(gzip.compress(text.encode("utf-8")))
    return path


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize(
    ("version", "name", "text", "expected"),
    [
        ("2014", "reviews_Books_5.json.gz", lines(REVIEW_2014), ("A2SUAM1J3GNN3B", "0000013714", 5.0, 1252800000)),
        ("2018", "Books_5.json.gz", lines(REVIEW_2018), ("A1C6M8LCIX4M6M", "0140503528", 4.0, 1413763200)),
        # 2023: the parent product, and milliseconds.
        (
            "2023", "Books.jsonl.gz", lines(REVIEW_2023),
            ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EP", 5.0, 1588687728923),
        ),
        # 2014 has the user first, 2018 the item.
        (
            "2014", "ratings_Books.csv", "AKM1MP6P0OYPR,0132793040,5.0,1365811200\n",
            ("AKM1MP6P0OYPR", "0132793040", 5.0, 1365811200),
        ),
        (
            "2018", "Books.csv", "0001713353,A1C6M8LCIX4M6M,5.0,1123804800\n",
            ("A1C6M8LCIX4M6M", "0001713353", 5.0, 1123804800),
        ),
        (
            "2023", "Books.csv.gz",
            "user_id,parent_asin,rating,timestamp\nAGKHLEW2SOWHNMFQIJGBECAF7INQ,B081TJ8YS3,4.0,1588615855070\n",
            ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B081TJ8YS3", 4.0, 1588615855070),
        ),
    ],
)  # fmt: skip
def test_interactions(tmp_path, version, name, text, expected):
    path = tmp_path / name
    if name.endswith(".gz"):
        packed(path, text)
    else:
        path.write_text(text, encoding="utf-8")
    assert list(read_interactions(path, RELEASES[version])) == [expected]


def test_csv_with_windows_line_ends(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_bytes(b"U1,I1,5.0,10\r\nU2,I1,4.0,11\r\n\r\n")
    assert list(read_interactions(path, RELEASES["2014"])) == [("U1", "I1", 5.0, 10), ("U2", "I1", 4.0, 11)]


@pytest.mark.parametrize(
    ("version", "name", "text", "message"),
    [
        ("2018", "x.json", lines(REVIEW_2023), "Line 1 of .* has no 'reviewerID'.*--version"),
        ("2023", "x.jsonl", lines(REVIEW_2023) + "{oops\n", "Line 2 of .* is not a JSON object"),
        ("2023", "x.jsonl", "[1, 2]\n", "Line 1 of .* is not a JSON object"),
        ("2014", "x.json", lines(REVIEW_2014 | {"unixReviewTime": "soon"}), "Line 1 .* time 'soon'.*--version"),
        ("2014", "x.json", lines(REVIEW_2014 | {"reviewerID": "two words"}), "Line 1 .*user 'two words'"),
        ("2014", "x.json", lines(REVIEW_2014 | {"unixReviewTime": 2**70}), "Line 1 .* is no review"),
        ("2023", "x.csv", "A,B,5.0,1\n", "does not begin with the header user_id,parent_asin,rating,timestamp"),
        ("2014", "x.csv", "A,B,5.0,1\nA,B,5.0\n", "Line 2 of .* has 3 columns"),
        # Files of the other release: the order of the ids gives them away.
        ("2014", "x.csv", "0001713353,A1C6M8LCIX4M6M,5.0,1123804800\n", "in the other order"),
        ("2018", "x.csv", "AKM1MP6P0OYPR,B000000001,5.0,1365811200\n", "in the other order"),
        ("2014", "x.txt", "A,B,5.0,1\n", "neither .csv, .json nor .jsonl"),
    ],
)
def test_wrong_files_say_so(tmp_path, version, name, text, message):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        list(read_interactions(path, RELEASES[version]))


def test_damaged_archive(tmp_path):
    path = packed(tmp_path / "x.json.gz", lines(*[REVIEW_2014] * 50))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged or was cut off.*download it again"):
        list(read_interactions(path, RELEASES["2014"]))


def test_not_utf8(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"U\xff,I1,5.0,10\n")
    with pytest.raises(InputError, match="damaged"):
        list(read_interactions(path, RELEASES["2014"]))


def test_metadata_of_2014_are_python_literals(tmp_path):
    wanted = {"asin": "0000031852", "title": "Girl's Tutu", "price": 3.17, "categories": [["Sports"]]}
    other = {"asin": "0000031853", "title": "Not asked for"}
    # repr() is how the release wrote them: single quotes, and double ones around an apostrophe.
    path = packed(tmp_path / "meta.json.gz", f"{wanted!r}\n{other!r}\n")
    assert '"Girl\'s Tutu"' in repr(wanted)
    assert list(read_metadata(path, RELEASES["2014"], {"0000031852"})) == [("0000031852", wanted)]


@pytest.mark.parametrize(("version", "key"), [("2018", "asin"), ("2023", "parent_asin")])
def test_metadata_in_json(tmp_path, version, key):
    wanted = {"title": 'Says "asin": "B2" \\', key: "B1", "description": ["x"]}
    other = {key: "B2", "title": None}
    path = packed(tmp_path / "meta.json.gz", lines(wanted, other))
    assert list(read_metadata(path, RELEASES[version], {"B1"})) == [("B1", wanted)]


def test_metadata_is_not_parsed_where_the_id_is_not_wanted(tmp_path):
    path = tmp_path / "meta.json"
    path.write_text('{"asin": "B2", cut off\n{"asin": "B1"}\n', encoding="utf-8")
    assert list(read_metadata(path, RELEASES["2018"], {"B1"})) == [("B1", {"asin": "B1"})]


@pytest.mark.parametrize(
    ("version", "line", "message"),
    [
        ("2018", "{'asin': 'B1'}", "is not a JSON object, as release 2018 has them.*--version"),
        ("2014", '{"asin": "B1", "title": null}', "is not a Python object, as release 2014 has them"),
        ("2018", '{"parent_asin": "B1"}', "has no 'asin': pass the metadata that belongs to release 2018"),
        ("2014", "__import__('os').getcwd()", "is not a Python object"),
    ],
)
def test_metadata_of_another_release(tmp_path, version, line, message):
    path = tmp_path / "meta.json"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        list(read_metadata(path, RELEASES[version], {"B1"}))


def test_messages_are_one_sentence(tmp_path):
    with pytest.raises(InputError) as caught:
        list(read_interactions(tmp_path / "absent.json.gz", RELEASES["2014"]))
    assert "absent.json.gz" in str(caught.value) and "\n" not in str(caught.value)
    assert re.search(r"\.$", str(caught.value))
