import pytest
import torch
import torch.nn.functional as F
from helpers import copy_t5
from transformers import T5Config, T5ForConditionalGeneration

from recbole_stream.model.backbone import (
    BackboneConfig,
    Cache,
    Decoder,
    Dropout,
    Encoder,
    attention,
    relative_buckets,
)
from recbole_stream.model.tokens import padding_bias

HIDDEN, VOCABULARY = 32, 61
CONFIG = BackboneConfig(HIDDEN, 48, 4, 8, encoder_layers=3, decoder_layers=2, dropout=0.0)


@pytest.fixture(scope="module")
def t5():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=HIDDEN, d_kv=8, d_ff=48, num_layers=3, num_decoder_layers=2, num_heads=4,
        dropout_rate=0.0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # norms and biases away from their initial ones and zeros
        parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def stacks(t5):
    encoder, decoder = Encoder(CONFIG).eval(), Decoder(CONFIG).eval()
    copy_t5(t5, encoder, decoder)
    return encoder.requires_grad_(False), decoder.requires_grad_(False)


@pytest.fixture(scope="module")
def batch():
    """Five histories of 80, 30, 80, 4 and 1 tokens: beyond 64 the logarithmic buckets are full."""
    torch.manual_seed(1)
    ids = torch.randint(1, VOCABULARY, (5, 80))
    for row, length in enumerate((80, 30, 80, 4, 1)):
        ids[row, length:] = 0
    return ids, torch.randint(1, VOCABULARY, (5, 7))


def close(ours, theirs, atol=2e-5):
    return torch.allclose(ours, theirs, atol=atol, rtol=1e-5)


class TestAgainstT5:
    def test_encoder_states_hidden_states_and_logits(self, t5, stacks, batch):
        encoder, decoder = stacks
        ids, read = batch
        theirs = t5(input_ids=ids, attention_mask=(ids > 0).float(), decoder_input_ids=read, output_hidden_states=True)
        padding = padding_bias(ids)
        states = encoder(t5.shared(ids), padding)
        assert close(states[ids > 0], theirs.encoder_last_hidden_state[ids > 0])
        hidden, _ = decoder(t5.shared(read)[:, None], decoder.memory(states, padding))
        assert close(hidden[:, 0], theirs.decoder_hidden_states[-1])
        # tied embeddings: T5 divides the hidden states by the root of their size
        assert close(hidden[:, 0] * HIDDEN**-0.5 @ t5.shared.weight.T, theirs.logits)

    def test_gradients(self, t5, batch):
        ids, read = batch
        encoder, decoder = Encoder(CONFIG), Decoder(CONFIG)
        copy_t5(t5, encoder, decoder)
        inputs = t5.shared(ids).requires_grad_()
        weights = torch.randn(5, 7, HIDDEN, generator=torch.Generator().manual_seed(2))

        padding = padding_bias(ids)
        hidden, _ = decoder(t5.shared(read)[:, None], decoder.memory(encoder(inputs, padding), padding))
        (ours,) = torch.autograd.grad((hidden[:, 0] * weights).sum(), inputs)

        mask = (ids > 0).float()
        out = t5(inputs_embeds=inputs, attention_mask=mask, decoder_input_ids=read, output_hidden_states=True)
        (theirs,) = torch.autograd.grad((out.decoder_hidden_states[-1] * weights).sum(), inputs)
        assert theirs.abs().max() > 0.01
        assert close(ours[ids > 0], theirs[ids > 0], atol=1e-4)
        assert (ours[ids == 0] == 0).all()

    def test_bfloat16_stays_near_float32(self, t5, stacks, batch):
        encoder, decoder = stacks
        ids, read = batch
        padding = padding_bias(ids)

        def logits():
            memory = decoder.memory(encoder(t5.shared(ids), padding), padding)
            return (decoder(t5.shared(read)[:, None], memory)[0] * HIDDEN**-0.5 @ t5.shared.weight.T).float()

        exact = logits()
        with torch.autocast("cpu", torch.bfloat16):
            mixed = logits()
        # bfloat16 keeps 8 bits, 0.4 percent a rounding; some ten roundings follow each other
        assert 0 < (mixed - exact).abs().max() < 0.05 * exact.std()


class TestIncrementalDecoding:
    """Whatever the way to a position, its hidden state is that of one teacher-forced pass."""

    @pytest.fixture
    def setting(self, t5, stacks, batch):
        encoder, decoder = stacks
        ids, _ = batch
        padding = padding_bias(ids)
        memory = decoder.memory(encoder(t5.shared(ids), padding), padding)
        # four sequences a history that agree in their first three tokens
        tokens = torch.randint(1, VOCABULARY, (5, 4, 9), generator=torch.Generator().manual_seed(3))
        tokens[:, :, :3] = tokens[:, :1, :3]
        x = t5.shared(tokens)
        return decoder, memory, x, decoder(x, memory)[0]

    def test_sequences_do_not_see_each_other(self, setting):
        decoder, memory, x, full = setting
        for group in range(4):
            assert close(decoder(x[:, group : group + 1], memory)[0][:, 0], full[:, group])

    def test_positions_do_not_see_what_follows(self, setting):
        decoder, memory, x, full = setting
        assert close(decoder(x[:, :, :5], memory)[0], full[:, :, :5])

    def test_token_by_token(self, setting):
        decoder, memory, x, full = setting
        cache = None
        for position in range(9):
            hidden, cache = decoder(x[:, :, position : position + 1], memory, cache)
            assert close(hidden[:, :, 0], full[:, :, position])
            assert cache.length == position + 1

    def test_a_shared_past_and_own_continuations(self, setting):
        decoder, memory, x, full = setting
        _, cache = decoder(x[:, :1, :2], memory)
        cache = cache.as_shared()
        assert (cache.length, cache.shared_length) == (2, 2)
        _, cache = decoder(x[:, :1, 2:3], memory, cache)
        cache = cache.as_shared()  # appended to what was shared before
        assert (cache.length, cache.shared_length) == (3, 3)
        first, cache = decoder(x[:, :, 3:5], memory, cache)
        assert close(first, full[:, :, 3:5])
        rest, cache = decoder(x[:, :, 5:], memory, cache)
        assert close(rest, full[:, :, 5:])
        assert (cache.length, cache.shared_length) == (9, 3)

    def test_select_goes_on_with_the_chosen_sequences(self, setting):
        decoder, memory, x, full = setting
        _, cache = decoder(x[:, :1, :3], memory)
        _, cache = decoder(x[:, :, 3:6], memory, cache.as_shared())
        parents = torch.tensor([[3, 0], [1, 1], [2, 3], [0, 0], [1, 2]])
        rows = torch.arange(5)[:, None]
        hidden, _ = decoder(x[rows, parents][:, :, 6:], memory, cache.select(parents))
        assert close(hidden, full[rows, parents][:, :, 6:])

    def test_select_of_a_wholly_shared_past_keeps_it(self, setting):
        decoder, memory, x, full = setting
        _, cache = decoder(x[:, :1, :3], memory)
        cache = cache.as_shared().select(torch.zeros(5, 4, dtype=torch.long))
        hidden, _ = decoder(x[:, :, 3:], memory, cache)
        assert close(hidden, full[:, :, 3:])

    @pytest.mark.parametrize("shared", [True, False])
    def test_flatten_and_repeat_make_histories_of_sequences(self, setting, shared):
        decoder, memory, x, full = setting
        cache = None
        if shared:
            cache = decoder(x[:, :1, :3], memory)[1].as_shared()
        _, cache = decoder(x[:, :, 3 if shared else 0 : 6], memory, cache)
        flat = cache.flatten()
        assert flat.own is None and flat.shared_length == 6
        hidden, _ = decoder(x[:, :, 6:].flatten(0, 1)[:, None], memory.repeat(4), flat)
        assert close(hidden[:, 0].unflatten(0, (5, 4)), full[:, :, 6:])

    def test_gradients_reach_a_shared_past(self, setting):
        decoder, memory, x, _ = setting

        def gradient(incremental):
            leaf = x.clone().requires_grad_()
            if incremental:
                first, cache = decoder(leaf[:, :1, :3], memory)
                last, _ = decoder(leaf[:, :, 3:], memory, cache.as_shared())
            else:
                first_four = leaf[:, :1, :3].expand(-1, 4, -1, -1)
                last = decoder(torch.cat([first_four, leaf[:, :, 3:]], 2), memory)[0][:, :, 3:]
            last.square().mul(torch.arange(6.0)[:, None]).sum().backward()
            return leaf.grad

        plain = gradient(incremental=False)
        assert plain[:, 0, :3].abs().max() > 0.1
        assert torch.allclose(gradient(incremental=True), plain, atol=1e-3, rtol=1e-4)

    def test_an_empty_cache_has_length_0(self):
        assert (Cache().length, Cache().shared_length) == (0, 0)


def test_padding_does_not_change_a_row(t5, stacks, batch):
    encoder, decoder = stacks
    ids, read = batch
    padding = padding_bias(ids)
    together, _ = decoder(t5.shared(read)[:, None], decoder.memory(encoder(t5.shared(ids), padding), padding))
    for row, length in enumerate((80, 30, 80, 4, 1)):
        alone, padding = t5.shared(ids[row : row + 1, :length]), padding_bias(ids[row : row + 1, :length])
        hidden, _ = decoder(t5.shared(read[row : row + 1])[:, None], decoder.memory(encoder(alone, padding), padding))
        assert close(hidden[0], together[row])


class TestRelativeBuckets:
    def test_both_directions(self):
        # 16 buckets a side, the first 8 exact; then 8 + 8 ln(n / 8) / ln(128 / 8), cut off, at most 15:
        # 12: 8 + 8 * .405 / 2.773 = 9.17; 20: 10.64; 50: 13.29; 100: 15.29; 1000: 21.9. Keys after the query: + 16
        distance = torch.tensor([0, -1, -7, -12, -20, -50, -100, -1000, 1, 7, 12, 1000])
        expected = [0, 1, 7, 9, 10, 13, 15, 15, 17, 23, 25, 31]
        assert relative_buckets(distance, True, 32, 128).tolist() == expected

    def test_backwards_only(self):
        # 32 buckets, 16 exact; then 16 + 16 ln(n / 16) / ln(128 / 16): 20: 17.7; 50: 24.8; 100: 30.1
        distance = torch.tensor([5, 0, -1, -15, -20, -50, -100, -1000])
        assert relative_buckets(distance, False, 32, 128).tolist() == [0, 0, 1, 15, 17, 24, 30, 31]


def test_attention_equals_torch_in_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 3, n, 8, generator=generator) for n in (5, 7, 7)] + [
        torch.randn(2, 3, 5, 7, generator=generator)
    ]
    tensors[3][0, :, :, 5:] = -torch.inf
    weights = torch.randn(2, 3, 5, 8, generator=generator)

    def run(function):
        leaves = [x.clone().requires_grad_() for x in tensors]
        out = function(*leaves)
        return out.detach(), torch.autograd.grad((out * weights).sum(), leaves)

    ours, our_gradients = run(lambda q, k, v, bias: attention(q, k, v, bias, Dropout(0.0)))
    theirs, their_gradients = run(lambda q, k, v, bias: F.scaled_dot_product_attention(q, k, v, bias, scale=1.0))
    assert torch.allclose(ours, theirs, atol=1e-6)
    for our, their in zip(our_gradients, their_gradients):
        assert their.abs().max() > 0.1
        assert torch.allclose(our, their, atol=1e-5)


def test_attention_drops_weights_and_keeps_their_mean():
    # equal weights over values of 1: the mean of many draws stays 1, single draws scatter
    q, k, v = torch.zeros(1, 20_000, 4), torch.zeros(1, 10, 4), torch.ones(1, 10, 4)
    torch.manual_seed(0)
    mixed = attention(q, k, v, torch.zeros(1, 1, 10), Dropout(0.5))[..., 0]
    # sum of 10 weights of .1, each 0 or doubled: variance 10 * .01 = .1, of the mean over 20,000 .0022^2
    assert abs(mixed.mean() - 1) < 5 * 0.0023
    assert abs(mixed.var() - 0.1) < 0.01


class TestDropout:
    @pytest.mark.parametrize("rate", [0.1, 0.5])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_drops_a_share_and_scales_the_rest(self, rate, dtype):
        torch.manual_seed(0)
        out = Dropout(rate)(torch.ones(1000, 1003, dtype=dtype))  # not a multiple of the 8 that share a draw
        # .1 is rounded to 26/256, the rest scaled by 256/230; .5 is exact
        dropped = {0.1: 26, 0.5: 128}[rate]
        kept = out != 0
        assert out.shape == (1000, 1003) and out.dtype == dtype
        rounding = {torch.float32: 1e-6, torch.bfloat16: 5e-3}[dtype]
        assert (out[kept].float() - 256 / (256 - dropped)).abs().max() < rounding
        # five deviations of a share of a million draws, 5 * .5 / 1000, are less than 1/256
        assert abs(kept.float().mean() - (1 - dropped / 256)) < 0.0025

    def test_elements_of_one_draw_are_dropped_independently(self):
        torch.manual_seed(0)
        dropped = (Dropout(0.25)(torch.ones(40_000, 8)) == 0).float()
        # share .25 at each of the 8 places, and .0625 for any two together; five deviations: .011 and .0061
        together = dropped.T @ dropped / 40_000
        assert (together.diagonal() - 0.25).abs().max() < 0.011
        assert (together - 0.0625).fill_diagonal_(0).abs().max() < 0.0061

    def test_follows_the_seed_and_rests_in_evaluation(self):
        dropout, x = Dropout(0.3), torch.randn(50, 7)
        draws = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            draws.append(dropout(x))
        assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
        assert torch.equal(dropout.eval()(x), x)

    def test_gradient_passes_where_the_value_does(self):
        x = torch.ones(200, requires_grad=True)
        out = Dropout(0.5)(x)
        out.sum().backward()
        assert torch.equal(x.grad, out.detach()) and 0 < (x.grad == 0).sum() < 200
