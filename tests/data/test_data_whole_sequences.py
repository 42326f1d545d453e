"""Prefixes -> the fewest that hold every target once, against sequences from which the prefixes were made."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_stream.data.samples import Samples, whole_sequences
from recbole_stream.training.all_positions import next_items
from tests.helpers import pad


def prefixes(sequences, width):
    """A row for each item but a sequence's first, with the latest ``width`` items before it."""
    rows = [(items[max(0, end - width) : end], items[end]) for items in sequences for end in range(1, len(items))]
    histories = pad([history for history, _ in rows])
    histories = torch.nn.functional.pad(histories, (0, width - histories.shape[1]))
    return Samples(histories, (histories > 0).sum(1), torch.tensor([target for _, target in rows]))


def test_a_short_sequence_keeps_its_longest_prefix_and_a_long_one_every_third():
    samples = whole_sequences(prefixes([[1, 2, 3], [4, 5, 6, 7, 8, 9]], width=3))
    # of 4..9: targets 9, 8, 7 after 6, 7, 8, and targets 6, 5 after 4, 5
    assert samples.histories.tolist() == [[1, 2, 0], [4, 5, 0], [6, 7, 8]]
    assert samples.targets.tolist() == [3, 6, 9] and samples.lengths.tolist() == [2, 2, 3]
    labels = next_items(samples.histories, samples.targets)
    assert labels.tolist() == [[2, 3, 0], [5, 6, 0], [7, 8, 9]]


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=12), min_size=1, max_size=6),
    st.integers(2, 5),
)
def test_every_target_is_learnt_at_least_once_and_once_where_rows_tell_sequences_apart(sequences, width):
    # the first item of a sequence names it, so that no sequence seems to go on in the next
    sequences = [[100 + number, *items] for number, items in enumerate(sequences)]
    whole = whole_sequences(prefixes(sequences, width))
    labels = next_items(whole.histories, whole.targets)
    learnt = sorted(labels[labels > 0].tolist())
    assert learnt == sorted(item for items in sequences for item in items[1:])
    assert len(whole) == sum(-(-(len(items) - 1) // width) for items in sequences)


def test_ready_histories_that_are_no_prefixes_of_each_other_all_stay():
    samples = Samples(pad([[1, 2], [3, 4], [5]]), torch.tensor([2, 2, 1]), torch.tensor([9, 8, 7]))
    assert len(whole_sequences(samples)) == 3
