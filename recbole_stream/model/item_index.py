"""Near items without a look at all of them: inverted lists by faiss, an approximate index.

Items are put into lists by k-means of their vectors, and a query looks into the few lists whose centres have the largest
products with it (Sivic and Zisserman, "Video Google", ICCV 2003; ``IndexIVFFlat`` of faiss). What it finds has its
exact product; what lies in other lists is missed. Looking into all lists finds all.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from recbole_stream.errors import InputError

__all__ = ["ItemIndex", "check_faiss", "learn_lists"]

_SAMPLED = 64  # items a list that k-means sees
_ROUNDS = 10


def check_faiss() -> None:
    """Check that faiss is there.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec("faiss") is None:
        raise InputError('An index needs faiss, which is not installed: pip install "recbole-stream[index]".')


def learn_lists(vectors: Tensor, lists: int, seed: int = 0) -> Tensor:
    """Centres [lists, D] of the lists for vectors [n, D], n at least ``lists``, by spherical k-means as faiss has it."""
    check_faiss()
    import faiss

    kmeans = faiss.Kmeans(
        vectors.shape[1], lists, niter=_ROUNDS, seed=seed, spherical=True,
        max_points_per_centroid=_SAMPLED, min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(vectors.numpy())
    return torch.from_numpy(kmeans.centroids)


class ItemIndex:
    """The items' vectors in lists.

    Attributes:
        centres: of the lists [lists, D].
        lists: of each item, int64 [n_items].
        probes: how many lists a query looks into.
        scales: what the items' vectors of matching and of text were multiplied by; 0 for what is left out.

    Args:
        vectors: of the items, float32 [n_items, D]; item number i has row i - 1. They are copied.
        centres: see above.
        lists: of the first items; None or too short where items were added since: these go to their nearest centre.
        probes, scales: see above.

    Raises:
        InputError: faiss is not installed.
    """

    def __init__(
        self, vectors: Tensor, centres: Tensor, lists: Tensor | None, probes: int, scales: tuple[float, ...]
    ) -> None:
        check_faiss()
        import faiss

        size = vectors.shape[1]
        known = torch.zeros(0, dtype=torch.long) if lists is None else lists.long()
        quantizer = faiss.IndexFlatIP(size)
        quantizer.add(centres.contiguous().numpy())
        new = vectors[len(known) :].contiguous().numpy()
        self.lists = torch.cat([known, torch.from_numpy(quantizer.search(new, 1)[1][:, 0])]) if len(new) else known
        self._index = faiss.IndexIVFFlat(quantizer, size, len(centres), faiss.METRIC_INNER_PRODUCT)
        self._index.is_trained = True
        whole, own = vectors.contiguous().numpy(), self.lists.contiguous().numpy()
        self._index.add_core(len(whole), faiss.swig_ptr(whole), None, faiss.swig_ptr(own))
        self.centres, self.probes, self.scales = centres, probes, scales

    @property
    def probes(self) -> int:
        return self._index.nprobe

    @probes.setter
    def probes(self, probes: int) -> None:
        self._index.nprobe = min(probes, self._index.nlist)

    def serves(self, matching: float, text: float, items: int) -> bool:
        """Whether it holds just what has these weights, and a query is compared with so many items on average."""
        held = all(bool(scale) == bool(weight) for scale, weight in zip(self.scales, (matching, text)))
        return held and items <= self._index.ntotal * self._index.nprobe / self._index.nlist

    def nearest(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The items with the largest products with queries [B, D], best first: their numbers, 0 where it found fewer, and
        the products; both [B, count]."""
        products, found = self._index.search(queries.float().cpu().contiguous().numpy(), count)
        return torch.from_numpy(found + 1).to(queries.device), torch.from_numpy(products).to(queries.device)
