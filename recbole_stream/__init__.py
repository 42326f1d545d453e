"""STREAM-Rec and TIGER inside the stock RecBole.

Importing this package registers everything with the installed RecBole: its
models, trainers, datasets and YAML files, and the repairs that RecBole needs.
"""

from recbole_stream.host.registration import register

__all__ = ["register"]

register()
