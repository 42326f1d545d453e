import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recbole_stream.decoding.trie import Trie


@st.composite
def catalogues(draw):
    """Sizes of 1 to 4 levels and a list of different IDs, in random order."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    identifier = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    return sizes, draw(st.lists(identifier, min_size=1, max_size=40, unique=True))


def walk(trie):
    """All prefixes that a walk from the root reaches: {prefix: node} for each depth."""
    reached = [{(): 0}]
    for depth in range(trie.levels):
        prefixes, nodes = zip(*reached[-1].items())
        children, codes, exists = trie.expand(depth, torch.tensor(nodes)[None])
        below = {}
        for place, prefix in enumerate(prefixes):
            for child, code, there in zip(children[0, place], codes[0, place], exists[0, place]):
                if there:
                    assert (*prefix, int(code)) not in below
                    below[*prefix, int(code)] = int(child)
        reached.append(below)
    return reached


@given(catalogues())
@settings(deadline=None, max_examples=60)
def test_a_walk_reaches_exactly_the_existing_prefixes(catalogue):
    _, identifiers = catalogue
    trie = Trie(torch.tensor(identifiers))
    for depth, reached in enumerate(walk(trie)):
        assert set(reached) == {identifier[:depth] for identifier in identifiers}
        # each prefix has a node of its own, and they are numbered without gaps
        assert sorted(reached.values()) == list(range(len(reached)))
        if depth:
            assert trie.nodes[depth - 1] == len(reached)
            wide = [sum(prefix[: depth - 1] == parent for prefix in reached) for parent in walk(trie)[depth - 1]]
            assert trie.widest[depth - 1] == max(wide)
    for identifier, leaf in walk(trie)[-1].items():
        assert identifiers[trie.items[leaf] - 1] == identifier


@given(catalogues())
@settings(deadline=None, max_examples=60)
def test_find_gives_the_item_or_0(catalogue):
    sizes, identifiers = catalogue
    trie = Trie(torch.tensor(identifiers))
    # codes from one below to one above those that are possible
    every = list(itertools.product(*(range(-1, size + 1) for size in sizes)))
    item = {identifier: row + 1 for row, identifier in enumerate(identifiers)}
    assert trie.find(torch.tensor(every)).tolist() == [item.get(codes, 0) for codes in every]


def test_find_takes_any_shape():
    trie = Trie(torch.tensor([[1, 0], [0, 2], [0, 0]]))
    codes = torch.tensor([[[0, 2], [1, 0]], [[1, 2], [0, 0]]])
    assert trie.find(codes).tolist() == [[2, 1], [0, 3]]
    assert trie.find(codes[0, 0]).item() == 2


def test_expand_by_hand():
    # items 1 .. 4; in order of their IDs: 3 (0 0), 2 (0 2), 4 (1 1), 1 (3 0): nodes 0 (code 0), 1 (1), 2 (3)
    trie = Trie(torch.tensor([[3, 0], [0, 2], [0, 0], [1, 1]]))
    children, codes, exists = trie.expand(0, torch.tensor([[0]]))
    assert (children.tolist(), codes.tolist(), exists.all()) == ([[[0, 1, 2]]], [[[0, 1, 3]]], True)
    children, codes, exists = trie.expand(1, torch.tensor([[2, 0]]))
    assert exists.tolist() == [[[True, False], [True, True]]]
    assert children[exists].tolist() == [3, 0, 1]
    assert codes[exists].tolist() == [0, 0, 2]
    # a missing child repeats an existing one, so that its number can be read and expanded
    assert children[~exists].tolist() == [3]
    assert trie.items.tolist() == [3, 2, 4, 1]
    assert (trie.widest, trie.nodes) == ([3, 2], [3, 4])


def test_equal_ids_are_refused():
    with pytest.raises(ValueError, match="1 items share"):
        Trie(torch.tensor([[0, 1], [1, 1], [0, 1]]))


@given(catalogues())
@settings(deadline=None, max_examples=30)
def test_memory_is_a_few_numbers_an_item(catalogue):
    _, identifiers = catalogue
    trie = Trie(torch.tensor(identifiers))
    held = sum(buffer.numel() * buffer.element_size() for buffer in trie.buffers())
    # 4 bytes: m codes, m - 1 starts and the item number for each item; m ends and the root's start besides
    levels = trie.levels
    assert held <= 4 * (2 * levels * len(identifiers) + levels + 1)


def test_moves_with_the_module_that_holds_it_and_stays_out_of_its_weights():
    holder = nn.Module()
    holder.trie = Trie(torch.tensor([[0, 1], [1, 1]]))
    assert holder.trie in list(holder.to("meta").modules())
    assert {buffer.device.type for buffer in holder.buffers()} == {"meta"}
    assert holder.state_dict() == {}
