"""The gate by hand, SASRec at all positions, and which of both ranks."""

import torch
import torch.nn.functional as F

from recbole_stream.model.deliberation import RANKINGS, Deliberation
from recbole_stream.model.lookup import Content, Transitions
from recbole_stream.model.rivals.causal import SASRecModel
from recbole_stream.model.rivals.late_fusion import LateFusionModel, fuse
from recbole_stream.training.all_positions import AllPositions, next_items
from tests.helpers import backbone, make_samples, pad, random_histories


def fusion():
    torch.manual_seed(0)
    seen = pad([[1], [1], [2]])
    transitions = Transitions(seen, torch.tensor([1, 1, 1]), torch.tensor([2, 2, 3]), 6, 1, 1.0, 0.0, 0.7)
    content = Content(torch.randn(6, 4), 0.7)
    return LateFusionModel(Deliberation(SASRecModel(backbone(), 6), transitions, content, ("likelihood",))).eval()


def test_the_gate_weighs_the_views():
    views = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])
    assert fuse(views, torch.tensor([0.5, 2.0])).tolist() == [[4.5, -0.5]]


def test_sasrec_learns_every_position_as_it_would_learn_each_prefix():
    sasrec, histories = fusion().deliberation.matcher, random_histories(5, [4, 1])
    labels = next_items(histories, torch.tensor([5, 2]))
    together = sasrec.loss(histories, labels)
    prefixes = [(row[: place + 1], labels[number, place]) for number, row in enumerate(histories)
                for place in range(int((row > 0).sum()))]  # fmt: skip
    alone = [F.cross_entropy(sasrec(history[None]), target[None]) for history, target in prefixes]
    assert len(alone) == 5 and torch.allclose(together, torch.stack(alone).mean(), atol=1e-5)


def test_it_ranks_by_sasrec_until_the_gate_is_fitted():
    model, histories = fusion(), torch.tensor([[1, 2, 0]])
    slow = model.deliberation
    assert torch.allclose(model(histories), slow.matcher(histories).log_softmax(-1))
    slow.ranking.fill_(RANKINGS.index("deliberation"))
    slow.weights.copy_(torch.tensor([0.0, 0.5, 0.6, 2.0, -3.0]))
    scores = model(histories)[0, 1:]
    transitions, text = slow.transitions(histories)[0, 1:], slow.content(histories)[0, 1:]
    expected = 0.5 * slow.matcher(histories).log_softmax(-1)[0, 1:] + 0.6 * (transitions + 0.001).log() + 2.0 * text
    expected -= 3.0 * torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])  # the history's items
    assert torch.allclose(scores, expected, atol=1e-5)


def test_only_sasrec_is_trained():
    model = fusion()
    samples = make_samples(pad([[1, 2], [3]]), torch.tensor([3, 4]))
    loss, _ = next(AllPositions(model.deliberation.matcher, "SASRec").losses(samples.batch(torch.arange(2))))
    loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained and all(name.startswith("deliberation.matcher.") for name in trained)
