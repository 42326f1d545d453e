"""STREAM-Rec and TIGER inside the stock RecBole.

Importing this package registers everything with the installed RecBole: its
models, trainers, datasets and YAML files, and the repairs that RecBole needs.
Without RecBole only exported models can be opened.
"""

import importlib.util
import os
from typing import Any

# Threads that spin at a barrier wait for one that another program keeps off its core: with one busy neighbour on two
# cores a step took 100 times as long. Soon asleep, they cost nothing on a quiet machine. To be set before torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from recbole_stream.host.registration import register  # noqa: E402
from recbole_stream.serving.recommender import Recommender  # noqa: E402

__all__ = ["Recommender", "export", "recommend", "register"]

_NEED_RECBOLE = ("export", "recommend")

if importlib.util.find_spec("recbole") is not None:
    register()

    from recbole_stream.host.export import export  # noqa: E402 - their RecBole has to be repaired first
    from recbole_stream.host.recommend import recommend  # noqa: E402
else:

    def __getattr__(name: str) -> Any:
        if name in _NEED_RECBOLE:
            register()  # which says what is missing
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
