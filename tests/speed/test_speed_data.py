import pytest
import torch

from speed.data import load, spread_codes
from speed.harness import alternate, same_share


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "small"
    data.mkdir()
    rows = ["user_id:token\titem_id:token\ttimestamp:float"]
    # user u: a b c d e by time, written out of order; user v: 25 items i00 .. i24; user w is too short
    rows += [f"u\t{item}\t{moment}" for item, moment in (("c", 2), ("a", 0), ("e", 4), ("b", 1), ("d", 3))]
    rows += [f"v\ti{n:02}\t{n}" for n in range(25)]
    rows += ["w\ta\t0", "w\tb\t1"]
    (data / "small.inter").write_text("\n".join(rows) + "\n")
    names = ["a", "b", "c", "d", "e", *(f"i{n:02}" for n in range(25))]
    (data / "small.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"{n}\tword{n} thing{n}\n" for n in names)
    )
    return str(tmp_path)


def test_samples_are_those_of_leave_one_out(folder):
    corpus = load(folder, "small", codebook_size=8)
    assert corpus.name == "small" and len(corpus.codes) == 30
    # items are numbered in the order of their names: a .. e are 1 .. 5, i00 is 6
    assert corpus.test.targets.tolist() == [5, 30]
    assert corpus.test.histories[0, :5].tolist() == [1, 2, 3, 4, 0]
    assert corpus.test.histories[1].tolist() == list(range(10, 30))  # the latest 20 of 24
    assert corpus.test.lengths.tolist() == [4, 20]
    # training: a -> b, a b -> c of u (d and e are validation and test), and the 22 prefixes of v's first 23
    assert len(corpus.train) == 2 + 22
    assert corpus.train.histories[1, :3].tolist() == [1, 2, 0] and corpus.train.targets[1] == 3
    assert len(corpus.codes.unique(dim=0)) == 30


def test_ids_come_from_a_table_where_items_have_no_text(folder, tmp_path):
    (tmp_path / "small" / "small.item").unlink()
    names = ["a", "b", "c", "d", "e", *(f"i{n:02}" for n in range(25))]
    rows = "".join(f"{name}\t{place // 6}\t{place % 6}\n" for place, name in enumerate(names))
    (tmp_path / "small" / "semantic_ids.tsv").write_text("item_id\tlevel_1\tlevel_2\n" + rows)
    corpus = load(folder, "small")
    assert corpus.codes[:7].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [1, 0]]
    assert corpus.codebook_size == 6


@pytest.mark.parametrize("n_items, levels, size", [(200, 4, 8), (16, 2, 4), (5000, 4, 256)])
def test_spread_codes_differ(n_items, levels, size):
    codes = spread_codes(n_items, levels, size)
    assert codes.shape == (n_items, levels) and codes.min() >= 0 and codes.max() < size
    assert len(codes.unique(dim=0)) == n_items


def test_sides_take_turns():
    calls = []
    times = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert {side: len(values) for side, values in times.items()} == {"a": 2, "b": 2}


def test_same_share_forgives_ties_only():
    ours = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]])
    theirs = torch.tensor([[1, 2, 3], [1, 3, 2], [2, 1, 3], [1, 2, 4]])
    scores = torch.tensor([[-1.0, -2.0, -2.00001]] * 4)
    # equal; 2 and 3 tie; 1 and 2 do not; 4 is none of ours
    assert same_share(ours, theirs, scores) == 0.5
