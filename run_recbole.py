"""Train and compare models: ``python run_recbole.py --model=STREAMRec [--dataset=NAME] [--key=value ...]``."""

import os
import sys

# Threads that spin at a barrier wait for one that another program keeps off its core: with one busy neighbour on two
# cores a step took 100 times as long. Soon asleep, they cost nothing on a quiet machine. To be set before torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from recbole_stream.host.run.commands import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
