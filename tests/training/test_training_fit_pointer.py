"""The pointer learns from prefixes whose sequence its memory does not know."""

import torch

from recbole_stream.data.samples import Samples
from recbole_stream.model.deliberation import Deliberation
from recbole_stream.model.lookup import Transitions
from recbole_stream.model.matching import Matcher
from recbole_stream.model.pointer import Pairs, Pointer
from recbole_stream.seeds import mix
from recbole_stream.training import fit_pointer as module
from recbole_stream.training.fit_pointer import Memory, fit_pointer, unknown_parts
from tests.helpers import backbone, catalogue, pad, streamrec

ITEMS = 40


def prefixes(sequences):
    pairs = [(sequence[:end], sequence[end]) for sequence in sequences for end in range(1, len(sequence))]
    histories = pad([history for history, _ in pairs])
    return Samples(histories, (histories > 0).sum(1), torch.tensor([item for _, item in pairs]))


def remember(samples):
    def counted(window=3, backward=0.5):
        return Transitions(samples.histories, samples.lengths, samples.targets, ITEMS + 1, window, 0.9, backward, 0.9)

    transitions = counted()
    pairs = Pairs.counted(transitions, counted)
    return Memory(transitions, pairs, torch.bincount(samples.targets, minlength=ITEMS + 1))


def walks(count, seed):
    """Sequences in which an item's successor is one of two, while all within a group of ten come together often."""
    generator, sequences = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        group = int(torch.randint(4, (1,), generator=generator)) * 10
        place = int(torch.randint(10, (1,), generator=generator))
        steps = 1 + torch.randint(2, (4,), generator=generator)
        sequences.append([1 + group + int(place + steps[:end].sum()) % 10 for end in range(5)])
    return sequences


def deliberation(samples):
    torch.manual_seed(0)
    memory, model = remember(samples), streamrec(catalogue(ITEMS, (4, 4, 4)), (4, 4, 4))
    matcher = Matcher(backbone(), model.tokens.table, model.tokens.vocabulary, None)
    return Deliberation(matcher, memory.transitions, None, pointer=Pointer(8, memory.pairs, memory.popularity)).eval()


def test_parts_hold_whole_sequences_and_each_prefix_once():
    samples = prefixes(walks(30, 0))
    parts = list(unknown_parts(samples, 3))
    assert len(parts) == 10
    assert sorted(torch.cat([rows for _, rows in parts]).tolist()) == list(range(len(samples)))
    for known, rows in parts:
        assert sorted([*known.tolist(), *rows.tolist()]) == list(range(len(samples)))
        assert not set((known // 4).tolist()) & set((rows // 4).tolist())  # each sequence has four prefixes


def test_a_large_log_is_read_until_there_are_enough_prefixes(monkeypatch):
    monkeypatch.setattr(module, "_PREFIXES", 20)
    samples = prefixes(walks(40, 0))
    parts = list(unknown_parts(samples, 3))
    assert [len(rows) for _, rows in parts] == [16, 4]


def test_what_no_other_sequence_knows_is_no_lesson():
    # each sequence has items of its own, of which the memory of the others knows nothing
    samples, asked = prefixes([[4 * n + 1, 4 * n + 2, 4 * n + 3, 4 * n + 4] for n in range(10)]), []

    def spy(known):
        asked.append(set(known.targets.tolist()))
        return remember(known)

    fit_pointer(deliberation(samples), samples, spy, 3, 0)
    assert len(asked) == 10
    for known, (others, rows) in zip(asked, unknown_parts(samples, mix(0, "pointer"))):
        assert len(known) == len(others) == 27 and not known & set(samples.targets[rows].tolist())


def test_it_learns_what_a_share_of_transitions_does_not_say():
    train, fresh = prefixes(walks(400, 1)), prefixes(walks(200, 2))
    slow = deliberation(train)
    before = slow.transitions.counts.clone()
    told = fit_pointer(slow, train, remember, 10, 7)
    assert "training prefixes have their item" in told and torch.equal(slow.transitions.counts, before)
    seen = slow.views_of(fresh.histories)
    items = seen.candidates(10, [0.0, 1.0, 0.0, -3.0])
    views = torch.cat([torch.zeros(*items.shape, 1), seen.of(items)], -1)
    scores, hits = slow.pointer(slow.pointed(seen, items, views)), items == fresh.targets[:, None]
    first = hits.gather(1, scores.argmax(1, keepdim=True)).float().mean()
    assert hits.any(1).float().mean() > 0.9
    assert first > hits[:, 0].float().mean() + 0.05  # the candidates come in the order of the transitions
    again = deliberation(train)
    fit_pointer(again, train, remember, 10, 7)
    for one, other in zip(slow.pointer.parameters(), again.pointer.parameters()):
        assert torch.equal(one, other)


def test_nothing_is_learnt_where_no_item_is_a_candidate():
    samples = prefixes([[1, 2]])
    slow = deliberation(samples)
    assert "learnt nothing" in fit_pointer(slow, samples, remember, 1, 0)
    assert not any(parameter.any() for parameter in slow.pointer.parameters())
