import math

import pytest
import torch

from recbole_stream.training import losses
from recbole_stream.training.losses import (
    catalogue_cross_entropy,
    dpo_loss,
    quantisation_loss,
    state_contrast,
    state_weights,
    token_cross_entropy,
)

LN3 = math.log(3)


class TestTokenCrossEntropy:
    logits = torch.tensor([[[LN3, 0.0], [0.0, 0.0]]])  # softmax (3/4, 1/4) and (1/2, 1/2)
    labels = torch.tensor([[0, 1]])

    def test_is_the_mean_over_tokens(self):
        # (-ln 3/4 - ln 1/2) / 2 = ln(8/3) / 2
        loss = token_cross_entropy(self.logits, self.labels)
        assert loss.item() == pytest.approx(math.log(8 / 3) / 2)

    def test_label_smoothing_spreads_over_the_vocabulary(self):
        # .2 smoothing over V = 2: .9 on the label, .1 on the other token
        first = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
        loss = token_cross_entropy(self.logits, self.labels, label_smoothing=0.2)
        assert loss.item() == pytest.approx((first + math.log(2)) / 2)

    def test_bfloat16_logits_are_computed_in_float32(self):
        # 256 equal logits: ln 256 = 5.545 would be 5.53 or 5.56 in bfloat16
        logits = torch.zeros(2, 3, 256, dtype=torch.bfloat16)
        loss = token_cross_entropy(logits, torch.ones(2, 3, dtype=torch.long))
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(math.log(256), rel=1e-6)


def test_state_weights_grow_with_the_step():
    # 1 + 2 + 3 = 6
    assert state_weights(3).tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])


class TestStateContrast:
    # temperature 1 / ln 3: exp(cosine / temperature) is 3 for cosine 1 and 1 for cosine 0

    def test_two_samples_two_steps(self):
        targets = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        states = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 5.0]]])
        # share of the own target: sample 0: 3/4, then 1/4; sample 1: 3/4 twice; weights 1/3, 2/3
        # step 1: ln 4/3; step 2: (ln 4 + ln 4/3) / 2
        expected = math.log(4 / 3) / 3 + (math.log(4) + math.log(4 / 3)) / 2 * 2 / 3
        loss = state_contrast(states, targets, torch.tensor([7, 8]), 1 / LN3)
        assert loss.item() == pytest.approx(expected)

    def test_a_dot_product_counts_lengths(self):
        targets = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        states = torch.tensor([[[2.0, 0.0]], [[1.0, 1.0]]])
        # dot products 2 and 0, then 1 and 2: shares of the own target 9 / (9 + 1) and 9 / (3 + 9)
        expected = (math.log(10 / 9) + math.log(4 / 3)) / 2
        loss = state_contrast(states, targets, torch.tensor([7, 8]), 1 / LN3, similarity="dot")
        assert loss.item() == pytest.approx(expected)

    def test_a_batch_mate_with_the_same_target_is_no_negative(self):
        targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        states = targets[:, None, :].clone()
        # samples 0 and 2: 3 / (3 + 1), each other left out; sample 1: 3 / (3 + 1 + 1)
        expected = (2 * math.log(4 / 3) + math.log(5 / 3)) / 3
        loss = state_contrast(states, targets, torch.tensor([7, 8, 7]), 1 / LN3)
        assert loss.item() == pytest.approx(expected)

    def test_a_batch_with_a_single_target_has_no_loss_and_no_gradient(self):
        states = torch.randn(4, 3, 5, requires_grad=True)
        loss = state_contrast(states, torch.randn(4, 5), torch.full((4,), 9), 0.1)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(states.grad, torch.zeros_like(states))

    def test_parts_of_a_batch_meet_all_of_its_targets(self):
        # the two halves of the first test's batch: ln 4/3 / 3 + ln 4 * 2/3, and ln 4/3
        targets = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        states = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 5.0]]])
        losses = [
            state_contrast(states[part], targets, torch.tensor([7, 8]), 1 / LN3, part).item()
            for part in (slice(0, None, 2), slice(1, None, 2))
        ]
        assert losses == pytest.approx([math.log(4 / 3) / 3 + math.log(4) * 2 / 3, math.log(4 / 3)])

    def test_autocast_does_not_round_the_cosines(self):
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(8, 2, 16, generator=generator)
        targets = torch.randn(8, 16, generator=generator)
        plain = state_contrast(states, targets, torch.arange(8), 0.05)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = state_contrast(states, targets, torch.arange(8), 0.05)
        assert mixed.item() == pytest.approx(plain.item(), rel=1e-6)


class TestQuantisationLoss:
    residuals = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    tokens = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])

    def test_is_the_mean_over_samples_and_steps(self):
        # squared distances 5 and 1, each (1 + beta) times: 1.25 * (5 + 1) / 2
        loss = quantisation_loss(self.residuals, self.tokens, beta=0.25)
        assert loss.item() == pytest.approx(3.75)

    def test_each_side_gets_the_gradient_of_its_own_term(self):
        residuals = self.residuals.clone().requires_grad_()
        tokens = self.tokens.clone().requires_grad_()
        quantisation_loss(residuals, tokens, beta=0.25).backward()
        # 2 (o - r) / 2 steps for the tokens, beta * 2 (r - o) / 2 for the residuals
        assert tokens.grad.tolist() == [[[-1.0, -2.0], [1.0, 0.0]]]
        assert residuals.grad.tolist() == [[[0.25, 0.5], [-0.25, 0.0]]]


class TestDPOLoss:
    def test_two_samples(self):
        # sample 0: logit+ = -1 + 2 = 1, logit- = -3 + 2 = -1; beta 2 = ln 3; sigmoid(ln 3) = 3/4
        # sample 1: logit+ = logit- = 4; sigmoid(0) = 1/2; mean of ln 4/3 and ln 2
        loss = dpo_loss(
            torch.tensor([-1.0, -2.0]),
            torch.tensor([-3.0, -5.0]),
            torch.tensor([-2.0, -6.0]),
            torch.tensor([-2.0, -9.0]),
            beta=LN3 / 2,
        )
        assert loss.item() == pytest.approx(math.log(8 / 3) / 2)

    def test_the_gradient_raises_the_chosen_and_lowers_the_rejected(self):
        chosen, rejected = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        dpo_loss(chosen, rejected, torch.zeros(1), torch.zeros(1), beta=0.5).backward()
        # -beta * sigmoid(0)
        assert chosen.grad.item() == pytest.approx(-0.25)
        assert rejected.grad.item() == pytest.approx(0.25)

    def test_a_hopeless_pair_stays_finite(self):
        # -log sigmoid(-1000) = 1000, where sigmoid alone underflows
        loss = dpo_loss(*torch.tensor([[-1000.0], [0.0], [0.0], [0.0]]), beta=1.0)
        assert loss.item() == pytest.approx(1000.0)

    def test_bfloat16_log_probabilities_are_subtracted_in_float32(self):
        # logit+ = -1.5 + 200 = 198.5 and logit- = 199: bfloat16 has only whole numbers there
        numbers = torch.tensor([[-1.5], [-1.0], [-200.0], [-200.0]], dtype=torch.bfloat16)
        assert dpo_loss(*numbers, beta=1.0).item() == pytest.approx(math.log(1 + math.exp(0.5)))


class TestCatalogueCrossEntropy:
    def test_is_the_softmax_over_all_items_but_padding(self):
        # logits of items 1 and 2: ln 3 and 0; padding would have the largest
        vectors = torch.tensor([[9.0], [LN3], [0.0]])
        loss = catalogue_cross_entropy(torch.ones(1, 1), vectors, torch.tensor([2]))
        assert loss.item() == pytest.approx(math.log(4))

    @pytest.mark.parametrize("cells", [1, 40, 1 << 22])  # 294 logits: in chunks of one item, of 6, or kept
    @pytest.mark.parametrize("bfloat16", [False, True])
    def test_value_and_gradients_are_those_of_the_dense_softmax(self, cells, bfloat16, monkeypatch):
        monkeypatch.setattr(losses, "_CELLS", cells)
        monkeypatch.setattr(losses, "_KEPT", cells)
        generator = torch.Generator().manual_seed(0)
        states, vectors = (torch.randn(size, 8, generator=generator) for size in (6, 50))
        targets = torch.tensor([1, 49, 7, 7, 3, 20])
        results = []
        for chunked in (True, False):
            s, v = states.clone().requires_grad_(), vectors.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                if chunked:
                    loss = catalogue_cross_entropy(s, v, targets)
                else:
                    logits = torch.nn.functional.linear(s, v).float()
                    loss = torch.nn.functional.cross_entropy(logits[:, 1:], targets - 1)
            (3 * loss).backward()
            results.append((loss.detach(), s.grad, v.grad))
        for one, other in zip(*results):
            assert one.dtype == other.dtype == torch.float32
            assert torch.allclose(one, other, atol=0.02 if bfloat16 else 1e-5)
