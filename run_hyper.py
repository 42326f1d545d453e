"""Tune a model with Ray: ``python run_hyper.py --model=STREAMRec [--dataset=NAME] [--trials=N] [--key=value ...]``."""

import os
import sys

# as in run_recbole.py: threads that wait soon fall asleep; to be set before torch loads
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from recbole_stream.host.tuning.sweep import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
