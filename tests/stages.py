"""One small model with its objective for each stage, on four samples."""

import torch
from helpers import backbone, catalogue, make_samples, random_histories, streamrec, tiger

from recbole_stream.decoding.trie import Trie
from recbole_stream.model.deliberation import Deliberation
from recbole_stream.model.lookup import Content, Transitions
from recbole_stream.model.matching import Matcher
from recbole_stream.training.finetune import Finetune, FinetuneOptions
from recbole_stream.training.fit_views import Match
from recbole_stream.training.pretrain import Direct, Pretrain
from recbole_stream.training.reinforce import REWARDS, Reinforce, ReinforceOptions

__all__ = ["CODES", "SAMPLES", "STAGES"]

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
    options = FinetuneOptions(
        steps=2, round_epochs=1, rounds=1, dpo_weight=0.5, quant_weight=0.1, state_weight=0.1, dpo_beta=0.1,
        quant_beta=0.25, state_similarity="cosine", state_temperature=0.1, straight_through=straight_through,
        label_smoothing=0.1,
    )  # fmt: skip
    objective = Finetune(model, SAMPLES, SIMILAR, options, 2, "bfloat16", False)
    objective.prepare(0)
    return model, objective, (*GENERATIVE, "reasoning")


def reinforce(positions):
    model = streamrec(CODES, SIZES)
    model.steps.fill_(2)
    options = ReinforceOptions(
        group=8, updates=1, clip=0.2, kl_weight=0.1, importance_sampling="sequence", normalise="sum",
        weights=dict.fromkeys(REWARDS, 1.0), positions=positions,
    )  # fmt: skip
    return model, Reinforce(model, Trie(CODES), SIMILAR, options), GENERATIVE


def states():
    model = streamrec(CODES, SIZES)
    text = torch.randn(41, 8, generator=torch.Generator().manual_seed(0))
    lookup = Transitions(SAMPLES.histories, SAMPLES.lengths, SAMPLES.targets, 41, 3, 0.8, 0.5, 0.7)
    matcher = Matcher(backbone(), model.tokens.table, model.tokens.vocabulary, text)
    model.deliberation = Deliberation(matcher, lookup, Content(text, 0.7))
    return model, Match(model), ("deliberation.matcher",)


# name -> the model, its objective, and the parts of the model that the stage trains
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
