"""Optimised product quantisation: codes without an order, each of a part of its own of the embedding.

The embeddings' principal components, whitened, are rotated and cut into m parts, and each part is quantised alone. The
rotation is learnt in turns with the codewords (Ge et al., 2013, Section 3, the non-parametric solution).
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.kmeans import kmeans, lloyd_step
from recbole_stream.tokenizer.residual import Quantised, residual_quantize, row_chunks

__all__ = ["best_rotation", "opq"]

_POINTS_PER_CODEWORD = 256  # as many as rq_kmeans learns from
_COMPONENTS = 128  # of all codes together, at least: what RPG keeps of its text vectors
_TURNS = 20


def best_rotation(points: Tensor, quantised: Tensor) -> Tensor:
    """The rotation R [d, d] for which ``points @ R`` is nearest to ``quantised``, [n, d] each (orthogonal Procrustes)."""
    left, _, right = torch.linalg.svd(points.T @ quantised)
    return left @ right


def opq(
    embeddings: np.ndarray, levels: int, codebook_size: int, seed: int, device: str = "cpu", show_progress: bool = True
) -> Quantised:
    """m codes an item, code d being the nearest codeword of part d.

    Args:
        embeddings: float32 `[n, D]`.
        levels: m, the parts; at most D.
        codebook_size: K of each part.
        seed: of the start codewords and of the sample that a large catalogue is learnt from.
        device: where the distances are computed.
        show_progress: a progress bar over the turns.

    Returns:
        the quantised items. A codeword of part d is 0 in all other parts, so that what is left of an item after the
        codes before d has part d whole, and the sum of an item's codewords is its reconstruction.

    Raises:
        InputError: more codes than dimensions.
    """
    if levels > embeddings.shape[1]:
        raise InputError(
            f"opq cuts embeddings of {embeddings.shape[1]} dimensions into {levels} parts: lower codebook_levels."
        )
    generator, n = torch.Generator().manual_seed(seed), len(embeddings)
    size = min(n, _POINTS_PER_CODEWORD * codebook_size)
    rows = np.sort(np.random.default_rng(seed).choice(n, size, replace=False))
    width = max(1, min(_COMPONENTS, embeddings.shape[1]) // levels)  # of a part
    mean, whiten, colour = _whitening(embeddings[rows], width * levels)
    points = torch.tensor((embeddings[rows] - mean) @ whiten, device=device)  # [sample, d]
    # components in turn, so that each part gets large and small ones
    rotation = torch.eye(points.shape[1], device=device)[:, _dealt(levels, width)]
    bar = tqdm(total=levels + _TURNS, desc="OPQ", unit="turn", disable=not show_progress, leave=False)
    parts = []
    for piece in (points @ rotation).split(width, 1):
        parts.append(kmeans(piece, codebook_size, generator, max_iterations=0)[0])
        bar.update()
    for _ in range(_TURNS):
        # codewords for the present parts, then the rotation that brings the items nearest to theirs
        learnt = [lloyd_step(*pair) for pair in zip((points @ rotation).split(width, 1), parts)]
        parts = [codewords for codewords, _ in learnt]
        rotation = best_rotation(points, torch.cat([codewords[codes] for codewords, codes in learnt], 1))
        bar.update()
    bar.close()
    codebooks = []
    for part, codewords in enumerate(parts):
        codebooks.append(codewords.new_zeros(codebook_size, width * levels))
        codebooks[-1][:, part * width : (part + 1) * width] = codewords
    turned = whiten @ rotation.cpu().numpy()
    latents = np.concatenate([(embeddings[chunk] - mean) @ turned for chunk in row_chunks(n)])
    codes = np.concatenate(
        [
            residual_quantize(torch.tensor(latents[chunk], device=device), codebooks)[0].cpu().numpy()
            for chunk in row_chunks(n)
        ]
    )
    decode = partial(_decode, mean=mean, back=rotation.cpu().numpy().T @ colour)
    return Quantised(codes, latents, [codebook.cpu().numpy() for codebook in codebooks], decode)


def _whitening(sample: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of `[n, D]`: the mean `[D]`, the whitened leading components `[D, d]`, and the way back `[d, D]`."""
    mean = sample.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(np.cov(sample.T.astype(np.float64)))  # by rising variance
    values, directions = values[::-1][:components], directions[:, ::-1][:, :components]
    scale = np.sqrt(np.maximum(values, 1e-6 * values[0]))  # a catalogue smaller than d has directions without variance
    return mean.astype(np.float32), (directions / scale).astype(np.float32), (directions * scale).T.astype(np.float32)


def _dealt(levels: int, width: int) -> list[int]:
    """Components 0, 1, 2, .. by falling variance, dealt to the parts one after another."""
    return [part + levels * place for part in range(levels) for place in range(width)]


def _decode(quantised: np.ndarray, mean: np.ndarray, back: np.ndarray) -> np.ndarray:
    return quantised @ back + mean
