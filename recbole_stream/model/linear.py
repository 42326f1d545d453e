"""Products with a weight, by the faster of PyTorch's two CPU libraries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Linear", "product"]


def product(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T``, x [.., I], weight [O, I] -> [.., O].

    In float32 PyTorch asks MKL, which leaves half of the vector unit of CPUs other than Intel's unused; oneDNN,
    which it asks in bfloat16, does not (speed/README.md). Its operator has no derivative, so training in
    float32 keeps MKL.
    """
    plain = not x.is_cpu or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    if plain or x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return F.linear(x, weight)
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


class Linear(nn.Linear):
    """A linear layer without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight)
