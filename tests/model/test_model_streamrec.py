import pytest
import torch
from helpers import catalogue, next_log_probs, random_histories, sequence_log_prob, streamrec, tiger

from recbole_stream.decoding.beam import score_items

SIZES = (6, 4, 5)
CODES = catalogue(40, SIZES)
LENGTHS = (7, 1, 4, 7, 2, 5)
HISTORIES = random_histories(40, LENGTHS)
TARGETS = torch.tensor([3, 40, 17, 3, 1, 22])


def perturb(module, scale=0.3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def plain_collect(model, history, target, steps):
    """The collection of section 2.3 for one sample, the decoder read from the start token at every step."""
    embeddings = model.tokens.embedding.weight
    history = history[history > 0][None]
    t = embeddings[model.tokens.table[target]].mean(0)
    mlp_r, mlp_s = model.reasoning.mlp_r, model.reasoning.mlp_s
    trace = []

    def last_state(read):
        inputs = embeddings[torch.tensor(read, dtype=torch.long)][None, None]
        return model.decoder(inputs, model.memory(history))[0, 0, -1]

    states = [last_state([])]  # d_0
    s = states[0]
    for _ in range(steps):
        r = mlp_r(t - s)
        trace.append(int((embeddings - r).norm(dim=-1).argmin()))
        states.append(last_state(trace))
        s = mlp_s(torch.stack(states).sum(0))
    return trace


class TestCollect:
    @pytest.mark.parametrize("history_input", ["tokens", "item"])
    @pytest.mark.parametrize("mlp", ["residual", "plain"])
    def test_equals_reading_from_scratch_at_every_step(self, history_input, mlp):
        model = streamrec(CODES, SIZES, history_input, mlp=mlp)
        perturb(model.reasoning)
        with torch.no_grad():
            model.tokens.embedding.weight.mul_(3)  # decoder states and targets of similar length
        traces, own = model.collect(HISTORIES, TARGETS, 4)
        for row in range(len(TARGETS)):
            trace = plain_collect(model, HISTORIES[row], TARGETS[row], 4)
            assert traces[row].tolist() == trace
            codes = model.tokens.table[TARGETS[row]].tolist()
            assert own[row].tolist() == [token in codes for token in trace]
        assert len(traces.unique()) > 3

    def test_passes_no_gradient(self):
        traces, _ = streamrec(CODES, SIZES).collect(HISTORIES, TARGETS, 2)
        assert traces.shape == (6, 2) and not traces.requires_grad


class TestThink:
    @torch.no_grad()
    def test_equals_plain_greedy_decoding(self):
        model = streamrec(CODES, SIZES)
        model.steps.fill_(5)
        tokens, prefix = model.think(model.begin(HISTORIES))
        assert tokens.shape == (6, 5)
        for row in range(6):
            written = []
            for _ in range(5):
                written.append(int(next_log_probs(model, HISTORIES[row], written).argmax()))
            assert tokens[row].tolist() == written
        # d_0 .. d_5 of one teacher-forced pass
        full = model.decoder(model.tokens.embedding(tokens)[:, None], model.memory(HISTORIES))
        assert torch.allclose(prefix.hidden, full, atol=1e-5)

    @torch.no_grad()
    def test_steps_can_be_set_for_a_call(self):
        model = streamrec(CODES, SIZES)
        model.steps.fill_(5)
        longer, _ = model.think(model.begin(HISTORIES), 7)
        shorter, _ = model.think(model.begin(HISTORIES), 2)
        assert longer.shape == (6, 7) and torch.equal(longer[:, :2], shorter)

    @torch.no_grad()
    def test_no_step_writes_nothing(self):
        model = streamrec(CODES, SIZES)
        prefix = model.begin(HISTORIES)
        before = prefix.log_probs()
        tokens, prefix = model.think(prefix)
        assert tokens.shape == (6, 0) and tokens.dtype == torch.long
        assert torch.equal(prefix.log_probs(), before)


def test_tiger_item_logits_are_those_of_one_token_after_another():
    model = tiger(CODES, SIZES, "item")
    log_probs = model.item_logits(HISTORIES, TARGETS).log_softmax(-1)
    for row in range(6):
        written = model.tokens.table[TARGETS[row]].tolist()
        for depth in range(3):
            alone = next_log_probs(model, HISTORIES[row], written[:depth])
            assert torch.allclose(log_probs[row, depth], alone, atol=1e-5)


def test_the_slow_decoder_starts_from_the_direct_one():
    model = streamrec(CODES, SIZES)
    before = next_log_probs(model, HISTORIES[0], [1, 2])
    model.start_from_direct()
    after = next_log_probs(model, HISTORIES[0], [1, 2])
    assert torch.equal(after, next_log_probs(model.reference, HISTORIES[0], [1, 2]))
    assert not torch.allclose(before, after)


class TestReference:
    def test_freezing_takes_over_encoder_and_vocabulary(self):
        model = streamrec(CODES, SIZES)
        model.share_reference()
        perturb(model)
        model.freeze_reference()
        direct = tiger(CODES, SIZES, seed=5)
        direct.tokens.load_state_dict(model.tokens.state_dict())
        direct.encoder.load_state_dict(model.encoder.state_dict())
        direct.decoder.load_state_dict(model.reference.decoder.state_dict())
        got = score_items(model.reference.begin(HISTORIES), TARGETS[:, None])[:, 0]
        for row in range(6):
            want = sequence_log_prob(direct, HISTORIES[row], [], model.tokens.table[TARGETS[row]])
            assert torch.allclose(got[row], want, atol=1e-5)

    @torch.no_grad()
    def test_stays_one_distribution_while_the_model_trains(self):
        model = streamrec(CODES, SIZES, dropout=0.3)
        items = TARGETS[:, None]
        before = score_items(model.reference.begin(HISTORIES), items)
        own_before = score_items(model.begin(HISTORIES), items)
        trained = [p for p in model.parameters() if p.requires_grad]
        model.train()
        with torch.enable_grad():
            optimizer = torch.optim.AdamW(trained, 0.01, weight_decay=0.1)
            for _ in range(3):
                inputs = model.tokens.embedding(model.tokens.table[items])
                model.decoder(inputs, model.memory(HISTORIES)).square().mean().backward()
                optimizer.step()
        # still in training mode: the model drops units, its reference must not
        assert torch.equal(score_items(model.reference.begin(HISTORIES), items), before)
        model.eval()
        assert not torch.allclose(score_items(model.begin(HISTORIES), items), own_before, atol=0.01)

    def test_what_trains_in_stage_1_and_afterwards(self):
        model = streamrec(CODES, SIZES)

        def trained():
            return {name.split(".")[0] for name, p in model.reference.named_parameters() if p.requires_grad}

        assert trained() == set()
        model.share_reference()
        assert trained() == {"decoder"}
        model.freeze_reference()
        assert trained() == set()

    def test_the_direct_decoder_drops_units_while_it_trains(self):
        model = streamrec(CODES, SIZES, dropout=0.5)
        model.share_reference()
        model.train()
        memory, inputs = model.memory(HISTORIES), model.tokens.embedding(model.tokens.table[TARGETS][:, None])
        assert not torch.equal(model.reference.decoder(inputs, memory), model.reference.decoder(inputs, memory))
