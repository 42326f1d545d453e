"""Tune a model with Ray: ``python run_hyper.py --model=STREAMRec [--dataset=NAME] [--trials=N] [--key=value ...]``."""

import sys

from recbole_stream.host.tuning.sweep import main

if __name__ == "__main__":
    sys.exit(main())
