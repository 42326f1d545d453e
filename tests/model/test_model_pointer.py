"""What the pointer reads of the memory, against counts worked out by hand and against a plain loop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.model.lookup import Transitions, recency_weights
from recbole_stream.model.pointer import FEATURES, Pairs, Pointer, latest, latest_text, pair_sums, sum_features
from tests.helpers import pad


def memory(sequences, n_items, window=2, decay=0.5, backward=0.5, recency=0.5):
    pairs = [(sequence[:end], sequence[end]) for sequence in sequences for end in range(1, len(sequence))]
    histories, targets = pad([history for history, _ in pairs]), torch.tensor([item for _, item in pairs])
    lengths = (histories > 0).sum(1)

    def counted(window=window, backward=backward):
        return Transitions(histories, lengths, targets, n_items, window, decay, backward, recency)

    transitions = counted()
    return transitions, Pairs.counted(transitions, counted)


def sums(transitions, pairs, histories, items):
    followed = transitions.followers(histories)
    found = followed.find(items + torch.arange(len(items))[:, None] * transitions.n_items)
    return pairs.sums(histories, followed, *found, transitions.recency)


def test_pairs_by_hand():
    # 1 2 3 and 1 3: ahead are 1 -> 2 (1), 2 -> 3 (1) and 1 -> 3 (half at distance two, and 1); direct each of them once
    transitions, pairs = memory([[1, 2, 3], [1, 3]], 4)
    place, there = transitions.find(torch.tensor([1, 3, 2]), torch.tensor([3, 1, 2]))
    assert there.tolist() == [True, True, False]
    assert pairs.counts[place[:2]].tolist() == [[1.5, 1, 0, 0], [0, 0, 1.5, 1]]
    assert pairs.totals.tolist() == [[0, 0, 0, 0], [2.5, 2, 0, 0], [1, 1, 1, 1], [0, 0, 2.5, 2]]


def test_sums_by_hand():
    found = sums(*memory([[1, 2, 3], [1, 3]], 4), torch.tensor([[1, 2], [3, 0]]), torch.tensor([[3, 0, 3], [1, 3, 2]]))
    # item 3 after 1 (weight .5; shares 1.5 / 2.5 and 1 / 2) and after 2 (weight 1, shares 1), which is the latest
    ahead = [1.3, 1.25, 0, 0, 1.75, 1.5, 0, 0, 1, 1, 1, 1, 0, 0, 2]
    assert torch.allclose(found[0], torch.tensor([ahead, [0.0] * 15, ahead]))
    # item 1 came before 3: shares 1.5 / 2.5 and 1 / 2; item 2 came before it, too; nothing is known of 3 and 3
    back = [0, 0, 0.6, 0.5, 0, 0, 1.5, 1, 0, 0, 0, 0, 1.5, 1, 1]
    other = [0, 0, 0.4, 0.5, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1]
    assert torch.allclose(found[1], torch.tensor([back, [0.0] * 15, other]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(1, 7), min_size=2, max_size=6), min_size=1, max_size=6), st.floats(0.0, 1.0))
def test_sums_are_those_of_a_loop_over_the_pairs(sequences, backward):
    transitions, pairs = memory(sequences, 8, backward=backward)
    histories = pad(sequences)
    items = torch.arange(8).expand(len(sequences), -1)
    found, weights, last = (
        sums(transitions, pairs, histories, items),
        recency_weights(histories, 0.5),
        latest(histories),
    )
    table = torch.zeros(8, 8, 4)
    rows, columns, _ = transitions.pairs()
    table[rows, columns] = pairs.counts
    for row, history in enumerate(histories):
        parts = [
            pair_sums(table[item], pairs.totals[item].expand(8, 4), weights[row, at].expand(8), last[row, at].expand(8))
            for at, item in enumerate(history)
        ]
        assert torch.allclose(found[row], torch.stack(parts).sum(0), atol=1e-5)


def test_an_empty_memory_says_nothing():
    none = torch.zeros(0, dtype=torch.long)
    transitions = Transitions.of_counts(none, none, torch.zeros(0), 5, 0.7)
    pairs = Pairs(transitions, torch.zeros(0), torch.zeros(0))
    assert not sums(transitions, pairs, torch.tensor([[1, 2]]), torch.tensor([[3, 4]])).any()


def test_features_by_hand():
    transitions, pairs = memory([[1, 2, 3], [1, 3]], 4)
    pointer = Pointer(2, pairs, torch.tensor([0, 0, 1, 3]))
    text = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    histories, items = torch.tensor([[1, 2, 0]]), torch.tensor([[3, 0]])
    cosines = text[items] @ text[histories].transpose(1, 2)
    read = sums(transitions, pairs, histories, items)
    views = torch.tensor([[[-1.0, 2.0], [-3.0, 0.0]]])
    features = pointer.features(histories, items, views, cosines, read, 0.5)
    assert features.shape == (1, 2, FEATURES)
    assert torch.equal(features[..., :15], sum_features(read)) and torch.equal(features[..., 15:17], views)
    # closest is item 2 (.8), which is also the latest; 3 training events
    assert torch.allclose(features[0, 0, 17:20], torch.tensor([0.8, 0.8, torch.tensor(4.0).log()]))
    # totals ahead: .5 of item 1's (2.5, 2) and all of item 2's (1, 1), then item 2's; two items
    own = torch.tensor([2.25, 2.0, 1.0, 1.0]).log1p().tolist() + [torch.tensor(2.0).log().item()]
    assert features[0, :, 20:].tolist() == [pytest.approx(own)] * 2
    assert torch.allclose(sum_features(read)[0, 0, :1], torch.tensor([1.301]).log())  # shares, then counts
    assert torch.allclose(sum_features(read)[0, 0, 6:7], torch.tensor([1.75]).log1p())
    without = pointer.features(histories, items, views, None, read, 0.5)
    assert not without[..., 17:19].any()


def test_the_latest_item_of_each_history():
    histories = torch.tensor([[4, 5, 0], [0, 0, 0], [1, 2, 3]])
    assert latest(histories).tolist() == [[False, True, False], [False] * 3, [False, False, True]]
    cosines = torch.tensor([[[0.1, 0.2, 0.0]], [[0.0, 0.0, 0.0]], [[0.3, 0.4, 0.5]]])
    assert torch.allclose(latest_text(histories, cosines), torch.tensor([[0.2], [0.0], [0.5]]))
