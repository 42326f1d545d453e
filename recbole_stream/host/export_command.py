"""``python -m recbole_stream export RUN --output=MODEL``."""

from __future__ import annotations

import argparse

from recbole_stream.host.export import export
from recbole_stream.host.registration import register

__all__ = ["arguments", "command"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command may be given."""
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("--output", required=True, help="folder of the model, which is made")
    parser.add_argument("--model", help="by default the one with the best validation metric")
    parser.add_argument("--stage", help="such as States; by default the one that the run keeps")
    parser.add_argument("--seed", type=int, help="by default the one with the best validation metric")
    parser.add_argument("--no-users", action="store_true", help="leave out the users' names and histories")
    parser.add_argument("--data_path", help="where the data set is, if no longer where it was in training")


def command(options: argparse.Namespace) -> None:
    """Export, and say what and where."""
    register()
    folder = export(
        options.run, options.output, options.model, options.stage, options.seed, options.data_path, not options.no_users
    )
    whom = "--histories=FILE --output=FILE" if options.no_users else "--users=NAME"
    print(f"The model is in {folder}. Next: python -m recbole_stream recommend {options.output} {whom}")
