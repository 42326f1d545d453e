import math

import pytest
import torch
import torch.nn.functional as F
from helpers import catalogue, make_samples, random_histories, sequence_log_prob, streamrec

from recbole_stream.decoding.rank import item_log_probs
from recbole_stream.training.checkpoint import Progress
from recbole_stream.training.finetune import Finetune, FinetuneOptions, trace_statistics
from recbole_stream.training.loop import StageContext, train_stage
from recbole_stream.training.losses import dpo_loss, quantisation_loss, state_contrast
from recbole_stream.training.schedule import Schedule

SIZES = (6, 4, 5)
CODES = catalogue(40, SIZES)
SAMPLES = make_samples(random_histories(40, (5, 1, 3, 4, 2, 5)), torch.tensor([3, 40, 17, 3, 8, 21]))
BATCH = SAMPLES.batch(torch.tensor([4, 0, 3, 1]))
SIMILAR = torch.randint(1, 41, (41, 1), generator=torch.Generator().manual_seed(5))  # a single candidate for y-
STEPS = 3
OPTIONS = {
    "steps": STEPS, "round_epochs": 2, "rounds": 2, "dpo_weight": 0.7, "quant_weight": 0.3, "state_weight": 0.2,
    "dpo_beta": 0.4, "quant_beta": 0.25, "state_similarity": "cosine", "state_temperature": 0.1, "straight_through": False,
    "label_smoothing": 0.0,
}  # fmt: skip


def make(dropout=0.0, precision="float32", seed=0, samples=SAMPLES, **changes):
    model = streamrec(CODES, SIZES, dropout=dropout, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.reasoning.parameters():  # away from the identity
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        model.tokens.embedding.weight *= 2
    objective = Finetune(model, samples, SIMILAR, FinetuneOptions(**OPTIONS | changes), 2, precision, False)
    return model, objective


def plain_losses(model, traces, straight_through=False):
    """The four losses of BATCH, sample by sample, each from full forward passes of its own."""
    table, head, embed = model.tokens.table, model.reasoning, model.tokens.embedding
    sft, policy, fixed, residuals, states = [], [], [], [], []
    for history, target, trace in zip(BATCH.histories, BATCH.targets, traces):
        history = history[history > 0][None]

        def read(thinking, item):
            inputs = torch.cat([thinking, embed(item[:-1])])[None, None]
            return model.decoder(inputs, model.memory(history))[0, 0]  # [l + m, H]

        def reason(hidden):
            """s_0 .. s_l and r_1 .. r_l of the paper's section 2.3."""
            s = [hidden[0]] + [head.mlp_s(hidden[: i + 1].sum(0)) for i in range(1, STEPS + 1)]
            return torch.stack(s), torch.stack([head.mlp_r(embed(table[target]).mean(0) - s[i]) for i in range(STEPS)])

        y = torch.cat([trace, table[target]])  # Eq. 13
        thinking = embed(trace)
        s, r = reason(read(thinking, table[target]))
        if straight_through:
            thinking = thinking.detach() + (r - r.detach())
            s, _ = reason(read(thinking, table[target]))
        log_probs = model.tokens.logits(read(thinking, table[target])).log_softmax(-1)
        sft.append(F.nll_loss(log_probs, y))  # Eq. 10
        items = (table[target], table[SIMILAR[target, 0]])
        policy += [-F.cross_entropy(model.tokens.logits(read(thinking, i))[STEPS:], i, reduction="sum") for i in items]
        fixed += [sequence_log_prob(model.reference, history[0], [], item).detach() for item in items]
        residuals.append(r)
        states.append(s[1:])
    policy, fixed = torch.stack(policy).view(-1, 2), torch.stack(fixed).view(-1, 2)
    t = embed(table[BATCH.targets]).mean(1)
    return {
        "sft": torch.stack(sft).mean(),
        "dpo": dpo_loss(policy[:, 0], policy[:, 1], fixed[:, 0], fixed[:, 1], OPTIONS["dpo_beta"]),
        "quant": quantisation_loss(torch.stack(residuals), embed(traces), OPTIONS["quant_beta"]),
        "state": state_contrast(torch.stack(states), t, BATCH.targets, OPTIONS["state_temperature"]),
    }


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class TestLosses:
    @pytest.mark.parametrize("straight_through", [False, True])
    def test_equal_separate_full_forward_passes(self, straight_through):
        model, objective = make(straight_through=straight_through)
        objective.prepare(0)
        ((loss, scalars),) = objective.losses(BATCH)
        plain = plain_losses(model, objective.traces[BATCH.rows], straight_through)
        for name, value in plain.items():
            assert value.item() > 0.01
            assert scalars[name].item() == pytest.approx(value.item(), rel=1e-4), name
        total = plain["sft"] + 0.7 * plain["dpo"] + 0.3 * plain["quant"] + 0.2 * plain["state"]  # Eq. 19
        assert loss.item() == pytest.approx(total.item(), rel=1e-4)

        ours, theirs = gradients(model, loss), gradients(model, total)
        assert {name.split(".")[0] for name in theirs} == {"tokens", "encoder", "decoder", "reasoning"}
        assert set(ours) == set(theirs)
        for name, gradient in theirs.items():
            assert torch.allclose(ours[name], gradient, atol=1e-4, rtol=1e-3), name

    def test_the_similarity_of_states_is_the_one_asked_for(self):
        values = {}
        for similarity in ("cosine", "dot"):
            _, objective = make(state_similarity=similarity)
            objective.prepare(0)
            reading = objective._read(BATCH)
            t = objective.model.tokens.representation(BATCH.targets)
            plain = state_contrast(reading.states[:, 1:], t, BATCH.targets, 0.1, similarity=similarity)
            values[similarity] = next(objective.losses(BATCH))[1]["state"].item()
            assert values[similarity] == pytest.approx(plain.item(), rel=1e-4)
        assert values["dot"] != pytest.approx(values["cosine"], rel=0.01)

    def test_a_weight_of_0_leaves_its_loss_out(self):
        model, objective = make(dpo_weight=0.0, quant_weight=0.0, state_weight=0.0)
        objective.prepare(0)
        ((loss, scalars),) = objective.losses(BATCH)
        assert not {"dpo", "quant", "state"} & set(scalars)
        plain = plain_losses(model, objective.traces[BATCH.rows])
        assert loss.item() == pytest.approx(plain["sft"].item(), rel=1e-5)

    def test_straight_through_changes_gradients_and_not_the_loss(self):
        results = {}
        for through in (False, True):
            model, objective = make(straight_through=through)
            objective.prepare(0)
            ((loss, scalars),) = objective.losses(BATCH)
            results[through] = {name: value.item() for name, value in scalars.items()}, gradients(model, loss)
        (values, plain), (same, through) = results[False], results[True]
        assert values == pytest.approx(same, rel=1e-4)
        for name in ("reasoning.mlp_r.inner.weight", "reasoning.mlp_r.outer.weight"):
            assert not torch.allclose(plain[name], through[name], rtol=0.05, atol=1e-4)

    def test_only_straight_through_lets_other_losses_reach_the_residual(self):
        for through in (False, True):
            model, objective = make(straight_through=through, quant_weight=0.0)
            objective.prepare(0)
            reached = gradients(model, next(objective.losses(BATCH))[0]).get("reasoning.mlp_r.outer.weight")
            assert (reached is not None and reached.abs().max() > 1e-4) == through

    def test_accuracy_is_that_of_each_token_of_y(self):
        model, objective = make()
        objective.prepare(0)
        ((_, scalars),) = objective.losses(BATCH)
        traces = objective.traces[BATCH.rows]
        y = torch.cat([traces, model.tokens.table[BATCH.targets]], 1)
        hidden = model.decoder(model.tokens.embedding(y[:, None, :-1]), model.memory(BATCH.histories))[:, 0]
        right = (model.tokens.logits(hidden).argmax(-1) == y).float()
        for step in range(STEPS):
            assert scalars[f"accuracy_{step + 1}"].item() == right[:, step].mean().item()
        assert scalars["accuracy_item"].item() == pytest.approx(right[:, STEPS:].mean().item())

    def test_the_negative_is_drawn_from_the_similar_items(self):
        model, objective = make()
        objective.prepare(0)
        batch = SAMPLES.batch(torch.tensor([0]))

        def dpo(similar):
            objective.similar = torch.tensor([similar]).expand(41, -1)
            return round(next(objective.losses(batch))[1]["dpo"].item(), 4)

        # 40 draws of two: both appear but for a chance of 2^-39
        assert {dpo([5, 9]) for _ in range(40)} == {dpo([5]), dpo([9])}


class TestCollection:
    def test_happens_at_the_start_of_each_round(self):
        model, objective = make()
        collected = []
        for epoch in range(6):
            scalars = objective.prepare(epoch)
            with torch.no_grad():  # another model each epoch, whose traces differ
                model.tokens.embedding.weight += 0.5 * torch.randn(model.tokens.embedding.weight.shape)
            collected.append((bool(scalars), objective.traces.clone()))
        # rounds of 2 epochs, 2 of them: epochs 0 and 2
        assert [new for new, _ in collected] == [True, False, True, False, False, False]
        changed = [not torch.equal(one, other) for (_, one), (_, other) in zip(collected, collected[1:])]
        assert changed == [False, True, False, False, False]

    def test_traces_are_those_of_the_model_in_evaluation_mode_row_by_row(self):
        model, objective = make(dropout=0.3)
        model.train()
        scalars = objective.prepare(0)
        traces, own = model.eval().collect(SAMPLES.histories, SAMPLES.targets, STEPS)
        assert torch.equal(objective.traces, traces)
        assert scalars["leak"] == pytest.approx(own.float().mean().item())
        assert model.steps == STEPS

    def test_statistics_by_hand(self):
        traces = torch.tensor([[0, 2], [0, 1], [3, 2], [3, 2]])
        scalars = {name: value.item() for name, value in trace_statistics(traces, 4).items()}
        # step 1: tokens 0 and 3, half each: ln 2; step 2: 3/4 and 1/4: ln 4 - 3/4 ln 3
        assert scalars == pytest.approx({
            "distinct_1": 2, "entropy_1": math.log(2), "distinct_2": 2, "entropy_2": math.log(4) - 0.75 * math.log(3),
            "distinct_traces": 3,
        })  # fmt: skip


class TestStage:
    samples = make_samples(random_histories(40, [1 + row % 4 for row in range(60)]), torch.arange(60) % 40 + 1)

    def run(self, model, objective, resume_file=None, precision="float32"):
        def evaluate():
            scores = item_log_probs(model.eval(), self.samples.histories, self.samples.targets[:, None])
            return {"likelihood": scores.mean().item()}

        schedule = Schedule(epochs=6, learning_rate=0.01, batch_size=20, weight_decay=0.1, ema=0.5)
        progress = resume_file and Progress(resume_file)
        context = StageContext(evaluate, "likelihood", precision=precision, progress=progress, show_progress=False)
        return train_stage(model, objective, schedule, self.samples, context)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_learns_and_leaves_the_reference_alone(self, precision):
        model, objective = make(dropout=0.1, samples=self.samples, precision=precision, rounds=1)
        torch.manual_seed(0)
        reference = {name: value.clone() for name, value in model.reference.state_dict().items()}
        result = self.run(model, objective, precision=precision)
        assert result.curves[-1]["sft"] < 0.9 * result.curves[0]["sft"]
        assert all(torch.equal(value, reference[name]) for name, value in model.reference.state_dict().items())
        assert {"distinct_1", "leak"} <= set(result.curves[0]) and "leak" not in result.curves[1]

    @pytest.mark.parametrize("batches", [4, 11])
    def test_ends_as_if_it_had_not_been_killed(self, tmp_path, batches):
        # 3 batches an epoch, collections before epochs 0 and 2: killed in epoch 1 and in epoch 3, within a round
        model, objective = make(dropout=0.2, samples=self.samples)
        torch.manual_seed(0)
        whole = self.run(model, objective)

        killed, objective = make(dropout=0.2, samples=self.samples)
        losses, left = objective.losses, iter(range(batches))

        def until_killed(batch):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return losses(batch)

        objective.losses = until_killed
        torch.manual_seed(0)
        with pytest.raises(KeyboardInterrupt):
            self.run(killed, objective, tmp_path / "state.pth")

        torch.manual_seed(77)
        again, objective = make(dropout=0.2, samples=self.samples, seed=4)
        result = self.run(again, objective, tmp_path / "state.pth")
        assert (result.valid, result.curves) == (whole.valid, whole.curves)
        weights = model.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
