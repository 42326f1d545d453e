"""RQ-KMeans: residual quantisation of the embeddings' principal components, one k-means per level."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from recbole_stream.tokenizer.kmeans import kmeans
from recbole_stream.tokenizer.residual import Quantised, residual_quantize, row_chunks

__all__ = ["leading_components", "rq_kmeans"]

_POINTS_PER_CODEWORD = 256  # more no longer moves a mean by much; a larger catalogue is learnt from a sample
# Components per item that a code has on average. With many more dimensions than items in a cluster k-means learns the
# items by heart: single items get codes of their own and the rest share one (perplexity 8 of 256 on a small catalogue).
_COMPONENTS_PER_POINT = 4
_FEWEST_COMPONENTS = 32


def rq_kmeans(
    embeddings: np.ndarray, levels: int, codebook_size: int, seed: int, device: str = "cpu", show_progress: bool = True
) -> Quantised:
    """Level d's codebook is the k-means of what levels 1 .. d-1 left over (the RQ-VAE's quantisation without encoder).

    A small catalogue is first reduced to its leading principal components,
    four for every item per code. A large one is learnt from a random sample of 256 items per codeword
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
        the quantised items; `latents` are the components, or the embeddings themselves where all are kept.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    n = len(embeddings)
    sample_size = min(n, _POINTS_PER_CODEWORD * codebook_size)
    rows = np.arange(n) if sample_size == n else np.sort(rng.choice(n, sample_size, replace=False))
    leading = leading_components(embeddings[rows], codebook_size)
    if leading is not None:
        mean, basis = leading  # [D], [D, d]
        latents = np.concatenate([(embeddings[chunk] - mean) @ basis for chunk in row_chunks(n)])
        decode: Callable[[np.ndarray], np.ndarray] = partial(_decode, mean=mean, basis=basis)
    else:
        latents, decode = embeddings, _identity
    residual = torch.tensor(latents[rows], device=device)  # [sample, d]
    codebooks: list[torch.Tensor] = []
    for _ in tqdm(range(levels), desc="RQ-KMeans", unit="level", disable=not show_progress):
        codebook, codes = kmeans(residual, codebook_size, generator)
        codebooks.append(codebook)
        residual -= codebook[codes]
    all_codes = np.empty((n, levels), dtype=np.int64)
    for chunk in row_chunks(n):
        h = torch.tensor(latents[chunk], device=device)
        all_codes[chunk] = residual_quantize(h, codebooks)[0].cpu().numpy()
    return Quantised(all_codes, latents, [codebook.cpu().numpy() for codebook in codebooks], decode)


def leading_components(sample: np.ndarray, codebook_size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """What a sample `[n, D]` of embeddings is reduced to before it is quantised by codebooks of K codes.

    Returns:
        the mean `[D]` and the orthonormal directions of most variance `[D, d]`; None where all are kept.
    """
    components = max(_FEWEST_COMPONENTS, _COMPONENTS_PER_POINT * len(sample) // codebook_size)
    if components >= sample.shape[1]:
        return None
    mean = sample.mean(axis=0, dtype=np.float64)
    centred = sample - mean
    directions = np.linalg.eigh(centred.T @ centred).eigenvectors  # by rising variance
    return mean.astype(np.float32), directions[:, -components:].astype(np.float32)


def _decode(quantised: np.ndarray, mean: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return quantised @ basis.T + mean


def _identity(quantised: np.ndarray) -> np.ndarray:
    return quantised
