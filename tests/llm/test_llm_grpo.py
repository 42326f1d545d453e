"""GRPO of a tiny random language model by TRL: it trains, keeps the best, and goes on where it was stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recbole_stream.llm.policy import as_input, load_policy
from recbole_stream.llm.recr1 import RecR1Model, RecR1Options
from recbole_stream.llm.retrieval import BM25
from recbole_stream.llm.reward import reward_function
from recbole_stream.training.checkpoint import Progress
from recbole_stream.training.loop import StageContext
from recbole_stream.training.schedule import Schedule
from tests.cases import TITLES
from tests.llm.tiny import save_language_model

pytestmark = pytest.mark.trl

TEXTS = list(TITLES.values())
SCHEDULE = Schedule(epochs=2, learning_rate=0.01, batch_size=2, samples_per_epoch=4, patience=9, seed=3)


def train(path: str, context: StageContext, folder: Path | None, schedule: Schedule = SCHEDULE):
    """Two epochs of two steps, each of two prompts with four completions."""
    from recbole_stream.llm.grpo import GRPOOptions, train_policy

    model = RecR1Model(*load_policy(path), TEXTS, BM25(TEXTS), RecR1Options("query", 4, 5, 3))
    histories = torch.tensor([[n + 1, n + 2, 0] for n in range(20)])
    options = GRPOOptions(group=4, micro_batch=4, tokens=5, temperature=1.0, top_p=1.0, kl_weight=0.001)
    result = train_policy(
        model.policy,
        model.tokenizer,
        lambda rows: [as_input(prompt, model.tokenizer) for prompt in model.prompts(histories[rows])],
        list(range(2, 22)),
        reward_function(model.places, 1000, 0.1),
        options,
        schedule,
        context,
        folder,
    )
    return result, {name: value.clone() for name, value in model.policy.state_dict().items()}


def rising() -> StageContext:
    """A context whose metric improves with every validation, so that the last weights are the best."""
    values = iter(range(100))
    return StageContext(lambda: {"ndcg@10": float(next(values))}, "ndcg@10", show_progress=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("lm"), TEXTS)


@pytest.fixture(scope="module")
def whole(path):
    return train(path, rising(), None)


def test_it_trains_and_says_how(path, whole):
    result, weights = whole
    before = load_policy(path)[0].state_dict()
    assert any(not torch.equal(weights[name], before[name]) for name in before)
    assert (result.name, result.epochs, result.epoch, result.valid) == ("GRPO", 2, 1, {"ndcg@10": 2.0})
    assert [curve["valid"] for curve in result.curves] == [1.0, 2.0]
    assert all(0 <= curve["reward"] <= 1.1 and 0 < curve["length"] <= 5 for curve in result.curves)


def test_it_goes_on_where_it_was_stopped(path, whole, tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch, valid):
        raise Stop

    def kept() -> Progress:
        return Progress(tmp_path / "stage-0.pth", "a run")

    with pytest.raises(Stop):
        train(path, replace(rising(), progress=kept(), on_epoch=stop), tmp_path / "trl")
    seen = []
    later = replace(rising(), evaluate=lambda: {"ndcg@10": 2.0}, progress=kept(), on_epoch=lambda n, v: seen.append(n))
    result, weights = train(path, later, tmp_path / "trl")
    assert seen == [1]  # the first epoch is not trained again
    assert [curve["loss"] for curve in result.curves] == [curve["loss"] for curve in whole[0].curves]
    assert all(torch.equal(weights[name], whole[1][name]) for name in weights)
    result, again = train(path, replace(later, on_epoch=None), tmp_path / "trl")  # it had ended: nothing is trained
    assert result.epochs == 2 and all(torch.equal(again[name], weights[name]) for name in weights)


def test_the_untrained_model_competes_and_patience_ends_training(path):
    falling = iter((0.5, 0.4, 0.3, 0.2))
    context = StageContext(lambda: {"ndcg@10": next(falling)}, "ndcg@10", show_progress=False)
    result, weights = train(path, context, None, replace(SCHEDULE, epochs=3, samples_per_epoch=2, patience=1))
    assert (result.epoch, result.epochs, result.valid) == (-1, 2, {"ndcg@10": 0.5})
    before = load_policy(path)[0].state_dict()
    assert all(torch.equal(weights[name], before[name]) for name in before)
