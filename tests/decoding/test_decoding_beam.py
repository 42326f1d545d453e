import pytest
import torch
from helpers import catalogue, next_log_probs, random_histories, sequence_log_prob, streamrec, tiger
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_stream.decoding import beam, rank
from recbole_stream.decoding.beam import beam_search, score_items, score_shared_items
from recbole_stream.decoding.rank import item_log_probs, rank_items
from recbole_stream.decoding.trie import Trie

SIZES = (6, 4, 5)
CODES = catalogue(40, SIZES)
HISTORIES = random_histories(40, (7, 1, 4))
INF = float("inf")


def plain_item_scores(model, history, read=()):
    """log P(item | read, history) of items 1 .. n, one after the other."""
    table = model.tokens.table[1:]
    return torch.stack([sequence_log_prob(model, history, read, row) for row in table])


def plain_beam_search(model, history, read, beams):
    """[(item, log-probability)], best first, by a beam search over a dictionary of prefixes."""
    identifiers = {tuple(row): item for item, row in enumerate(model.tokens.table.tolist()) if item}
    kept = {(): 0.0}
    for depth in range(model.tokens.levels):
        grown = {}
        for prefix, score in kept.items():
            log_probs = next_log_probs(model, history, [*read, *prefix])
            for token in {identifier[depth] for identifier in identifiers if identifier[:depth] == prefix}:
                grown[*prefix, token] = score + float(log_probs[token])
        kept = dict(sorted(grown.items(), key=lambda pair: -pair[1])[:beams])
    return [(identifiers[prefix], score) for prefix, score in kept.items()]


@st.composite
def searches(draw):
    """A random catalogue, model and batch of histories."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4).filter(lambda s: torch.tensor(s).prod() > 1))
    n_items = draw(st.integers(1, min(30, int(torch.tensor(sizes).prod()))))
    seed = draw(st.integers(0, 1000))
    codes = catalogue(n_items, sizes, seed)
    model = tiger(codes, sizes, draw(st.sampled_from(["tokens", "item"])), seed=seed)
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    return model, Trie(codes), random_histories(n_items, lengths, seed)


class TestBeamSearch:
    @given(searches(), st.integers(0, 20))
    @settings(deadline=None, max_examples=15)
    @torch.no_grad()
    def test_enough_beams_rank_the_whole_catalogue(self, search, more):
        model, trie, histories = search
        n_items = model.tokens.n_items - 1
        items, scores = beam_search(model.begin(histories), trie, n_items + more)
        assert items.shape == scores.shape == (len(histories), n_items)
        for row, history in enumerate(histories):
            plain = plain_item_scores(model, history)
            assert sorted(items[row].tolist()) == list(range(1, n_items + 1))
            assert torch.allclose(scores[row], plain[items[row] - 1], atol=1e-4)
            assert torch.allclose(scores[row], plain.sort(descending=True).values, atol=1e-4)
            assert (scores[row].diff() <= 0).all()

    @given(searches(), st.integers(1, 8))
    @settings(deadline=None, max_examples=25)
    @torch.no_grad()
    def test_few_beams_equal_a_plain_search(self, search, beams):
        model, trie, histories = search
        items, scores = beam_search(model.begin(histories), trie, beams)
        assert items.shape[1] == min(beams, model.tokens.n_items - 1)
        for row, history in enumerate(histories):
            plain = plain_beam_search(model, history, [], beams)
            assert items[row].tolist() == [item for item, _ in plain]
            assert torch.allclose(scores[row], torch.tensor([score for _, score in plain]), atol=1e-4)

    @torch.no_grad()
    def test_the_scores_are_exact(self):
        model = tiger(CODES, SIZES)
        items, scores = beam_search(model.begin(HISTORIES), Trie(CODES), 10)
        assert items.shape == (3, 10)
        assert all(len(set(row)) == 10 and 0 not in row for row in items.tolist())
        assert torch.allclose(score_items(model.begin(HISTORIES), items), scores, atol=1e-5)

    @torch.no_grad()
    def test_a_row_does_not_depend_on_its_batch(self):
        model, trie = tiger(CODES, SIZES), Trie(CODES)
        items, scores = beam_search(model.begin(HISTORIES), trie, 6)
        for row, length in enumerate((7, 1, 4)):
            alone, alone_scores = beam_search(model.begin(HISTORIES[row : row + 1, :length]), trie, 6)
            assert torch.equal(alone[0], items[row])
            assert torch.allclose(alone_scores[0], scores[row], atol=1e-5)


class TestScoreItems:
    @torch.no_grad()
    def test_equals_reading_from_scratch(self):
        model = tiger(CODES, SIZES, "item")
        items = torch.tensor([[3, 40, 3], [1, 2, 17], [39, 5, 6]])
        scores = score_items(model.begin(HISTORIES), items)
        assert scores.dtype == torch.float32
        for row in range(3):
            assert torch.allclose(scores[row], plain_item_scores(model, HISTORIES[row])[items[row] - 1], atol=1e-5)

    def test_passes_the_gradient_of_teacher_forcing(self):
        model, targets = tiger(CODES, SIZES), torch.tensor([4, 9, 33])

        def gradient(log_probs):
            model.zero_grad()
            log_probs.sum().backward()
            return torch.cat([p.grad.flatten() for p in model.parameters()])

        ours = gradient(score_items(model.begin(HISTORIES), targets[:, None]))
        logits = model.item_logits(HISTORIES, targets).log_softmax(-1)
        plain = gradient(logits.gather(-1, model.tokens.table[targets][..., None]))
        assert plain.abs().max() > 0.1
        assert torch.allclose(ours, plain, atol=1e-4)


class TestAfterReasoning:
    """rank_items and item_log_probs write the reasoning first where the model reasons."""

    @torch.no_grad()
    def test_streamrec(self):
        model = streamrec(CODES, SIZES)
        model.steps.fill_(3)
        items, scores = rank_items(model, HISTORIES, Trie(CODES), 5)
        every = item_log_probs(model, HISTORIES, torch.arange(1, 41).expand(3, -1))
        for row in range(3):
            read = []
            for _ in range(3):
                read.append(int(next_log_probs(model, HISTORIES[row], read).argmax()))
            plain = plain_beam_search(model, HISTORIES[row], read, 5)
            assert items[row].tolist() == [item for item, _ in plain]
            assert torch.allclose(scores[row], torch.tensor([score for _, score in plain]), atol=1e-4)
            assert torch.allclose(every[row], plain_item_scores(model, HISTORIES[row], read), atol=1e-4)

    @torch.no_grad()
    def test_tiger(self):
        model = tiger(CODES, SIZES)
        items, scores = rank_items(model, HISTORIES, Trie(CODES), 5)
        plain = plain_beam_search(model, HISTORIES[1], [], 5)
        assert items[1].tolist() == [item for item, _ in plain]
        assert torch.allclose(item_log_probs(model, HISTORIES, items), scores, atol=1e-5)


@torch.no_grad()
def test_many_histories_are_ranked_in_parts(monkeypatch):
    model, trie = tiger(CODES, SIZES), Trie(CODES)
    items, scores = rank_items(model, HISTORIES, trie, 6)
    monkeypatch.setattr(rank, "_PREFIXES", 13)  # 13 // 6: two histories, then one, whose padding is cut off
    again, again_scores = rank_items(model, HISTORIES, trie, 6)
    assert torch.equal(again, items) and torch.allclose(again_scores, scores, atol=1e-5)


@torch.no_grad()
def test_more_items_than_beams_widen_the_search():
    model, trie = tiger(CODES, SIZES), Trie(CODES)
    items, scores = rank_items(model, HISTORIES, trie, 2, 9)
    wide, wide_scores = rank_items(model, HISTORIES, trie, 9, 9)
    assert items.shape[1] == 9 and torch.equal(items, wide) and torch.equal(scores, wide_scores)


class TestFewItemsWanted:
    @given(searches(), st.integers(1, 12), st.integers(1, 12))
    @settings(deadline=None, max_examples=40)
    @torch.no_grad()
    def test_are_the_first_of_the_whole_search(self, search, beams, top):
        model, trie, histories = search
        items, scores = beam_search(model.begin(histories), trie, beams)
        few, few_scores = beam_search(model.begin(histories), trie, beams, top)
        assert torch.equal(few, items[:, :top])
        assert torch.allclose(few_scores, scores[:, :top], atol=1e-5)

    @torch.no_grad()
    def test_skips_prefixes_that_cannot_win(self):
        # all prefixes of 2 tokens are kept, and the best of 3 items are sought: few of them are read
        model, trie = tiger(CODES, SIZES, temperature=0.1), Trie(CODES)
        reads = []

        class Counting(type(model.begin(HISTORIES))):
            def read(self, tokens):
                reads.append(tokens.numel())
                return super().read(tokens)

        prefix = model.begin(HISTORIES)
        for top in (24, 3):
            beam_search(Counting(**vars(prefix)), trie, 24, top)
        whole, few = sum(reads[:2]), sum(reads[2:])
        assert few < whole


class TestScoreSharedItems:
    @given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 9), st.sampled_from([1, 3, 1000]))
    @settings(deadline=None, max_examples=25)
    @torch.no_grad()
    def test_equals_every_item_on_its_own(self, seed, groups, wanted, rows):
        codes = catalogue(50, (3, 3, 2, 4), seed)  # of 72 IDs: long common prefixes
        model = streamrec(codes, (3, 3, 2, 4), seed=seed)
        histories = random_histories(50, (4, 1, 3), seed)
        generator = torch.Generator().manual_seed(seed)
        items = torch.randint(1, 51, (3, wanted), generator=generator)
        prefix = model.begin(histories).shared().select(torch.zeros(3, groups, dtype=torch.long))
        prefix = prefix.read(torch.randint(0, 12, (3, groups, 2), generator=generator))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(beam, "_SHARED_ROWS", rows)
            shared = score_shared_items(prefix, items)
        plain = score_items(prefix.flatten(), items.repeat_interleave(groups, 0)).unflatten(0, (3, groups))
        assert shared.shape == (3, groups, wanted)
        assert torch.allclose(shared, plain, atol=1e-4)

    @torch.no_grad()
    def test_reads_a_common_prefix_once(self):
        # items 1 to 4 of (0, 0, 0) .. (0, 1, 1): first tokens 1, pairs 2; for two sequences 6 tokens instead of 16
        codes = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(2))
        model = streamrec(codes, (2, 2, 2))
        seen = []
        handle = model.decoder.stack.register_forward_hook(lambda *call: seen.append(call[2][0].shape[:3].numel()))
        prefix = model.begin(torch.tensor([[3, 4]])).shared().select(torch.zeros(1, 2, dtype=torch.long))
        seen.clear()
        score_shared_items(prefix.read(torch.zeros(1, 2, 1, dtype=torch.long)), torch.tensor([[1, 2, 3, 4]]))
        handle.remove()
        assert sum(seen[1:]) == 6
