"""What the values of our configuration keys must be.

``RULES`` maps a key to a rule made with the builders of
``recbole_stream.host.configuration``; the configuration hook applies it to
TIGER and STREAMRec before any data is read.
"""

from recbole_stream.host.configuration import Rule

__all__ = ["RULES"]

RULES: dict[str, Rule] = {}
