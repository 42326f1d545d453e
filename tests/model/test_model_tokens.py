import pytest
import torch
from helpers import catalogue

from recbole_stream.model.tokens import ItemTokens, padding_bias

# three items with two levels of 3 and 2 entries: level 0 is tokens 0 .. 2, level 1 tokens 3 and 4
CODES, SIZES = torch.tensor([[2, 0], [0, 1], [2, 1]]), (3, 2)
INF = float("inf")


def make(history_input="tokens", temperature=1.0):
    torch.manual_seed(0)
    return ItemTokens(CODES, SIZES, 4, temperature, history_input)


class TestNumbering:
    def test_each_level_starts_where_the_one_before_ends(self):
        tokens = make()
        assert tokens.table[1:].tolist() == [[2, 3], [0, 4], [2, 4]]
        assert (tokens.n_items, tokens.levels, tokens.vocabulary) == (4, 2, 5)
        assert [tokens.level(0), tokens.level(1)] == [slice(0, 3), slice(3, 5)]

    def test_three_unequal_levels(self):
        codes = catalogue(30, (5, 2, 7))
        tokens = ItemTokens(codes, (5, 2, 7), 4, 1.0, "tokens")
        assert torch.equal(tokens.table[1:], codes + torch.tensor([0, 5, 7]))
        assert [tokens.level(d) for d in range(3)] == [slice(0, 5), slice(5, 7), slice(7, 14)]
        assert torch.equal(tokens.codes(tokens.table[1:]), codes)

    def test_tokens_of_another_level_are_no_codes(self):
        # token 3 in place of a level 0 code is 3, beyond 0 .. 2; token 2 in place of a level 1 code is -1
        assert make().codes(torch.tensor([[3, 2]])).tolist() == [[3, -1]]


class TestHistory:
    items = torch.tensor([[3, 1, 0], [2, 0, 0]])

    def test_tokens_gives_m_vectors_an_item(self):
        tokens = make()
        inputs, bias = tokens.history(self.items)
        e = tokens.embedding.weight
        assert torch.equal(inputs[0, :4], e[[2, 4, 2, 3]])
        assert torch.equal(inputs[1, :2], e[[0, 4]])
        assert bias.squeeze().tolist() == [[0, 0, 0, 0, -INF, -INF], [0, 0, -INF, -INF, -INF, -INF]]

    def test_item_gives_one_vector_an_item(self):
        tokens = make("item")
        with torch.no_grad():  # the sum of the first level's vector and twice the second's
            tokens.project.weight.copy_(torch.cat([torch.eye(4), 2 * torch.eye(4)], 1))
        inputs, bias = tokens.history(self.items)
        e = tokens.embedding.weight
        assert torch.allclose(inputs[0, :2], torch.stack([e[2] + 2 * e[4], e[2] + 2 * e[3]]))
        assert torch.allclose(inputs[1, 0], e[0] + 2 * e[4])
        assert bias.shape == (2, 1, 1, 3)
        assert bias.squeeze().tolist() == [[0, 0, -INF], [0, -INF, -INF]]

    def test_an_empty_history_keeps_one_open_position(self):
        assert padding_bias(torch.zeros(1, 2, dtype=torch.long)).squeeze().tolist() == [0, -INF]

    def test_the_items_are_not_changed(self):
        items = torch.zeros(1, 2, dtype=torch.long)
        padding_bias(items)
        assert items.tolist() == [[0, 0]]


class TestVectors:
    def set_embeddings(self, tokens):
        with torch.no_grad():  # token k is (k, 1, 0, -k)
            tokens.embedding.weight.copy_(torch.tensor([[k, 1.0, 0.0, -k] for k in range(5)]))

    def test_representation_is_the_mean_of_the_tokens(self):
        tokens = make()
        self.set_embeddings(tokens)
        # item 1 is tokens 2 and 3, item 2 tokens 0 and 4: means 2.5 and 2
        t = tokens.representation(torch.tensor([[1], [2]]))
        assert t.tolist() == [[[2.5, 1, 0, -2.5]], [[2, 1, 0, -2]]]

    @pytest.mark.parametrize("temperature", [1.0, 0.5])
    def test_logits_are_products_over_root_h_and_temperature(self, temperature):
        tokens = make(temperature=temperature)
        self.set_embeddings(tokens)
        # (1, 3, 5, 0) times (k, 1, 0, -k) is k + 3; the root of H = 4 is 2
        logits = tokens.logits(torch.tensor([1.0, 3, 5, 0]))
        assert logits.tolist() == [(k + 3) / 2 / temperature for k in range(5)]
