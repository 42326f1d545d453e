"""Prefixes against the rows written out."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_stream.data.prefixes import Prefixes
from recbole_stream.data.samples import Samples

EVENTS = torch.tensor([5, 6, 7, 8, 9])


def test_rows_and_columns_are_those_of_the_rows_written_out():
    # 5 6 | 7 8 9 | nothing
    prefixes = Prefixes(EVENTS, torch.tensor([0, 2, 5]), torch.tensor([2, 3, 0]), 4)
    dense = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 0], [0, 0, 0, 0]])
    assert prefixes.shape == (3, 4) and len(prefixes) == 3
    assert torch.equal(prefixes.to_dense(), dense) and torch.equal(prefixes[[2, 0]], dense[[2, 0]])
    rows, columns = torch.tensor([1, 0, 1]), torch.tensor([2, 3, 0])
    assert torch.equal(prefixes[rows, :2], dense[rows, :2])
    assert torch.equal(prefixes[rows, columns], torch.tensor([9, 0, 7]))
    assert torch.equal(prefixes[torch.tensor([True, True, False]), 0], torch.tensor([5, 7]))
    assert torch.equal(prefixes[rows], dense[rows])
    assert torch.equal(prefixes.to("cpu").to_dense(), dense)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), min_size=1, max_size=20), st.integers(0, 9))
def test_batches_are_bit_for_bit_those_of_rows(places, seed):
    events = torch.arange(1, 40)
    starts, lengths = (torch.tensor(column) for column in zip(*places))
    prefixes = Prefixes(events, starts, lengths, 6)
    dense = torch.zeros(len(places), 6, dtype=torch.long)
    for row, (start, length) in enumerate(places):
        dense[row, :length] = events[start : start + length]
    one, other = (Samples(histories, lengths, events[starts]) for histories in (prefixes, dense))
    assert torch.equal(prefixes.to_dense(), dense)
    for rows in one.shuffled(3, seed):
        assert torch.equal(one.batch(rows).histories, other.batch(rows).histories)
