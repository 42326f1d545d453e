import logging
import math

import pytest
import torch
from helpers import catalogue, make_samples, random_histories, tiger
from torch import nn

from recbole_stream.data.samples import Samples
from recbole_stream.decoding.rank import rank_items
from recbole_stream.decoding.trie import Trie
from recbole_stream.training.checkpoint import Progress
from recbole_stream.training.loop import Objective, StageContext, TrainingDiverged, train_stage
from recbole_stream.training.pretrain import Direct
from recbole_stream.training.schedule import Schedule

SIZES, N_ITEMS = (5, 5), 20
CODES = catalogue(N_ITEMS, SIZES)


def toy() -> Samples:
    """The next item follows from the last one."""
    histories = random_histories(N_ITEMS, [1 + row % 3 for row in range(240)])
    last = histories[torch.arange(240), (histories > 0).sum(1) - 1]
    return make_samples(histories, last * 7 % N_ITEMS + 1)


def accuracy(model, samples):
    trie = Trie(CODES)

    def evaluate():
        model.eval()
        items, _ = rank_items(model, samples.histories, trie, 5)
        return {"recall@1": (items[:, 0] == samples.targets).float().mean().item()}

    return evaluate


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first | second)


class Scripted(Objective):
    """One weight w from 0, whose loss is w + offset: the gradient is 1, AdamW moves by the rate."""

    name = "toy"

    def __init__(self, offsets=(0.0,), updates=1):
        self.model, self.offsets, self.updates = nn.Linear(1, 1, bias=False), offsets, updates
        nn.init.zeros_(self.model.weight)
        self.epoch, self.steps, self.seen = 0, 0, []

    def prepare(self, epoch):
        self.epoch = epoch
        return {"prepared": float(epoch)}

    def losses(self, batch):
        self.seen += batch.targets.tolist()
        for _ in range(self.updates):
            self.steps += 1
            offset = self.offsets[min(self.epoch, len(self.offsets) - 1)]
            mode = torch.tensor(float(self.model.training))
            yield self.model.weight.sum() + offset, {"mode": mode}


def scripted(objective, values, epochs=10, **changes):
    """A stage over 4 samples in batches of 2, whose validation gives ``values``; result and calls."""
    samples = make_samples(torch.ones(4, 1, dtype=torch.long), torch.tensor([1, 2, 3, 4]))
    keywords = {name: changes.pop(name) for name in ("progress", "on_epoch", "record", "bigger") if name in changes}
    evaluate_first = changes.pop("evaluate_first", False)
    seen = []

    def evaluate():
        seen.append(weights(objective.model))
        return {"ndcg": values[min(len(seen), len(values)) - 1], "calls": float(len(seen))}

    schedule = Schedule(**{"epochs": epochs, "learning_rate": 0.1, "batch_size": 2, "patience": 1} | changes)
    context = StageContext(evaluate, "ndcg", show_progress=False, **keywords)
    result = train_stage(objective.model, objective, schedule, samples, context, evaluate_first)
    return result, seen


class TestTraining:
    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_learns_a_rule(self, precision):
        samples, model = toy(), tiger(CODES, SIZES, "item")
        evaluate = accuracy(model, samples)
        assert evaluate()["recall@1"] < 0.2
        schedule = Schedule(epochs=12, learning_rate=0.02, batch_size=24, warmup_steps=10)
        context = StageContext(evaluate, "recall@1", precision=precision, show_progress=False)
        result = train_stage(model, Direct(model, 0.0), schedule, samples, context)
        assert result.valid["recall@1"] > 0.8  # older releases of torch round bfloat16 otherwise
        assert result.curves[-1]["loss"] < 0.2 * result.curves[0]["loss"]
        assert evaluate() == result.valid and not model.training
        assert result.epochs == len(result.curves) == 12

    def test_scalars_are_means_over_the_steps(self):
        objective = Scripted(updates=3)
        result, _ = scripted(objective, [0.0], epochs=1, updates_per_batch=3)
        # 2 batches of 3 updates; AdamW moves w by rate * factor, (1 + cos(pi n / 6)) / 2 of .1 at step n
        assert objective.steps == 6
        moves = [0.05 * (1 + math.cos(math.pi * n / 6)) for n in range(6)]
        before = [-sum(moves[:n]) for n in range(6)]
        curve = result.curves[0]
        assert curve["loss"] == pytest.approx(sum(before) / 6, rel=1e-4)
        assert objective.model.weight.item() == pytest.approx(-sum(moves), rel=1e-4)
        assert (curve["gradient_norm"], curve["prepared"], curve["mode"]) == (1.0, 0.0, 1.0)

    def test_no_run_and_no_stage_has_the_batches_of_another(self):
        samples, orders = make_samples(torch.ones(12, 1, dtype=torch.long), torch.arange(12)), []
        for seed, name in ((2020, "PT"), (2021, "PT"), (2022, "PT"), (2020, "SFT")):
            objective = Scripted()
            objective.name = name
            schedule = Schedule(epochs=3, learning_rate=0.1, batch_size=2, patience=9, seed=seed)
            context = StageContext(lambda: {"ndcg": 0.0}, "ndcg", show_progress=False)
            train_stage(objective.model, objective, schedule, samples, context)
            orders += torch.tensor(objective.seen).view(3, 12).tolist()
        assert len({tuple(order) for order in orders}) == 4 * 3

    def test_each_epoch_takes_every_sample_in_an_order_of_its_own(self):
        objective = Scripted()
        scripted(objective, [0.0], epochs=5, patience=9)
        epochs = torch.tensor(objective.seen).view(5, 4)
        assert (epochs.sort(1).values == torch.tensor([1, 2, 3, 4])).all()
        assert len(epochs.unique(dim=0)) > 2

    def test_gradients_are_cut_to_their_greatest_length(self):
        objective = Scripted()
        objective.losses = lambda batch: iter([(1000 * objective.model.weight.sum(), {})])
        result, _ = scripted(objective, [0.0], epochs=1, max_grad_norm=0.5)
        assert result.curves[0]["gradient_norm"] == 1000
        assert objective.model.weight.grad.item() == pytest.approx(0.5, rel=1e-4)

    def test_frozen_weights_stay(self):
        model = tiger(CODES, SIZES)
        model.encoder.requires_grad_(False)
        before, samples = weights(model), toy()
        schedule = Schedule(epochs=1, learning_rate=0.01, batch_size=24, weight_decay=0.1, ema=0.9)
        evaluate = accuracy(model, samples)
        context = StageContext(evaluate, "recall@1", show_progress=False)
        train_stage(model, Direct(model, 0.0), schedule, samples, context)
        for name, value in model.state_dict().items():
            fixed = name.startswith("encoder") or name in ("tokens.table", "tokens.offsets")
            assert torch.equal(value, before[name]) == fixed, name

    def test_a_loss_that_is_no_number_stops(self):
        with pytest.raises(TrainingDiverged, match=r"toy became NaN in epoch 1: lower its learning rate, now 0.1"):
            scripted(Scripted(offsets=(0.0, float("nan"))), [0.0])

    def test_everything_is_logged(self, caplog):
        recorded = []
        with caplog.at_level(logging.INFO):
            result, _ = scripted(Scripted(), [0.1, 0.2], epochs=2, record=lambda *epoch: recorded.append(epoch))
        assert recorded == [(0, result.curves[0]), (1, result.curves[1])]
        assert [curve["valid"] for curve in result.curves] == [0.1, 0.2]
        assert "toy epoch 1" in caplog.text and "valid ndcg 0.2000 (best 0.2000)" in caplog.text


class TestEarlyStopping:
    @pytest.mark.parametrize("ema", [0.0, 0.5])
    def test_the_best_weights_are_left(self, ema):
        objective = Scripted()
        # patience 1: best at epoch 1, one more is borne, the second one after ends the stage
        result, seen = scripted(objective, [0.1, 0.3, 0.2, 0.3, 0.9], ema=ema)
        assert (result.epoch, result.epochs, len(seen)) == (1, 4, 4)
        assert result.valid == {"ndcg": 0.3, "calls": 2.0}
        assert same(weights(objective.model), seen[1])
        assert not same(seen[1], seen[3])

    def test_a_metric_that_is_better_when_smaller_keeps_its_smallest(self):
        objective = Scripted()
        result, seen = scripted(objective, [0.9, 0.3, 0.5, 0.4], bigger=False)
        assert (result.epoch, result.epochs, result.valid["ndcg"]) == (1, 4, 0.3)
        assert same(weights(objective.model), seen[1])

    def test_averaged_weights_are_what_is_validated(self):
        plain, averaged = Scripted(), Scripted()
        _, trained = scripted(plain, [0.0], epochs=1)
        _, seen = scripted(averaged, [0.0], epochs=1, ema=0.9)
        # two steps of AdamW, .1 and .05: w = -.1, -.15; average 2/11 * 0 + 9/11 * -.1, then 3/12 of it + 9/12 * -.15
        assert trained[0]["weight"].item() == pytest.approx(-0.15, rel=1e-4)
        assert seen[0]["weight"].item() == pytest.approx(0.25 * -0.1 * 9 / 11 + 0.75 * -0.15, rel=1e-4)

    def test_the_model_as_it_enters_may_stay_the_best(self):
        objective = Scripted()
        result, seen = scripted(objective, [0.5, 0.1, 0.2], evaluate_first=True)
        assert (result.epoch, result.epochs, result.valid["ndcg"]) == (-1, 2, 0.5)
        assert objective.model.weight.item() == 0
        assert seen[1]["weight"].item() != 0

    def test_validates_every_few_epochs_and_after_the_last(self):
        called = []
        note = lambda epoch, value: called.append((epoch, value))  # noqa: E731
        result, _ = scripted(Scripted(), [0.1, 0.2, 0.3], epochs=5, eval_step=2, on_epoch=note)
        assert called == [(1, 0.1), (3, 0.2), (4, 0.3)]
        assert ["valid" in curve for curve in result.curves] == [False, True, False, True, True]

    def test_no_epoch_starts_after_the_time_is_up(self):
        result, _ = scripted(Scripted(), [0.1], max_seconds=1e-9)
        assert result.epochs == 1

    def test_time_that_is_up_between_two_validations_leaves_nothing_unseen(self):
        result, _ = scripted(Scripted(), [0.1], max_seconds=1e-9, epochs=9, eval_step=3)
        assert (result.epochs, result.epoch) == (3, 2)


class Killed(Direct):
    """Ends the process, as it were, before a batch."""

    def __init__(self, model, batches):
        super().__init__(model, 0.1)
        self.left = batches

    def losses(self, batch):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().losses(batch)


class TestResume:
    samples = toy()
    schedule = Schedule(
        epochs=5, learning_rate=0.01, batch_size=24, warmup_steps=8, weight_decay=0.1, ema=0.9,
        samples_per_epoch=120, seed=3,
    )  # fmt: skip  # 5 batches an epoch

    def run(self, model, objective, resume_file, seconds=600.0):
        evaluate = accuracy(model, self.samples)
        progress = resume_file and Progress(resume_file, seconds=seconds)
        context = StageContext(evaluate, "recall@1", progress=progress, show_progress=False)
        return train_stage(model, objective, self.schedule, self.samples, context, evaluate_first=True)

    @pytest.mark.parametrize("batches", [7, 23])
    @pytest.mark.parametrize("dropout", [0.0, 0.2])
    @pytest.mark.parametrize("seconds", [0.0, 600.0])
    def test_ends_as_if_it_had_not_been_killed(self, tmp_path, batches, dropout, seconds):
        model = tiger(CODES, SIZES, dropout=dropout)
        torch.manual_seed(0)
        whole = self.run(model, Direct(model, 0.1), None)

        killed = tiger(CODES, SIZES, dropout=dropout)
        torch.manual_seed(0)
        with pytest.raises(KeyboardInterrupt):
            self.run(killed, Killed(killed, batches), tmp_path / "state.pth", seconds)

        torch.manual_seed(77)
        again = tiger(CODES, SIZES, dropout=dropout, seed=9)
        rest = Killed(again, 1000)
        result = self.run(again, rest, tmp_path / "state.pth", seconds)
        # 25 batches in all, of which the finished epochs, or all finished batches, are not repeated
        assert 1000 - rest.left == 25 - (batches if seconds == 0 else batches // 5 * 5)
        assert same(weights(again), weights(model))
        assert (result.valid, result.epoch, result.epochs) == (whole.valid, whole.epoch, whole.epochs)
        assert result.curves == whole.curves

    def test_a_finished_stage_is_not_trained_again(self, tmp_path):
        model = tiger(CODES, SIZES)
        result = self.run(model, Direct(model, 0.1), tmp_path / "state.pth")
        again = tiger(CODES, SIZES, seed=9)
        assert self.run(again, Killed(again, 0), tmp_path / "state.pth") == result
        assert same(weights(again), weights(model))

    def test_early_stopping_goes_on_counting(self, tmp_path):
        def kill(epoch, _):
            if epoch == 1:
                raise KeyboardInterrupt

        file = tmp_path / "state.pth"
        with pytest.raises(KeyboardInterrupt):
            scripted(Scripted(), [0.3, 0.2], progress=Progress(file), on_epoch=kill)
        objective = Scripted()
        # epoch 1 was the first without a new best; with patience 1, epoch 2 is the last
        result, seen = scripted(objective, [0.1], progress=Progress(file))
        assert (result.epoch, result.epochs, len(seen)) == (0, 3, 1)
        assert result.valid == {"ndcg": 0.3, "calls": 1.0}
