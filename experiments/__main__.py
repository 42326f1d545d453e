"""``python -m experiments NAME RUN [--seed=2020]``: looks into the checkpoints of a run.

ablation: the final model with each part switched off, and its cost. controls: what the content of the reasoning is
worth. scaling: accuracy against reasoning steps and paths. thinking: accuracy against milliseconds a user, from one look
to all. unseen: every model without what the user has already. Tables (and a plot) are written into the run's folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import ablation, controls, scaling, thinking, unseen
from recbole_stream.errors import InputError
from recbole_stream.files import write_text

EXPERIMENTS = {
    "ablation": ablation.ablate,
    "controls": controls.control,
    "scaling": scaling.scale,
    "thinking": thinking.think,
    "unseen": unseen.leave_out,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one; returns the exit status: 0, or 2 for a run that does not hold what it needs."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("run", type=Path, help="folder of a run of run_recbole.py; all but unseen need STREAMRec in it")
    parser.add_argument("--seed", type=int, default=2020, help="of the run")
    given = parser.parse_args(arguments)
    try:
        table = EXPERIMENTS[given.name](given.run, given.seed)
    except InputError as fault:
        print(f"Error: {fault}", file=sys.stderr)
        return 2
    stem = f"{given.name}-seed{given.seed}"
    write_text(given.run / f"{stem}.csv", table.to_csv(index=False))
    text = table.to_markdown(index=False, floatfmt=".4f")
    write_text(given.run / f"{stem}.md", text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
