import torch
from helpers import make_samples, pad
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.data.samples import Samples

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=300)


def numbered(lengths):
    """Sample i has the history i + 1, i + 1, .. and the target i + 1."""
    histories = pad([[row + 1] * length for row, length in enumerate(lengths)])
    return make_samples(histories, torch.arange(1, len(lengths) + 1))


class TestBatch:
    samples = make_samples(pad([[1, 2, 3, 4], [5, 6], [7]]), torch.tensor([10, 20, 30]))

    def test_is_cut_to_its_longest_history(self):
        batch = self.samples.batch(torch.tensor([2, 1]))
        assert batch.histories.tolist() == [[7, 0], [5, 6]]
        assert batch.targets.tolist() == [30, 20]
        assert batch.rows.tolist() == [2, 1]

    def test_a_part_knows_the_whole(self):
        batch = self.samples.batch(torch.tensor([2, 1, 0]), slice(1, None, 2))
        assert (batch.rows.tolist(), batch.histories.tolist()) == ([1], [[5, 6]])
        assert (batch.whole, batch.shared) == (3, True)
        assert not self.samples.batch(torch.tensor([2, 1, 0])).shared

    def test_parts_draw_what_the_whole_draws(self):
        rows = torch.tensor([2, 1, 0])

        def drawn(part):
            return self.samples.batch(rows, part, torch.Generator().manual_seed(0)).uniform(2, 4)

        whole = drawn(slice(None))
        assert whole.shape == (3, 2, 4) and len(whole.unique()) == 24
        for part in (slice(0, None, 2), slice(1, None, 2)):
            assert torch.equal(drawn(part), whole[part])

    def test_lengths_stay_on_the_cpu(self):
        moved = self.samples.to("meta")
        assert (moved.histories.device.type, moved.targets.device.type) == ("meta", "meta")
        assert moved.lengths.tolist() == [4, 2, 1]


@given(LENGTHS, st.integers(1, 20), st.data())
@settings(deadline=None, max_examples=30)
def test_ordered_holds_every_sample_or_those_asked_for_once_shortest_first(lengths, batch_size, data):
    samples, everyone = numbered(lengths), list(range(len(lengths)))
    some = data.draw(st.none() | st.lists(st.sampled_from(everyone), unique=True))
    batches = samples.ordered(batch_size, None if some is None else torch.tensor(some, dtype=torch.long))
    if some == []:
        assert batches == []
        return
    rows = torch.cat([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == (everyone if some is None else sorted(some))
    assert (samples.lengths[rows].diff() >= 0).all()
    assert [len(batch.rows) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    for batch in batches:
        assert torch.equal(batch.targets, batch.rows + 1)
        assert batch.histories.shape[1] == samples.lengths[batch.rows].max()
        assert torch.equal((batch.histories == batch.targets[:, None]).sum(1), samples.lengths[batch.rows])


@given(LENGTHS, st.integers(1, 20), st.integers(0, 2**40))
@settings(deadline=None, max_examples=30)
def test_shuffled_holds_every_row_once_and_follows_its_seed(lengths, batch_size, seed):
    samples = numbered(lengths)
    batches = samples.shuffled(batch_size, seed)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    # whole batches, but for one with what is left
    assert len(batches) == -(-len(lengths) // batch_size)
    assert sum(len(rows) < batch_size for rows in batches) <= 1
    torch.rand(3)  # the global generator plays no part
    again = samples.shuffled(batch_size, seed)
    assert all(torch.equal(one, other) for one, other in zip(batches, again, strict=True))


def test_another_seed_gives_another_order():
    samples = numbered([1 + row % 7 for row in range(500)])
    first, second = (torch.cat(samples.shuffled(16, seed)) for seed in (0, 1))
    assert not torch.equal(first, second)
    # the batches themselves differ, not only their order
    batches = [{frozenset(rows.tolist()) for rows in samples.shuffled(16, seed)} for seed in (0, 1)]
    assert not batches[0] & batches[1]


def test_batches_hold_histories_of_similar_length():
    # 20,480 histories of 1 to 20 items: batches in random order would be padded to 20, from a mean of 10.5
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 21, (20_480,), generator=generator)
    samples = Samples(torch.zeros(20_480, 20, dtype=torch.long), lengths, torch.arange(20_480))
    batches = samples.shuffled(64, 0)
    places = sum(int(lengths[rows].max()) * len(rows) for rows in batches)
    # in a pool of 64 sorted batches, a batch spans a third of an item at the most of the time
    assert places < 1.05 * lengths.sum()
    # lengths come in random order: neighbouring batches differ by about a third of 20, the mean of |x - y|
    longest = torch.tensor([int(lengths[rows].max()) for rows in batches]).float()
    assert longest.diff().abs().mean() > 4
