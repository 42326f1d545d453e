"""The command ``index``: a model's folder gets one, by which it ranks as it did before or nearly so."""

import numpy as np
import pandas as pd
import pytest
from parts import make_parts

from recbole_stream import __main__ as package
from recbole_stream.model import views
from recbole_stream.serving.folder import read_model, write_model
from recbole_stream.serving.new_items import with_items
from recbole_stream.serving.recommender import Recommender

pytest.importorskip("faiss", reason='faiss is not installed (the extra "index")')

HISTORIES = [["i1", "i2", "i3"], ["i4"], ["i7", "i9"]]


def lists(folder):
    found = Recommender.load(folder)
    return found.recommend(HISTORIES, 8)


@pytest.mark.parametrize("kind", ["states", "deliberation", "verifier"])
def test_a_model_with_an_index_gives_the_same_where_all_is_looked_at(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(views, "_MARGIN", 1)
    folder = write_model(tmp_path / "MODEL", make_parts(kind))
    before = lists(folder)
    assert package.main(["index", str(folder), "--recall=1"]) == 0
    assert "The index finds 100.0% of the 10 items" in capsys.readouterr().out
    parts = read_model(folder)
    assert 1 <= parts.config["index"]["probes"] <= 10 and len(parts.tensors["index.lists"]) == 40
    parts.config["index"]["probes"] = 10  # all there are: which of them matter differs between histories
    after = lists(write_model(tmp_path / "WIDE", parts))
    assert after["item"].tolist() == before["item"].tolist()
    assert np.allclose(after["score"], before["score"], atol=1e-3)
    assert package.main(["index", str(folder), "--recall=.5", f"--output={tmp_path / 'AGAIN'}"]) == 0
    assert len(read_model(tmp_path / "AGAIN").tensors["index.lists"]) == 40


def test_items_added_later_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "_MARGIN", 1)
    folder = write_model(tmp_path / "MODEL", make_parts("deliberation"))
    assert package.main(["index", str(folder), "--recall=1"]) == 0
    parts = read_model(folder)
    parts.config["index"]["probes"] = 10
    new = pd.DataFrame({"item": ["n1"], "title": ["New"]})
    grown = with_items(parts, new, parts.tensors["text"][2:3].numpy())  # the text of i3
    del grown.config["index"]
    without = Recommender(grown).recommend(HISTORIES, 30)
    grown.config["index"] = parts.config["index"]
    found = Recommender(grown).recommend(HISTORIES, 30)
    assert "n1" in set(found["item"]) and found["item"].tolist() == without["item"].tolist()


@pytest.mark.parametrize(
    "kind, words, sentence",
    [
        ("TIGER", [], "ranks by its likelihood alone"),
        ("likelihood", [], "ranks by its likelihood alone"),
        ("states", [], "An index gains nothing for 40 items"),
        ("deliberation", [], "An index gains nothing for 40 items"),
        ("states", ["--recall=0"], "--recall is 0"),
        ("states", ["--recall=1.5"], "--recall is 1.5"),
    ],
)
def test_bad_input_ends_with_a_sentence_and_changes_nothing(kind, words, sentence, tmp_path, capsys):
    folder = write_model(tmp_path / "MODEL", make_parts(kind))
    before = (folder / "config.json").read_bytes()
    assert package.main(["index", str(folder), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == before


def test_a_folder_without_users_is_refused(tmp_path, capsys):
    parts = make_parts("states")
    parts.users = parts.users[:0]
    assert package.main(["index", str(write_model(tmp_path / "MODEL", parts))]) == 2
    assert "--no-users" in capsys.readouterr().err
