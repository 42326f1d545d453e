"""STREAM-Rec and TIGER inside the stock RecBole.

Importing this package registers everything with the installed RecBole: its
models, trainers, datasets and YAML files, and the repairs that RecBole needs.
"""

import os

# Threads that spin at a barrier wait for one that another program keeps off its core: with one busy neighbour on two
# cores a step took 100 times as long. Soon asleep, they cost nothing on a quiet machine. To be set before torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from recbole_stream.host.registration import register  # noqa: E402

register()

from recbole_stream.host.recommend import recommend  # noqa: E402 - its RecBole has to be repaired first

__all__ = ["recommend", "register"]
