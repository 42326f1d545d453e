import math

import pytest
import torch
from torch import nn

from recbole_stream.training.schedule import LearningRate, Schedule, WeightAverage


class TestSchedule:
    def test_batches_and_steps_are_rounded_up(self):
        # 100 samples in batches of 32: 4
        schedule = Schedule(epochs=1, learning_rate=1.0, batch_size=32, updates_per_batch=3)
        assert (schedule.batches_per_epoch(100), schedule.steps_per_epoch(100)) == (4, 12)

    def test_a_part_of_the_samples(self):
        schedule = Schedule(epochs=1, learning_rate=1.0, batch_size=32, samples_per_epoch=64)
        # as many as there are, and no more than 64
        assert [schedule.batches_per_epoch(n) for n in (1000, 64, 40, 32)] == [2, 2, 2, 1]


class TestLearningRate:
    def factors(self, epochs, steps, warmup):
        schedule = Schedule(epochs=epochs, learning_rate=1.0, warmup_steps=warmup)
        rate = LearningRate(schedule, steps)
        return [rate(step) for step in range(epochs * steps + 1)]

    def test_rises_linearly_and_falls_as_a_cosine(self):
        # 2 epochs of 4 steps, 4 of them warm-up: 1/4 .. 4/4, then (1 + cos(pi n / 4)) / 2 for n = 0 .. 4
        r = math.sqrt(0.5) / 2
        expected = [0.25, 0.5, 0.75, 1, 1, 0.5 + r, 0.5, 0.5 - r, 0]
        assert self.factors(2, 4, 4) == pytest.approx(expected)

    def test_without_warm_up(self):
        # (1 + cos(pi n / 3)) / 2
        assert self.factors(1, 3, 0) == pytest.approx([1, 0.75, 0.25, 0])

    def test_warm_up_takes_at_most_half(self):
        # 4 steps, 200 asked for: 2 of warm-up, then cosine over 2
        assert self.factors(1, 4, 200) == pytest.approx([0.5, 1, 1, 0.5, 0])

    def test_stays_at_0_beyond_the_end_and_survives_no_step(self):
        assert LearningRate(Schedule(epochs=1, learning_rate=1.0), 4)(9) == 0
        assert LearningRate(Schedule(epochs=0, learning_rate=1.0), 4)(0) == 1

    @pytest.mark.parametrize(
        "eval_step, epochs, seconds, total",
        [
            (1, 2, 20.0, 5 * 8),  # 10 s an epoch: one begins at 0, 10, .. 40 s, none after 45 s
            (2, 2, 20.0, 6 * 8),  # and the last one is validated with the sixth
            (1, 3, 90.0, 2 * 8),  # late already: the end has passed
            (1, 4, 4.0, 10 * 8),  # time for 45, of which there are to be 10
        ],
    )
    def test_the_cosine_ends_where_the_time_does(self, eval_step, epochs, seconds, total):
        schedule = Schedule(epochs=10, learning_rate=1.0, warmup_steps=4, eval_step=eval_step, max_seconds=45.0)
        rate = LearningRate(schedule, 8)
        rate.end_in_time(schedule, epochs, seconds)
        assert (rate.total, rate(3)) == (total, 1)
        assert rate(4 + (total - 4) // 2) == pytest.approx(0.5)  # half of the cosine
        assert rate(total) == rate(total + 1) == pytest.approx(0)


class TestWeightAverage:
    def test_by_hand(self):
        weight = nn.Parameter(torch.tensor([1.0, 0.0]))
        average = WeightAverage([weight], decay=0.2)
        weight.data.copy_(torch.tensor([12.0, 11.0]))
        average.update()
        # step 1: decay min(.2, 2/11) = 2/11: (1, 0) * 2/11 + (12, 11) * 9/11 = (10, 9)
        assert average.values[0].tolist() == pytest.approx([10, 9])
        weight.data.copy_(torch.tensor([20.0, 9.0]))
        average.update()
        # step 2: decay min(.2, 3/12) = .2: .2 (10, 9) + .8 (20, 9) = (18, 9)
        assert average.values[0].tolist() == pytest.approx([18, 9])

        with average.applied():
            assert weight.tolist() == pytest.approx([18, 9])
        assert weight.tolist() == [20, 9]

    def test_the_trained_weights_come_back_after_an_error(self):
        weight = nn.Parameter(torch.ones(1))
        average = WeightAverage([weight], decay=0.5)
        weight.data.fill_(3.0)
        with pytest.raises(RuntimeError), average.applied():
            assert weight.item() == 1
            raise RuntimeError
        assert weight.item() == 3

    def test_no_decay_is_the_trained_weights(self):
        weight = nn.Parameter(torch.ones(1))
        average = WeightAverage([weight], decay=0.0)
        weight.data.fill_(3.0)
        average.update()
        with average.applied():
            assert weight.item() == 3

    def test_goes_on_from_a_saved_state(self):
        weight = nn.Parameter(torch.tensor([1.0]))
        average = WeightAverage([weight], decay=0.2)
        weight.data.fill_(12.0)
        average.update()
        fresh = WeightAverage([weight], decay=0.2)
        fresh.load_state_dict(average.state_dict())
        weight.data.fill_(20.0)
        for each in (average, fresh):
            each.update()
            assert each.values[0].item() == pytest.approx(18)  # as above
