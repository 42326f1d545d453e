"""What users of a recommender see: names in, a table out."""

import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import make_parts

from recbole_stream import Recommender
from recbole_stream.errors import InputError
from recbole_stream.serving.folder import write_model

MODELS = {kind: Recommender(make_parts(kind)) for kind in ("TIGER", "states", "verifier")}
HISTORIES = st.lists(st.integers(1, 40).map("i{}".format), min_size=1, max_size=30)


def lists(table: pd.DataFrame) -> list[list[str]]:
    return table.groupby("row")["item"].agg(list).tolist()


@pytest.mark.parametrize("kind", MODELS)
def test_the_table(kind):
    table = MODELS[kind].recommend([["i1", "i2"], ["i40"]], k=3)
    assert list(table) == ["row", "rank", "item", "title", "score"]
    assert table["row"].tolist() == [0, 0, 0, 1, 1, 1]
    assert table["rank"].tolist() == [1, 2, 3, 1, 2, 3]
    assert all(title == f"Title {item[1:]}" for item, title in zip(table["item"], table["title"]))
    assert all(scores.is_monotonic_decreasing for _, scores in table.groupby("row")["score"])
    assert not {"i1", "i2"} & set(table["item"][:3])


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=15, deadline=None)
@given(histories=st.lists(HISTORIES, min_size=2, max_size=5))
def test_batches_of_any_size_give_the_same_lists(kind, histories):
    together = lists(MODELS[kind].recommend(histories, k=5))
    assert together == [lists(MODELS[kind].recommend([history], k=5))[0] for history in histories]


def test_users_are_known_by_name_with_all_they_had():
    model = MODELS["states"]
    table = model.recommend(["u1", ["i1", "i2", "i3"]], k=40)
    first, second = lists(table)
    assert first == second
    assert len(first) == 37 and not {"i1", "i2", "i3"} & set(first)


def test_what_was_seen_may_come_back():
    model = MODELS["states"]
    assert len(lists(model.recommend(["u1"], k=40, exclude_seen=False))[0]) == 40


def test_only_the_latest_items_are_read_but_all_are_left_out():
    model = MODELS["states"]  # which reads 5
    long = [f"i{n}" for n in range(1, 21)]
    table = model.recommend([long], k=40)
    short = model.recommend([long[-5:]], k=40)
    assert lists(table)[0] == [item for item in lists(short)[0] if item not in long]


def test_unknown_items_are_counted_and_left_out(caplog):
    model = MODELS["states"]
    table = model.recommend([["i1", "nothing", "i2", "of those"], ["i5"]], k=4)
    assert table.attrs["unknown_items"] == 2
    assert "2 events with items that the model does not know" in caplog.text
    assert lists(table)[0] == lists(model.recommend([["i1", "i2"]], k=4))[0]


def test_candidates_are_ranked_and_nothing_else():
    model = MODELS["verifier"]
    everything = model.recommend([["i1", "i2"]], k=40)
    pool = ["i7", "i30", "i2", "i12"]
    table = model.recommend([["i1", "i2"]], k=10, candidates=pool)
    assert sorted(table["item"]) == ["i12", "i30", "i7"]  # i2 was seen
    table = model.recommend([["i1", "i2"], ["i3"]], k=1, candidates=[pool, ["i9", "i9"]])
    assert table["item"].tolist()[1] == "i9"
    assert len(everything) == 38


@pytest.mark.parametrize(
    ("histories", "options", "words"),
    [
        ([], {}, "There are no histories"),
        ("u1", {}, r"write \['u1'\]"),
        ([[]], {}, "History 0 is empty"),
        ([["i1"], ["x", "y"]], {}, "History 1 holds only unknown items, such as 'x'"),
        (["u9"], {}, "knows no user 'u9'"),
        ([["i1"]], {"k": 41}, "from 1 to the 40 items"),
        ([["i1"]], {"k": 0}, "from 1 to the 40 items"),
        ([["i1"]], {"k": True}, "k is True"),
        ([["i1"]], {"candidates": ["i2", "x"]}, "no item 'x', which is among candidates"),
        ([["i1"]], {"candidates": [["i2"], ["i3"]]}, "one list for each of the 1 histories"),
        ([["i1"]], {"candidates": []}, "one list for each"),
    ],
)
def test_bad_input_is_named(histories, options, words):
    with pytest.raises(InputError, match=words):
        MODELS["states"].recommend(histories, **options)


def test_a_model_opens_without_recbole(tmp_path):
    folder = write_model(tmp_path / "MODEL", make_parts("verifier"))
    expected = MODELS["verifier"].recommend([["i1", "i2"]], k=5)
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "recbole":
            raise ModuleNotFoundError(name)
import importlib.util
whole = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "recbole" else whole(name, *rest)
sys.meta_path.insert(0, Missing())
from recbole_stream import Recommender
print(",".join(Recommender.load({str(folder)!r}, "cpu").recommend([["i1", "i2"]], k=5)["item"]))
assert "recbole" not in sys.modules and "recbole_stream.host.models" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().split(",") == expected["item"].tolist()


def test_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        Recommender.load(tmp_path / "MODEL")
    with pytest.raises(InputError, match="holds no model"):
        Recommender.load(tmp_path)
