import pytest
import torch
from torch import nn

from recbole_stream.model.linear import Linear, product


@pytest.mark.parametrize("shape", [(5, 48), (2, 3, 1, 48), (48,), (0, 48), (2, 0, 3, 48)])
@pytest.mark.parametrize("grad", [True, False])
def test_product_of_every_shape(shape, grad):
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(20, 48)
    with torch.set_grad_enabled(grad):
        out = product(x, weight)
    assert out.shape == (*shape[:-1], 20) and out.dtype == torch.float32
    assert torch.allclose(out, x @ weight.T, atol=1e-4)


@torch.no_grad()
def test_product_of_views():
    torch.manual_seed(0)
    x, weight = torch.randn(6, 30, 40).transpose(0, 1)[::2], torch.randn(40, 80).T[:, :40]
    assert torch.allclose(product(x, weight), x @ weight.T, atol=1e-4)


def test_autocast_and_gradient_take_the_usual_way():
    layer = Linear(16, 8)
    x = torch.randn(4, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    layer(x).sum().backward()
    assert torch.allclose(layer.weight.grad, x.sum(0).expand(8, -1), atol=1e-5)


def test_equals_a_plain_layer_without_bias():
    torch.manual_seed(1)
    ours = Linear(16, 8)
    torch.manual_seed(1)
    plain = nn.Linear(16, 8, bias=False)
    assert torch.equal(ours.weight, plain.weight) and ours.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(3, 16)
    with torch.no_grad():
        assert torch.allclose(ours(x), plain(x), atol=1e-6)
