"""Every weight that a stage trains gets a gradient, in both precisions."""

import pytest
import torch
from helpers import backbone, catalogue, make_samples, random_histories, streamrec, tiger
from torch import nn

from recbole_stream.decoding.trie import Trie
from recbole_stream.model.deliberation import Deliberation
from recbole_stream.model.lookup import Content, Transitions
from recbole_stream.model.matching import Matcher
from recbole_stream.training.finetune import Finetune, FinetuneOptions
from recbole_stream.training.fit_views import Match
from recbole_stream.training.loop import autocast
from recbole_stream.training.pretrain import Direct, Pretrain
from recbole_stream.training.reinforce import REWARDS, Reinforce, ReinforceOptions

SIZES = (6, 4, 5)
CODES = catalogue(40, SIZES)
SAMPLES = make_samples(random_histories(40, (5, 1, 3, 4)), torch.tensor([3, 40, 17, 3]))
SIMILAR = torch.stack([torch.arange(1, 6) + item for item in range(41)]).remainder(40) + 1
GENERATIVE = ("tokens", "encoder", "decoder")


def direct():
    model = tiger(CODES, SIZES)
    return model, Direct(model, 0.1), GENERATIVE


def pretrain(similar):
    model = streamrec(CODES, SIZES)
    parts = (*GENERATIVE, "reference.decoder") if similar else GENERATIVE
    return model, Pretrain(model, SIMILAR[:, :similar], 0.1), parts


def finetune(straight_through):
    model = streamrec(CODES, SIZES, mlp="plain")  # the last layers of the others are zero at first
    options = FinetuneOptions(2, 1, 1, 0.5, 0.1, 0.1, 0.1, 0.25, 0.1, straight_through, 0.1)
    objective = Finetune(model, SAMPLES, SIMILAR, options, 2, "bfloat16", False)
    objective.prepare(0)
    return model, objective, (*GENERATIVE, "reasoning")


def reinforce(positions):
    model = streamrec(CODES, SIZES)
    model.steps.fill_(2)
    # the rewards of 40 histories seldom tie
    options = ReinforceOptions(8, 1, 0.2, 0.1, "sequence", "sum", dict.fromkeys(REWARDS, 1.0), positions)
    return model, Reinforce(model, Trie(CODES), SIMILAR, options), GENERATIVE


def states():
    model = streamrec(CODES, SIZES)
    text = torch.randn(41, 8, generator=torch.Generator().manual_seed(0))
    lookup = Transitions(SAMPLES.histories, SAMPLES.lengths, SAMPLES.targets, 41, 3, 0.8, 0.5, 0.7)
    matcher = Matcher(backbone(), model.tokens.table, model.tokens.vocabulary, text)
    model.deliberation = Deliberation(matcher, lookup, Content(text, 0.7))
    return model, Match(model), ("deliberation.matcher",)


STAGES = {
    "TIGER": direct,
    "PT, one decoder": lambda: pretrain(0),
    "PT, two decoders": lambda: pretrain(2),
    "SFT": lambda: finetune(False),
    "SFT, straight through": lambda: finetune(True),
    "RL": lambda: reinforce("all"),
    "RL, thinking": lambda: reinforce("thinking"),
    "States": states,
}


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("stage", STAGES)
def test_every_weight_that_is_trained_gets_a_gradient(stage, precision):
    model, objective, parts = STAGES[stage]()
    model.train()
    with autocast("cpu", precision):
        loss, _ = next(objective.losses(SAMPLES.batch(torch.arange(4))))
    loss.backward()
    learnt = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt == {name for name, _ in model.named_parameters() if name.startswith(tuple(f"{p}." for p in parts))}
    assert all(p.requires_grad for name, p in model.named_parameters() if name in learnt)
    # and nothing else of what is left open to it is in the loss
    nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0, error_if_nonfinite=True)
