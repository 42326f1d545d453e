"""Seeds against `sha256sum`, and how far apart they are."""

import itertools

import numpy as np
import pytest
import torch

from recbole_stream.seeds import mix


@pytest.mark.parametrize(
    "parts, expected",
    # printf '[2020, "PT", "order", 0]' | sha256sum | cut -c1-8
    [((2020, "PT", "order", 0), 0xD8BF417B), ((2021, "SFT", "batches"), 0x4606FC7F)],
)
def test_a_seed_is_the_same_everywhere(parts, expected):
    assert mix(*parts) == expected


def test_every_run_stage_and_epoch_has_a_seed_of_its_own():
    parts = itertools.product(range(2000, 2050), ("TIGER", "PT", "SFT", "RL", "States"), range(40))
    assert len({mix(*some) for some in parts}) == 50 * 5 * 40


def test_parts_are_not_run_together():
    parts = [(1, 23), (12, 3), (123,), (1, 2, 3), ("1", 23), ("a", "bc"), ("ab", "c"), (5,), (5, 0), (2**32 + 5,), ()]
    assert len({mix(*some) for some in parts}) == len(parts)


def test_generators_that_take_32_bits_take_the_whole_seed():
    for epoch in range(100):
        np.random.RandomState(mix(2020, epoch))  # refuses others
    # why 32: of a longer seed torch's generator drops the rest
    long = torch.Generator().manual_seed(5 + 2**32)
    assert torch.equal(torch.rand(3, generator=long), torch.rand(3, generator=torch.Generator().manual_seed(5)))
