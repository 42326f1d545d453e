"""The turns of ETEGRec's tokenizer and generator."""

import helpers
import torch

from recbole_stream.data.samples import Batch
from recbole_stream.model.rivals.etegrec import ETEGRecModel
from recbole_stream.tokenizer.rq_vae import RQVAE, RQVAEOptions
from recbole_stream.training.etegrec import AlignOptions, Alternate


def made() -> Alternate:
    twin = helpers.tiger(helpers.catalogue(6, (4, 4)), (4, 4))
    tokenizer = RQVAE(3, 2, 4, RQVAEOptions(hidden_sizes=(3,), latent_size=2))
    model = ETEGRecModel(helpers.backbone(), twin.tokens, tokenizer, torch.randn(7, 3))
    return Alternate(model, AlignOptions(cycle=3, turns=2), 0.0, seed=0)


def test_the_tokenizer_has_the_first_epoch_of_each_cycle_but_the_first_for_some_turns():
    objective = made()
    assert [objective.prepare(epoch)["tokenizing"] for epoch in range(12)] == [0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0]


def test_each_turn_trains_its_own_part_at_its_own_rate():
    objective = made()
    model = objective.model
    tokenizer = {id(p) for p in model.tokenizer.parameters()}
    generator, other = objective.groups(list(model.parameters()), 1.0)
    assert {id(p) for p in other["params"]} == tokenizer and other["lr"] == 0.05
    batch = Batch(torch.tensor([[1, 2], [3, 0]]), torch.tensor([4, 5]), torch.arange(2))
    for epoch in (0, 3):
        objective.prepare(epoch)
        model.zero_grad()
        loss, scalars = next(objective.losses(batch))
        loss.backward()
        moved = {id(p) for p in model.parameters() if p.grad is not None}
        assert moved and (moved <= tokenizer if epoch == 3 else not moved & tokenizer)
        own = scalars["quantised" if epoch == 3 else "generated"]
        expected = own + 1e-3 * (scalars["sequence"] + scalars["preference"])
        torch.testing.assert_close(loss, expected)


def test_a_resumed_turn_is_the_one_that_was_interrupted():
    objective, other = made(), made()
    objective.prepare(3)
    other.prepare(0)
    other.load_state_dict(objective.state_dict())
    assert [p.requires_grad for p in other.model.parameters()] == [
        p.requires_grad for p in objective.model.parameters()
    ]
