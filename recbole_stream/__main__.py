"""What run_recbole.py is in a checkout: ``python -m recbole_stream --model=STREAMRec [--key=value ...]``."""

import sys

from recbole_stream.host.run.commands import main

if __name__ == "__main__":
    sys.exit(main())
