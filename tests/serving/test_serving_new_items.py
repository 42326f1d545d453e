"""Items that came after the training are ranked, and nothing else changes."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from parts import make_parts

from recbole_stream import __main__ as package
from recbole_stream.errors import InputError
from recbole_stream.serving.folder import read_model, write_model
from recbole_stream.serving.networks import build_ranker
from recbole_stream.serving.new_items import add_items, with_items
from recbole_stream.serving.recommender import Recommender

NEW = pd.DataFrame({"item": ["n1", "n2", "n3"], "title": ["New 1", "New 2", "New 3"]})
HISTORIES = torch.tensor([[1, 2, 3], [4, 0, 0], [7, 9, 0]])


def vectors(count: int = 3) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, 6)).astype(np.float32)


@pytest.mark.parametrize("kind", ["states", "deliberation", "verifier", "pointer"])
def test_old_items_keep_their_scores(kind):
    parts = make_parts(kind)
    before = build_ranker(parts.config, parts.tensors)
    grown = with_items(parts, NEW, vectors())
    after = build_ranker(grown.config, grown.tensors)
    slow, wide = before.network.deliberation, after.network.deliberation
    # matching is a softmax over more items: all logits of a history are moved by the same amount
    assert torch.allclose(wide.matcher(HISTORIES)[:, 1:41], slow.matcher(HISTORIES)[:, 1:], atol=1e-5)
    assert torch.equal(wide.transitions(HISTORIES)[:, :41], slow.transitions(HISTORIES))
    assert torch.allclose(wide.content(HISTORIES)[:, :41], slow.content(HISTORIES), atol=1e-6)
    assert (wide.transitions(HISTORIES)[:, 41:] == 0).all()
    if kind not in ("verifier", "pointer"):  # a weighted sum moves with the softmax as a whole, so that the order stays
        everything = torch.arange(1, 41).expand(3, -1)
        own, theirs = (ranker.scores(HISTORIES, everything) for ranker in (after, before))
        assert torch.equal(own.argsort(1), theirs.argsort(1))
        before.candidates = after.candidates = 60
        items, _ = after.rank(HISTORIES, 43)
        lists, _ = before.rank(HISTORIES, 40)
        assert [row[row <= 40].tolist() for row in items] == lists.tolist()
        assert all(set(row.tolist()) >= {41, 42, 43} for row in items)


def test_what_a_new_item_has_and_what_not():
    parts = make_parts("verifier")
    grown = with_items(parts, NEW, vectors())
    tensors = grown.tensors
    assert (tensors["network.tokens.table"][:41] == parts.tensors["network.tokens.table"]).all()
    codes = tensors["network.tokens.table"][1:] - tensors["network.tokens.offsets"]
    assert len(codes.unique(dim=0)) == 43
    median = sorted(parts.tensors["popularity"][1:].tolist())[19]  # the lower one of 40
    assert tensors["popularity"][41:].tolist() == [median] * 3
    assert with_items(parts, NEW, vectors(), events=1).tensors["popularity"][41:].tolist() == [1] * 3
    assert np.array_equal(tensors["text"][40:].numpy(), vectors())
    assert (tensors["network.deliberation.matcher.own.weight"][41:] == 0).all()
    assert grown.items["item"].tolist()[39:] == ["i40", "n1", "n2", "n3"]
    assert grown.items["title"].tolist()[40] == "New 1"
    assert "3 items were added" in grown.card
    assert len(parts.items) == 40  # and is what it was


def test_one_after_the_other_is_both_at_once():
    together = with_items(make_parts("verifier"), NEW, vectors())
    first = with_items(make_parts("verifier"), NEW[:1], vectors()[:1])
    second = with_items(first, NEW[1:], vectors()[1:])
    assert together.tensors.keys() == second.tensors.keys()
    for name, value in together.tensors.items():
        assert torch.allclose(value, second.tensors[name]), name
    assert together.config == second.config


def test_a_new_item_is_found_by_its_text():
    parts = make_parts("deliberation")
    weights = parts.tensors["network.deliberation.weights"] = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0])
    assert weights.sum() == 1  # text alone
    grown = with_items(parts, NEW, parts.tensors["text"][[6, 0, 1]].numpy())  # n1 reads as i7 does
    items, _ = build_ranker(grown.config, grown.tensors).rank(torch.tensor([[7]]), 2)
    assert set(items[0].tolist()) == {7, 41}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model whose texts are of the real encoder, in a folder."""
    parts = make_parts("states")
    from recbole_stream.text.encoder import encode_texts

    _, found = encode_texts(["a pump"], "auto", None, show_progress=False)
    parts.config["encoder"] = {
        "encoder": found["encoder"], "text_encoder": "auto", "text_max_length": 128, "text_fields": ["name", "kind"],
    }  # fmt: skip
    parts.tensors["text"] = torch.randn(40, found["dimension"])
    parts.tensors["text_centre"] = parts.tensors["text"].mean(0)
    parts.tensors["network.deliberation.matcher.project.weight"] = torch.randn(16, found["dimension"])
    return write_model(tmp_path_factory.mktemp("grow") / "model", parts)


TABLE = pd.DataFrame({"item": ["n1", "n2"], "name": ["Steel pump", "Glass flask"], "kind": ["Pumps", ""]})


def test_the_command_adds_items_to_a_model(written, tmp_path, capsys):
    TABLE.to_csv(tmp_path / "items.csv", index=False)
    assert package.main(["add-items", str(written), str(tmp_path / "items.csv"), f"--output={tmp_path / 'grown'}"]) == 0
    assert "2 new items; the model in" in capsys.readouterr().out
    model = Recommender.load(tmp_path / "grown")
    table = model.recommend([["i1", "n1"]], k=41)
    assert set(table["item"]) == {f"i{n}" for n in range(2, 41)} | {"n2"}
    assert table.loc[table["item"] == "n2", "title"].item() == "Glass flask"
    assert len(read_model(written).items) == 40
    # a second time into the same folder: the model is replaced as a whole
    pd.DataFrame({"item": ["n3"], "name": ["Pump"], "kind": [""]}).to_json(
        tmp_path / "more.jsonl", orient="records", lines=True
    )
    assert package.main(["add-items", str(tmp_path / "grown"), str(tmp_path / "more.jsonl")]) == 0
    assert read_model(tmp_path / "grown").items["item"].tolist()[40:] == ["n1", "n2", "n3"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"item": ["i7", "n2"]}, "has the item 'i7' already"),
        ({"item": ["n2", "n2"]}, "'n2' comes twice"),
        ({"item": ["n1", ""]}, "Row 2 of the items has no name"),
        ({"name": ["Steel pump", ""]}, "The item 'n2' has no text in name, kind"),
        ({"name": None}, "has no column name, of which the model's texts are made"),
        ({"item": None}, "no column that is plainly the item"),
    ],
)
def test_a_table_that_cannot_be_added_is_refused(written, tmp_path, capsys, change, sentence):
    table = TABLE.drop(columns=[name for name, cells in change.items() if cells is None])
    table = table.assign(**{name: cells for name, cells in change.items() if cells is not None})
    table.to_parquet(tmp_path / "items.parquet")
    output = tmp_path / "grown"
    assert package.main(["add-items", str(written), str(tmp_path / "items.parquet"), f"--output={output}"]) == 2
    assert sentence in capsys.readouterr().err
    assert not output.exists()


def test_a_model_without_texts_and_another_encoder_are_refused(written):
    with pytest.raises(InputError, match="no item texts"):
        add_items(make_parts("TIGER"), TABLE)
    parts = read_model(written)
    parts.config["encoder"] = {**parts.config["encoder"], "encoder": "another"}
    with pytest.raises(InputError, match="install the model's own encoder"):
        add_items(parts, TABLE)
    with pytest.raises(InputError, match="no rows"):
        add_items(copy.copy(parts), TABLE[:0])
