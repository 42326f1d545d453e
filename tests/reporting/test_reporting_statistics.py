"""Paired tests against values worked out by hand, their symmetries, and their error rate where nothing is to be found."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recbole_stream.reporting.statistics import bootstrap_means, compare_paired, holm, mean_and_deviation

# what per-user metrics look like: few values, mostly 0
GAINS = st.sampled_from([0.0, 0.0, 0.0, 1.0, 0.5, 1 / math.log2(3), 1 / 3])
PAIRS = st.lists(st.tuples(GAINS, GAINS), min_size=2, max_size=60)
FEW = {"resamples": 200}


class TestComparison:
    def test_differences_by_hand(self):
        # differences 1, 0, 1, -1, 0: mean 0.2, squared deviations .64 + .04 + .64 + 1.44 + .04 = 2.8, / 4 = .7
        result = compare_paired([1, 0, 1, 0, 1], [0, 0, 0, 1, 1])
        assert result.users == 5
        assert (result.mean_a, result.mean_b) == (0.6, 0.4)
        assert result.difference == pytest.approx(0.2)
        assert result.relative == pytest.approx(0.5)
        assert result.effect == pytest.approx(0.2 / math.sqrt(0.7))

    def test_wilcoxon_by_hand(self):
        # 0 is left out; 1, 2, 3, 4, 5, all positive: of 2^5 signs two are as extreme, 2 / 32
        assert compare_paired([1, 2, 3, 4, 5, 9], [0, 0, 0, 0, 0, 9]).p_wilcoxon == pytest.approx(2 / 32)
        # ranks 1, 2, 3 with signs -, +, +: sum of the negative ones 1; 4 of 8 signs give 1 or 0 on either side
        assert compare_paired([-1, 2, 3], [0, 0, 0]).p_wilcoxon == pytest.approx(4 / 8)

    def test_wilcoxon_of_many_is_normal(self):
        # 100 differences of 1, 60 of -1: all share rank 80.5, so that r+ = 8050, mean 160 * 161 / 4 = 6440 and
        # variance 160 * 80.5^2 / 4; corrected by one half for continuity
        a = np.repeat([1.0, 0.0], [100, 60])
        z = (8050 - 6440) / math.sqrt(160 * 80.5**2 / 4)
        expected = math.erfc(z / math.sqrt(2))
        assert compare_paired(a, 1 - a).p_wilcoxon == pytest.approx(expected, rel=0.05)
        zeros = np.zeros(5000)
        assert compare_paired(np.append(a, zeros), np.append(1 - a, zeros)).p_wilcoxon == pytest.approx(
            expected, rel=0.05
        )

    def test_bootstrap_by_hand(self):
        # two users, differences 0 and 1: means 0, 1/2, 1 with 1/4, 1/2, 1/4; 0 and 1 lie as far from 1/2 as it from 0
        result = compare_paired([0, 1], [0, 0], resamples=20_000)
        assert result.p_bootstrap == pytest.approx(0.5, abs=0.02)
        assert (result.low, result.high) == (0, 1)

    def test_the_interval_is_the_normal_one_where_users_are_many(self):
        generator = np.random.default_rng(0)
        a, b = generator.normal(0.1, 1, 2000), generator.normal(0, 1, 2000)
        result = compare_paired(a, b)
        error = np.std(a - b, ddof=1) / math.sqrt(2000)
        assert result.low == pytest.approx(result.difference - 1.96 * error, abs=0.1 * error)
        assert result.high == pytest.approx(result.difference + 1.96 * error, abs=0.1 * error)
        assert result.p_bootstrap == pytest.approx(math.erfc(abs(result.difference) / error / math.sqrt(2)), abs=0.01)

    def test_the_smallest_p_value_counts_the_sample_itself(self):
        assert compare_paired(np.ones(50), np.zeros(50), resamples=999).p_bootstrap == 1 / 1000

    def test_nothing_to_divide_by(self):
        result = compare_paired([1, 1, 1], [0, 0, 0], **FEW)
        assert math.isnan(result.relative) and result.effect == math.inf

    def test_means_over_seeds_that_differ_in_their_last_bit_are_equal(self):
        a, b = np.array([0.1 + 0.2, 1.0]), np.array([0.3, 1.0])
        assert a[0] != b[0]
        assert compare_paired(a, b, **FEW).p_wilcoxon == 1

    @pytest.mark.parametrize(("a", "b"), [([1, 2], [1]), ([], []), ([[1]], [[1]])])
    def test_other_shapes_are_refused(self, a, b):
        with pytest.raises(ValueError, match="same users"):
            compare_paired(a, b)

    @given(PAIRS)
    @settings(deadline=None)
    def test_swapping_changes_signs_and_nothing_else(self, pairs):
        a, b = map(np.array, zip(*pairs))
        forth, back = compare_paired(a, b, **FEW), compare_paired(b, a, **FEW)
        assert back.difference == -forth.difference and back.effect == pytest.approx(-forth.effect)
        assert back.p_bootstrap == forth.p_bootstrap
        assert back.p_wilcoxon == pytest.approx(forth.p_wilcoxon)
        assume(sorted(a - b) != sorted(b - a))  # else both are the same sample
        assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))

    @given(st.lists(GAINS, min_size=1))
    def test_identical_models_do_not_differ(self, gains):
        result = compare_paired(gains, gains, **FEW)
        assert (result.difference, result.effect, result.low, result.high) == (0, 0, 0, 0)
        assert result.p_bootstrap == result.p_wilcoxon == 1

    @given(PAIRS, st.randoms())
    @settings(deadline=None)
    def test_the_order_of_users_does_not_matter(self, pairs, random):
        a, b = map(np.array, zip(*pairs))
        random.shuffle(pairs)
        c, d = map(np.array, zip(*pairs))
        first, second = compare_paired(a, b, **FEW), compare_paired(c, d, **FEW)
        assert first.p_bootstrap == second.p_bootstrap and (first.low, first.high) == (second.low, second.high)
        assert first.p_wilcoxon == pytest.approx(second.p_wilcoxon)

    @given(PAIRS)
    @settings(deadline=None)
    def test_p_values_and_intervals_are_possible(self, pairs):
        a, b = map(np.array, zip(*pairs))
        result = compare_paired(a, b, **FEW)
        assert 0 < result.p_bootstrap <= 1 and 0 < result.p_wilcoxon <= 1 + 1e-12
        assert min(a - b) - 1e-9 <= result.low <= result.high <= max(a - b) + 1e-9

    @pytest.mark.parametrize("kind", ["sparse", "normal"])
    def test_five_in_a_hundred_tests_of_equal_models_find_a_difference(self, kind):
        generator = np.random.default_rng(1)
        found = {"bootstrap": 0, "wilcoxon": 0, "interval": 0}
        tests, users = 1000, 400
        for trial in range(tests):
            if kind == "sparse":  # one user in ten is served, by each model on its own, at any of ten places
                ranks = generator.integers(1, 101, (2, users))
                a, b = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
            else:
                a, b = generator.normal(size=(2, users))
            result = compare_paired(a, b, resamples=499, seed=trial)
            found["bootstrap"] += result.p_bootstrap < 0.05
            found["wilcoxon"] += result.p_wilcoxon < 0.05
            found["interval"] += not result.low <= 0 <= result.high
        # 50 are expected, with a standard deviation of sqrt(1000 * 0.05 * 0.95) = 6.9
        assert all(25 <= count <= 75 for count in found.values()), found


class TestBootstrap:
    def test_counts_of_equal_values_are_users_drawn_one_by_one(self):
        values = np.repeat([0.0, 0.5, 1.0], [70, 20, 10])
        means = bootstrap_means(values, 20_000, 0)
        drawn = np.random.default_rng(0).choice(values, (20_000, 100)).mean(1)
        assert means.mean() == pytest.approx(0.2, abs=0.002)
        assert means.std() == pytest.approx(values.std() / 10, rel=0.02)
        assert np.quantile(means, [0.025, 0.975]) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)

    def test_parts_are_as_many_as_asked_for(self, monkeypatch):
        monkeypatch.setattr("recbole_stream.reporting.statistics._DRAWS", 7)
        assert len(bootstrap_means(np.arange(3.0), 11, 0)) == 11


class TestHolm:
    def test_by_hand(self):
        # sorted .01 * 4, .02 * 3, .03 * 2, .04 * 1 -> .04, .06, max(.06, .06), max(.06, .04)
        assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
        assert list(holm([0.9, 0.6])) == [1, 1]
        assert len(holm([])) == 0

    @given(st.lists(st.floats(0, 1), min_size=1))
    def test_never_smaller_and_in_the_same_order(self, p_values):
        corrected = holm(p_values)
        assert np.all(corrected >= p_values) and np.all(corrected <= 1)
        order = np.argsort(p_values, kind="stable")
        assert np.all(np.diff(corrected[order]) >= 0)

    @given(st.lists(st.floats(0, 1), min_size=1))
    def test_never_beyond_bonferroni(self, p_values):
        assert np.all(holm(p_values) <= np.minimum(1, np.array(p_values) * len(p_values)) + 1e-15)


def test_mean_and_deviation_over_seeds():
    # deviations -1, 0, 1: squares sum to 2, / (3 - 1) = 1
    assert mean_and_deviation([1, 2, 3]) == (2, 1)
    assert mean_and_deviation([4]) == (4, None)
