import pytest
import torch
from helpers import catalogue, make_samples, next_log_probs, random_histories, streamrec, tiger

from recbole_stream.training.pretrain import Direct, Pretrain

SIZES = (6, 4, 5)
CODES = catalogue(40, SIZES)
SAMPLES = make_samples(random_histories(40, (5, 1, 3, 4)), torch.tensor([3, 40, 17, 3]))
BATCH = SAMPLES.batch(torch.arange(4))
NEIGHBOURS = torch.randint(1, 41, (41, 2), generator=torch.Generator().manual_seed(5))


def plain_cross_entropy(model, history, labels):
    """Mean of -log P over the labels, each from scratch."""
    labels = labels.tolist()
    return -torch.stack([next_log_probs(model, history, labels[:j])[label] for j, label in enumerate(labels)]).mean()


def direct_model(model):
    """The direct decoder of Stage 1 over the model's own encoder and vocabulary, as a TIGER of its own."""
    direct = tiger(CODES, SIZES, seed=7)
    direct.tokens.load_state_dict(model.tokens.state_dict())
    direct.encoder.load_state_dict(model.encoder.state_dict())
    direct.decoder.load_state_dict(model.reference.decoder.state_dict())
    return direct


def trained_parts(module):
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {name.split(".")[0] for name, gradient in gradients.items() if gradient.abs().sum() > 0}


class TestDirect:
    def test_loss_is_the_cross_entropy_of_the_target(self):
        model = tiger(CODES, SIZES)
        ((loss, _),) = Direct(model, 0.0).losses(BATCH)
        plain = [
            plain_cross_entropy(model, history, model.tokens.table[target])
            for history, target in zip(BATCH.histories, BATCH.targets)
        ]
        assert loss.item() == pytest.approx(torch.stack(plain).mean().item(), rel=1e-5)

    def test_label_smoothing_mixes_in_the_mean_over_the_vocabulary(self):
        model = tiger(CODES, SIZES)
        loss = {share: next(Direct(model, share).losses(BATCH))[0].item() for share in (0.0, 0.5, 1.0)}
        uniform = -model.item_logits(BATCH.histories, BATCH.targets).log_softmax(-1).mean().item()
        assert loss[1.0] == pytest.approx(uniform, rel=1e-5)
        assert loss[0.5] == pytest.approx((loss[0.0] + uniform) / 2, rel=1e-5)


class TestPretrain:
    def test_reads_the_neighbours_and_then_the_target(self):
        model = streamrec(CODES, SIZES)
        ((loss, scalars),) = Pretrain(model, NEIGHBOURS, 0.0).losses(BATCH)
        table, slow = model.tokens.table, []
        for history, target in zip(BATCH.histories, BATCH.targets):
            first, second = NEIGHBOURS[target]
            labels = torch.cat([table[first], table[second], table[target]])  # Y of Eq. 9: q + m = 9 tokens
            slow.append(plain_cross_entropy(model, history, labels))
        slow = torch.stack(slow).mean().item()
        direct = next(Direct(direct_model(model), 0.0).losses(BATCH))[0].item()
        assert scalars["slow"].item() == pytest.approx(slow, rel=1e-5)
        assert scalars["direct"].item() == pytest.approx(direct, rel=1e-5)
        assert loss.item() == pytest.approx(slow + direct, rel=1e-5)

    def test_without_similar_items_it_is_the_direct_decoder_alone(self):
        model = streamrec(CODES, SIZES)
        model.start_from_direct()  # so that direct_model is a TIGER with the slow decoder's weights
        direct = direct_model(model)
        expected = next(Direct(direct, 0.1).losses(BATCH))[0].item()
        objective = Pretrain(model, NEIGHBOURS[:, :0], 0.1)
        ((loss, _),) = objective.losses(BATCH)
        assert loss.item() == pytest.approx(expected, rel=1e-6) and model.steps == 0
        loss.backward()
        assert trained_parts(model) == {"tokens", "encoder", "decoder"}
        for parameter in model.parameters():
            parameter.data += 0.1  # a step
        expected = next(objective.losses(BATCH))[0].item()
        assert not any(parameter.requires_grad for parameter in model.reference.parameters())
        model.freeze_reference(one_decoder=True)
        assert next(Direct(model.reference, 0.1).losses(BATCH))[0].item() == pytest.approx(expected, rel=1e-6)

    def test_the_model_then_thinks_q_tokens(self):
        model = streamrec(CODES, SIZES)
        Pretrain(model, NEIGHBOURS, 0.0)
        assert model.steps == 6

    def test_both_losses_train_the_encoder_and_each_its_decoder(self):
        model = streamrec(CODES, SIZES)
        ((_, scalars),) = Pretrain(model, NEIGHBOURS, 0.0).losses(BATCH)
        scalars["slow"].backward(retain_graph=True)
        assert trained_parts(model) == {"tokens", "encoder", "decoder"}
        model.zero_grad()
        scalars["direct"].backward()
        assert trained_parts(model) == {"tokens", "encoder", "reference"}
        assert trained_parts(model.reference) == {"decoder"}

    def test_the_frozen_reference_is_what_the_direct_loss_trained(self):
        model = streamrec(CODES, SIZES)
        objective = Pretrain(model, NEIGHBOURS, 0.0)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01)
        for _ in range(5):
            optimizer.zero_grad()
            next(objective.losses(BATCH))[0].backward()
            optimizer.step()
        direct = next(objective.losses(BATCH))[1]["direct"].item()
        model.freeze_reference()
        assert next(Direct(model.reference, 0.0).losses(BATCH))[0].item() == pytest.approx(direct, rel=1e-6)
