"""The matching tower."""

import torch

from recbole_stream.model.matching import Matcher
from tests.helpers import backbone, catalogue, pad


def tower(text=True):
    torch.manual_seed(0)
    codes = catalogue(12, (4, 4))
    table = torch.nn.functional.pad(codes + torch.tensor([0, 4]), (0, 0, 1, 0))
    return Matcher(backbone(), table, 8, torch.randn(13, 5) if text else None).eval()


def test_an_items_vector_is_its_own_plus_its_tokens_mean_plus_its_text():
    matcher = tower()
    first, second = matcher.table[7].tolist()
    text = matcher.text[7] @ matcher.project.weight.T
    expected = matcher.own.weight[7] + (matcher.tokens.weight[first] + matcher.tokens.weight[second]) / 2 + text
    assert torch.allclose(matcher.vectors()[7], expected, atol=1e-6)


def test_texts_are_centred_over_the_items():
    matcher = tower()
    assert torch.allclose(matcher.text[1:].mean(0), torch.zeros(5), atol=1e-6)


def test_logits_are_products_with_the_state_of_the_last_item():
    matcher = tower(text=False)
    histories = pad([[3, 1, 4], [5]])
    with torch.no_grad():
        vectors = matcher.vectors()
        logits = matcher(histories)
        assert torch.allclose(logits[:, 1:], (matcher.states(histories, vectors) @ vectors.T)[:, 1:], atol=1e-5)
    assert torch.all(logits[:, 0] == -torch.inf)


def test_a_frozen_tower_gives_the_same_without_its_texts():
    matcher, histories = tower(), pad([[3, 1, 4], [5]])
    with torch.no_grad():
        logits = matcher(histories)
        matcher.freeze()
        assert matcher.text is None and torch.equal(matcher(histories), logits)


def test_padding_changes_nothing():
    matcher = tower()
    with torch.no_grad():
        alone = matcher(torch.tensor([[5, 2]]))
        padded = matcher(torch.tensor([[5, 2, 0, 0]]))
    assert torch.allclose(alone[:, 1:], padded[:, 1:], atol=1e-5)


def test_the_order_of_a_history_matters():
    matcher = tower()
    with torch.no_grad():
        assert not torch.allclose(
            matcher(torch.tensor([[5, 2]]))[:, 1:], matcher(torch.tensor([[2, 5]]))[:, 1:], atol=1e-3
        )


def test_gradients_repeat_themselves_in_several_threads():
    # those of rows that many histories share are added up: in an order that the threads must not decide
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        matcher = tower(text=False)
        histories = torch.randint(1, 13, (512, 20), generator=torch.Generator().manual_seed(1))
        gradients = []
        for _ in range(6):
            matcher.zero_grad()
            matcher(histories)[:, 1:].log_softmax(1)[:, 0].mean().backward()
            gradients.append(matcher.own.weight.grad.clone())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
