"""RQ-KMeans: residual quantisation of the embeddings themselves, one k-means per level."""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from recbole_stream.tokenizer.kmeans import kmeans
from recbole_stream.tokenizer.residual import Quantised, residual_quantize, row_chunks

__all__ = ["rq_kmeans"]

_POINTS_PER_CODEWORD = 256  # more no longer moves a mean by much; a larger catalogue is learnt from a sample


def rq_kmeans(
    embeddings: np.ndarray, levels: int, codebook_size: int, seed: int, device: str = "cpu", show_progress: bool = True
) -> Quantised:
    """Level d's codebook is the k-means of what levels 1 .. d-1 left over (Eq. 5-6 without encoder).

    A large catalogue is learnt from a random sample of 256 items per codeword
    and assigned in chunks, so that beside the embeddings only the codes grow
    with the number of items.

    Args:
        embeddings: float32 `[n, d]`.
        levels: m.
        codebook_size: K.
        seed: of the start codewords and the sample; equal seeds give equal codes.
        device: where the distances are computed.
        show_progress: a progress bar over the levels.

    Returns:
        the quantised items; `latents` are the embeddings themselves.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    n = len(embeddings)
    sample_size = min(n, _POINTS_PER_CODEWORD * codebook_size)
    rows = np.arange(n) if sample_size == n else np.sort(rng.choice(n, sample_size, replace=False))
    residual = torch.tensor(embeddings[rows], dtype=torch.float32, device=device)  # [sample, d]
    codebooks: list[torch.Tensor] = []
    for _ in tqdm(range(levels), desc="RQ-KMeans", unit="level", disable=not show_progress):
        codebook, codes = kmeans(residual, codebook_size, generator)
        codebooks.append(codebook)
        residual -= codebook[codes]
    all_codes = np.empty((n, levels), dtype=np.int64)
    for chunk in row_chunks(n):
        h = torch.tensor(embeddings[chunk], dtype=torch.float32, device=device)
        all_codes[chunk] = residual_quantize(h, codebooks)[0].cpu().numpy()
    return Quantised(
        codes=all_codes,
        latents=embeddings,
        codebooks=[codebook.cpu().numpy() for codebook in codebooks],
        decode=lambda quantised: quantised,
    )
