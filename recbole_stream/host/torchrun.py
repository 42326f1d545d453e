"""What torchrun says of a process, in RecBole's words."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

__all__ = ["PATIENCE", "started_by_torchrun"]

# How long a process waits for the others: the first may encode a large catalogue, or read one, for hours. Of a process
# that has ended the others learn from whatever started them, and not by this limit (torch's is 10 to 30 minutes).
PATIENCE = timedelta(days=7)


def started_by_torchrun() -> dict[str, Any]:
    """The keys by which RecBole knows one of several processes, from torchrun's environment; none without it."""
    environment = os.environ
    if "LOCAL_RANK" not in environment or int(environment.get("WORLD_SIZE", 1)) < 2:
        return {}
    local, rank = int(environment["LOCAL_RANK"]), int(environment["RANK"])
    return {
        "local_rank": local,
        "offset": rank - local,
        "nproc": int(environment["LOCAL_WORLD_SIZE"]),
        "world_size": int(environment["WORLD_SIZE"]),
        "ip": environment["MASTER_ADDR"],
        "port": environment["MASTER_PORT"],
    }
