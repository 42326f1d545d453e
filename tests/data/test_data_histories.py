import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_stream.data.histories import right_padded


def test_padding_moves_to_the_right_and_the_latest_stay():
    histories = torch.tensor([[0, 0, 7, 5], [1, 2, 3, 4], [9, 0, 8, 0], [0, 0, 0, 0]])
    assert right_padded(histories, 9).tolist() == [[7, 5, 0, 0], [1, 2, 3, 4], [9, 8, 0, 0], [0, 0, 0, 0]]
    assert right_padded(histories, 3).tolist() == [[7, 5, 0], [2, 3, 4], [9, 8, 0], [0, 0, 0]]


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 8))
def test_keeps_the_last_items_in_order(rows, longest):
    ours = right_padded(torch.tensor(rows), longest).tolist()
    for row, kept in zip(rows, ours):
        last = [item for item in row if item][-longest:]
        assert kept == last + [0] * (min(longest, 6) - len(last))
