"""The page that shows what a model thinks, and where the item that came next stands."""

import re
from html.parser import HTMLParser

import pytest
import torch
import torch.nn.functional as F
from helpers import next_log_probs
from parts import CODES, make_parts, make_ranker

from recbole_stream import Recommender
from recbole_stream.__main__ import main
from recbole_stream.serving.explain_page import Case, explanation_page
from recbole_stream.serving.folder import write_model
from recbole_stream.serving.held_out import draw_cases, standing
from recbole_stream.serving.thinking import think


class _Balanced(HTMLParser):
    """Every element that is opened is closed in its place."""

    EMPTY = frozenset({"meta", "rect", "path", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.text, self.sources = [], [], []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page: str) -> str:
    """The text of a page, which must be whole, without scripts and without anything from elsewhere."""
    parser = _Balanced()
    parser.feed(page)
    assert not parser.open and not parser.sources and "<script" not in page
    return " ".join(" ".join(parser.text).split())


@pytest.fixture
def model(tmp_path):
    def make(kind):
        return str(write_model(tmp_path / "MODEL", make_parts(kind)))

    return make


# -- thinking ----------------------------------------------------------------


def test_thinking_is_the_likeliest_token_after_token():
    network = make_ranker("deliberation")[0].network
    history = torch.tensor([[4, 9, 2]])
    thinking, read_so_far = think(network, history), []
    assert thinking.tokens.shape == (1, 2)
    for token, probability in zip(thinking.tokens[0].tolist(), thinking.probabilities[0].tolist()):
        chances = next_log_probs(network, history[0], read_so_far).exp().detach()
        assert token == int(chances.argmax())
        assert probability == pytest.approx(float(chances[token]), abs=1e-5)
        read_so_far.append(token)
    # s_0 = d_0: what the decoder has after the start token alone
    first = network.begin(history).hidden[0, 0, 0]
    item = network.tokens.embedding(network.tokens.table[17]).mean(0)
    assert float(thinking.similarities[0, 0, 17]) == pytest.approx(float(F.cosine_similarity(first, item, 0)), abs=1e-5)
    assert (thinking.similarities[..., 0] == -torch.inf).all()


def test_who_does_not_reason_has_no_steps():
    assert think(make_ranker("TIGER")[0].network, torch.tensor([[1]])) is None
    assert Recommender(make_parts("TIGER")).explainer.thinking([[1, 2]]) == [[]]


def test_steps_in_words():
    explainer = Recommender(make_parts("deliberation")).explainer
    (steps,), network = explainer.thinking([[4, 9, 2]]), explainer.ranker.network
    thinking = think(network, torch.tensor([[4, 9, 2]]))
    assert len(steps) == 3 and steps[0]["token"] is None
    for step, token in zip(steps[1:], thinking.tokens[0].tolist()):
        offsets = [0, 6, 10]  # codebooks of 6, 4 and 5 codes
        assert offsets[step["token"]["level"] - 1] + step["token"]["code"] == token
    for step, near in zip(steps, thinking.similarities[0]):
        assert [one["item"] for one in step["nearest"]] == [f"i{item}" for item in near.topk(3).indices.tolist()]


# -- where the item stands ---------------------------------------------------


@pytest.mark.parametrize("kind", ["TIGER", "states", "deliberation", "verifier", "pointer"])
def test_the_last_place_is_that_of_the_ranking(kind):
    ranker, _ = make_ranker(kind)
    ranker.candidates = ranker.beams = len(CODES)
    items = ranker.rank(torch.tensor([[4, 9, 2]]), 40)[0][0].tolist()
    unseen = [item for item in items if item not in (4, 2)]  # 9 is the item, had before
    assert standing(ranker, [4, 9, 2], 9, False)[-1][1] == items.index(9) + 1
    assert standing(ranker, [4, 9, 2], 9, True)[-1][1] == unseen.index(9) + 1


def test_each_view_has_its_place():
    ranker, _ = make_ranker("verifier")
    found = dict(standing(ranker, [4, 9, 2], 17, False))
    assert list(found) == [
        "state before reasoning", "state after reasoning token 1", "state after reasoning token 2", "likelihood",
        "matching", "transitions", "text", "weighted sum", "verifier",
    ]  # fmt: skip
    slow, history = ranker.network.deliberation, torch.tensor([[4, 9, 2]])
    for name, scores in [("matching", slow.matcher(history)[0, 1:]), ("text", slow.content(history)[0, 1:])]:
        assert found[name] == 1 + int((scores > scores[16]).sum())


def test_cases_are_good_and_bad_by_the_stated_rule_and_drawn_by_chance(monkeypatch):
    ranker, _ = make_ranker("states")
    monkeypatch.setattr("recbole_stream.serving.held_out.BAD", 20)  # of 40 items
    histories = [[1 + row % 40, 1 + (7 * row) % 40, 1 + (11 * row) % 40] for row in range(90)] + [[3]]
    ranked = ranker.rank(torch.tensor(histories[:-1])[:, :2], 40)[0].tolist()
    places = [own.index(history[-1]) + 1 for own, history in zip(ranked, histories)]
    good, bad = draw_cases(ranker, histories, 4, 1, False)
    assert len(set(good)) == len(set(bad)) == 4
    assert all(places[row] <= 3 for row in good) and all(places[row] > 20 for row in bad)
    assert draw_cases(ranker, histories, 4, 1, False) == (good, bad)
    assert draw_cases(ranker, histories, 4, 2, False) != (good, bad)
    every, _ = draw_cases(ranker, histories, 90, 1, False)
    assert sorted(every) == [row for row, place in enumerate(places) if place <= 3]


# -- the page ----------------------------------------------------------------


def test_all_titles_and_names_are_escaped():
    evil = "<script>alert('&\"')</script>"
    named = {"item": evil, "title": evil}
    why = {
        "views": {"text": 1.0}, "verifier": 0.0, "base": 0.5, "values": {"text": 1.0},
        "followed": [{**named, "times": 2.0, "share": 0.5}], "reads_like": [{**named, "similarity": 0.9}],
        "match": None, "tokens": None, "had": False, "words": evil,
    }  # fmt: skip
    steps = [{"token": None, "nearest": [{**named, "similarity": 0.1}]}]
    case = Case(evil, [named], 1, [{**named, "score": 1.5, "why": why}], steps, named, [(evil, 3.0)])
    text = read(explanation_page(evil, evil, [case], 10))
    assert text.count(evil) >= 9


def test_bars_are_as_long_as_what_they_show():
    why = {
        "verifier": -1.0, "base": 0.0, "followed": [], "reads_like": [], "match": None, "tokens": None, "had": False,
        "words": "",
    }  # fmt: skip
    items = [
        {"item": name, "title": "", "score": 0.0, "why": why | {"views": views}}
        for name, views in [("a", {"matching": 2.0, "text": 1.0}), ("b", {"matching": -1.0, "text": 0.0})]
    ]
    page = explanation_page("", "", [Case("x", [], 0, items)], 10)
    # 1000 units for 3 to the right and 2 to the left of the base, which is at 400
    rectangles = re.findall(r'<rect class="(\w+)" x="([\d.]+)" width="([\d.]+)"', page)
    assert rectangles == [
        ("matching", "400.0", "400.0"), ("text", "800.0", "200.0"), ("verifier", "200.0", "200.0"),
        ("matching", "200.0", "200.0"), ("text", "400.0", "0.0"), ("verifier", "0.0", "200.0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("views", "said"),
    [({"likelihood": -1.0}, True), ({"likelihood": 1.0}, False), ({"likelihood": -1.0, "matching": 2.0}, False)],
)
def test_bars_of_a_likelihood_that_is_below_that_of_any_item_are_explained(views, said):
    why = {
        "verifier": 0.0, "base": 0.0, "followed": [], "reads_like": [], "match": None, "tokens": None, "had": False,
        "words": "", "views": views,
    }  # fmt: skip
    case = Case("x", [], 0, [{"item": "a", "title": "", "score": 0.0, "why": why}])
    assert ("tokens that are no item" in read(explanation_page("", "", [case], 10))) == said


# -- the command -------------------------------------------------------------


def test_a_page_of_users_with_the_last_item_hidden(model, tmp_path, capsys):
    output = tmp_path / "page.html"
    assert main(["explain", model("deliberation"), "--user=u1", "--held-out", "--top=4", f"--output={output}"]) == 0
    text = read(output.read_text())
    for words in ("1. User u1", "What really came next Title 3", "token 2: level", "weighted sum", "base "):
        assert words in text
    listed = text.split("History, the latest item last")[1].split("What really")[0]
    assert "Title 2" in listed and "Title 3" not in listed
    assert output.name in capsys.readouterr().out


def test_a_page_of_a_file(model, tmp_path):
    file, output = tmp_path / "histories.jsonl", tmp_path / "page.html"
    file.write_text('{"user": "anna", "items": ["i7", "nothing", "i9"]}\n{"user": "bert", "items": ["i1"]}\n')
    assert main(["explain", model("verifier"), f"--histories={file}", f"--output={output}"]) == 0
    text = read(output.read_text())
    assert "1. History anna" in text and "2. History bert" in text and "What really came next" not in text
    assert "Shapley" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--users=u9"], "knows no user 'u9'"),
        (["--users="], "knows no user ''"),
        (["--users=u2", "--held-out"], "User u2 has one item"),
        (["--users=u1", "--top=41"], "from 1 to the 40 items"),
        (["--users=u1", "--output=page.pdf"], "must end in .html"),
        (["--users=" + ",".join(["u1"] * 101)], "more than 100 histories"),
        (["--cases=0"], "--cases is 0, but must be from 1 to 50"),
        (["--histories=nowhere.csv"], "There is no file nowhere.csv"),
    ],
)
def test_bad_input_is_one_sentence_and_no_file(model, tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    folder = model("states")
    assert main(["explain", folder, "--output=page.html", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["MODEL"]


def test_a_page_that_is_there_is_kept(model, tmp_path, capsys):
    (tmp_path / "page.html").write_text("mine")
    assert main(["explain", model("states"), "--users=u1", f"--output={tmp_path / 'page.html'}"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "page.html").read_text() == "mine"
