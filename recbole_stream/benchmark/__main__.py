"""``python -m recbole_stream.benchmark``: the old name of ``python -m recbole_stream.reporting``, for one release."""

import sys

from recbole_stream.reporting.__main__ import main

print("`python -m recbole_stream.benchmark` is now `python -m recbole_stream.reporting`.", file=sys.stderr)
sys.exit(main(sys.argv[1:]))
