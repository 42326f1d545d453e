"""Transitions and content against counts and cosines worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.model import lookup
from recbole_stream.model.lookup import Content, Transitions, recency_weights
from tests.helpers import pad


def prefixes(sequences):
    """Every (history, next item) of the sequences, as the Transitions take them."""
    pairs = [(sequence[:end], sequence[end]) for sequence in sequences for end in range(1, len(sequence))]
    histories = pad([history for history, _ in pairs])
    return histories, torch.tensor([len(history) for history, _ in pairs]), torch.tensor([item for _, item in pairs])


def test_recency_weights_fall_from_the_latest_item_and_are_0_at_padding():
    weights = recency_weights(torch.tensor([[5, 6, 7], [5, 0, 0]]), 0.5)
    assert torch.equal(weights, torch.tensor([[0.25, 0.5, 1.0], [1.0, 0.0, 0.0]]))


def test_transitions_count_by_distance():
    # 1 2 3: 1 -> 2 and 2 -> 3 count 1, 1 -> 3 counts .5; 1 3: 1 -> 3 counts 1
    memory = Transitions(*prefixes([[1, 2, 3], [1, 3]]), n_items=4, window=2, decay=0.5, backward=0.0, recency=1.0)
    # row 1: item 2 has 1, item 3 has 1.5; row 2: all of item 3
    assert torch.allclose(memory(torch.tensor([[1]])), torch.tensor([[0, 0, 0.4, 0.6]]))
    assert torch.allclose(memory(torch.tensor([[2]])), torch.tensor([[0, 0, 0, 1.0]]))
    # nothing followed item 3
    assert torch.equal(memory(torch.tensor([[3]])), torch.zeros(1, 4))


def test_a_window_of_one_sees_neighbours_only():
    memory = Transitions(*prefixes([[1, 2, 3]]), n_items=4, window=1, decay=0.5, backward=0.0, recency=1.0)
    assert torch.equal(memory(torch.tensor([[1]])), torch.tensor([[0, 0, 1.0, 0]]))


def test_backward_transitions_count_their_share():
    memory = Transitions(*prefixes([[1, 2, 3]]), n_items=4, window=1, decay=1.0, backward=0.5, recency=1.0)
    # row 2: 3 came after it (1), 1 came before it (.5)
    assert torch.allclose(memory(torch.tensor([[2]])), torch.tensor([[0, 1 / 3, 0, 2 / 3]]))


def test_the_latest_item_says_more():
    memory = Transitions(*prefixes([[1, 3], [2, 4]]), n_items=5, window=1, decay=1.0, backward=0.0, recency=0.5)
    # item 2 is the latest (weight 1), item 1 the one before (.5): shares 2/3 and 1/3
    assert torch.allclose(memory(torch.tensor([[1, 2, 0]])), torch.tensor([[0, 0, 0, 1 / 3, 2 / 3]]))


@given(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=7), min_size=1, max_size=8), st.floats(0.1, 1.0))
def test_shares_sum_to_one_or_nothing_and_do_not_depend_on_the_batch(sequences, decay):
    memory = Transitions(*prefixes(sequences), n_items=10, window=3, decay=decay, backward=0.3, recency=decay)
    histories = pad(sequences)
    together = memory(histories)
    sums = together.sum(1)
    assert torch.all(((sums - 1).abs() < 1e-5) | (sums == 0)) and torch.all(together[:, 0] == 0)
    alone = torch.cat([memory(torch.tensor([sequence])) for sequence in sequences])
    assert torch.allclose(together, alone, atol=1e-6)


def test_content_is_a_sum_of_cosines():
    # centred on their mean (1, 1): (1, 0), (-1, 0), (0, 1), (0, -1)
    text = torch.tensor([[9.0, 9.0], [2.0, 1.0], [0.0, 1.0], [1.0, 2.0], [1.0, 0.0]])
    content = Content(text, recency=0.5)
    # latest item 3 = (0, 1), before it item 1 = (1, 0) at half weight
    assert torch.allclose(content(torch.tensor([[1, 3, 0]])), torch.tensor([[0.0, 0.5, -0.5, 1.0, -1.0]]))


def test_a_history_of_padding_alone_says_nothing():
    memory = Transitions(*prefixes([[1, 2]]), n_items=3, window=1, decay=1.0, backward=0.0, recency=0.7)
    assert torch.equal(memory(torch.zeros(2, 3, dtype=torch.long)), torch.zeros(2, 3))
    assert Content(torch.randn(3, 4), 0.7)(torch.zeros(1, 2, dtype=torch.long)).abs().sum() == pytest.approx(0.0)


@settings(deadline=None, max_examples=30)  # parts of one sample each take many small steps
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=9), min_size=1, max_size=12),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3]),
)
def test_counting_in_parts_changes_nothing(sequences, pairs, backward):
    options = {"n_items": 10, "window": 3, "decay": 0.5, "backward": backward, "recency": 0.7}
    whole = Transitions(*prefixes(sequences), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "_PAIRS", pairs)
        parts = Transitions(*prefixes(sequences), **options)
    for one, other in zip(whole.pairs(), parts.pairs()):
        assert torch.allclose(one.double(), other.double())


def test_the_strongest_neighbours_of_each_item_are_kept():
    # after 1: item 2 twice, 3 once, 4 once; after 2: item 3
    memory = Transitions(
        *prefixes([[1, 2], [1, 2], [1, 4], [1, 3], [2, 3]]), n_items=5, window=1, decay=1.0, backward=0.0, recency=1.0,
        neighbours=2,
    )  # fmt: skip
    rows, columns, counts = memory.pairs()
    assert rows.tolist() == [1, 1, 2] and columns.tolist() == [2, 3, 3] and counts.tolist() == [2, 1, 1]
    assert torch.allclose(memory(torch.tensor([[1]])), torch.tensor([[0, 0, 2 / 3, 1 / 3, 0]]))


def test_no_sample_is_no_transition():
    none = torch.zeros(0, 2, dtype=torch.long)
    memory = Transitions(none, none[:, 0], none[:, 0], n_items=3, window=1, decay=1.0, backward=0.5, recency=1.0)
    assert torch.equal(memory(torch.tensor([[1, 2]])), torch.zeros(1, 3))
