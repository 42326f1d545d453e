"""Seeds that have nothing in common: of a run's stages and epochs, of its processes, of neighbouring runs."""

from __future__ import annotations

import hashlib
import json

__all__ = ["SEEDING", "mix"]

# the name of what follows, kept with a run's results; results without it are from sums, such as seed + epoch, by which
# seed 2021 began with the batches that seed 2020 had in its second epoch
SEEDING = "sha256"


def mix(*parts: int | str) -> int:
    """A seed for what the parts name, such as a run's seed, a stage and an epoch: the same on every machine.

    The first 32 bits of the SHA-256 of the parts as a JSON list. More would be lost: torch's generator on the CPU and
    NumPy's old ones take no more of a seed.

    Returns:
        0 to 2^32 - 1.
    """
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:4], "big")
