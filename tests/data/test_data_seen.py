"""What users had before, and rankings without it."""

import torch

from recbole_stream.data.seen import Seen
from recbole_stream.decoding.unseen import rank_unseen

# one user had 5, 3, 5, another 2; the samples come after two and three events of the first, one and none of the other
SEEN = Seen(torch.tensor([5, 3, 5, 2]), torch.tensor([0, 0, 3, 3]), torch.tensor([2, 3, 1, 0]))


def test_pairs_are_those_of_each_sample():
    rows, items = SEEN.index()
    assert list(zip(rows.tolist(), items.tolist())) == [(0, 5), (0, 3), (1, 5), (1, 3), (1, 5), (2, 2)]
    rows, items = SEEN.take(torch.tensor([2, 0])).index()
    assert list(zip(rows.tolist(), items.tolist())) == [(0, 2), (1, 5), (1, 3)]


def test_contains_is_said_for_each_sample_alone(monkeypatch):
    items = torch.tensor([[5, 9, 3], [2, 3, 0], [2, 5, 2], [5, 3, 2]])
    expected = [[True, False, True], [False, True, False], [True, False, True], [False] * 3]
    assert SEEN.contains(items).tolist() == expected
    monkeypatch.setattr("recbole_stream.data.seen._CELLS", 12)  # one sample at a time
    assert SEEN.contains(items).tolist() == expected


def test_a_search_goes_on_until_enough_is_unseen():
    asked = []

    def search(histories, top):
        """Six items in ascending order."""
        asked.append((histories[:, 0].tolist(), top))
        items = torch.arange(1, 7)[:top].repeat(len(histories), 1)
        return items, -items.float()

    seen = Seen(torch.tensor([1, 3, 1, 2, 3, 6, 1, 2, 3, 4, 5]), torch.tensor([0, 2, 6]), torch.tensor([2, 4, 5]))
    items, scores = rank_unseen(search, torch.tensor([[1], [2], [3]]), seen, 2, 3, 6)
    # the first has 2 among three, but needs 2; the third is left with one item of the catalogue
    assert items.tolist() == [[2, 4], [4, 5], [6, 0]]
    assert scores.tolist() == [[-2, -4], [-4, -5], [-6, -torch.inf]]
    assert asked == [([1, 2, 3], 3), ([1, 2, 3], 6)]
