"""Train and compare models: ``python run_recbole.py --model=STREAMRec [--dataset=NAME] [--key=value ...]``."""

import sys

from recbole_stream.host.run.commands import main

if __name__ == "__main__":
    sys.exit(main())
