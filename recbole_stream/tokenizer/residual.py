"""Residual quantisation, and the result that both quantisers return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recbole_stream.tokenizer.kmeans import nearest_codeword

__all__ = ["Quantised", "residual_quantize", "row_chunks", "sum_codewords"]

_CHUNK = 1 << 14


def residual_quantize(
    h: torch.Tensor, codebooks: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The codes of 2.2.1: `c_d = argmin_k ‖h_d − e_k‖`, then `h_{d+1} = h_d − e_{c_d}`, level after level.

    The subtracted codeword carries no gradient, so that each level's loss
    moves its own codebook and the encoder, never the codebooks before it.

    Args:
        h: h_1, `[n, d]`.
        codebooks: one `[K_d, d]` per level, m of them.

    Returns:
        codes: int64 `[n, m]`.
        quantised: `Σ_d e_{c_d}`, `[n, d]`.
        residuals: `h_1 .. h_m`, `[n, m, d]`.
    """
    codes, residuals = [], []
    quantised = torch.zeros_like(h)
    for codebook in codebooks:
        with torch.no_grad():
            code = nearest_codeword(h, codebook)  # [n]
        codes.append(code)
        residuals.append(h)
        quantised = quantised + codebook[code]
        h = h - codebook[code].detach()
    return torch.stack(codes, dim=1), quantised, torch.stack(residuals, dim=1)


@dataclass(frozen=True)
class Quantised:
    """Result of a trained quantiser for all items; several items may still share their codes.

    Attributes:
        codes: int64 `[n, m]`.
        latents: what is quantised, h_1, float32 `[n, d]`.
        codebooks: one float32 `[K_d, d]` per level.
        decode: quantised latents `[b, d]` -> embeddings `[b, D]`, in the space of the input.
    """

    codes: np.ndarray
    latents: np.ndarray
    codebooks: list[np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]


def sum_codewords(codes: np.ndarray, codebooks: list[np.ndarray]) -> np.ndarray:
    """`Σ_d e_{c_d}` over as many levels as `codes` has, `[n, L]` -> float32 `[n, d]`."""
    total = np.zeros((len(codes), codebooks[0].shape[1]), dtype=np.float32)
    for level in range(codes.shape[1]):
        total += codebooks[level][codes[:, level]]
    return total


def row_chunks(n: int, size: int = _CHUNK) -> Iterator[slice]:
    """Slices that cover `range(n)`, `size` rows each: memory does not grow with the number of items."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
