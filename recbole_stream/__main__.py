"""Every command of the package: ``python -m recbole_stream NAME ...``.

Without a name it is what run_recbole.py is in a checkout: ``python -m recbole_stream --model=STREAMRec [--key=value ...]``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from recbole_stream.errors import report

# name -> (module with `arguments(parser)` and `command(options)`, what it does); all but export do without RecBole
COMMANDS = {
    "export": ("recbole_stream.host.export_command", "write a row of a run as a model in a folder of its own"),
    "recommend": ("recbole_stream.serving.batch", "recommend for users or for a file of histories"),
    "explain": ("recbole_stream.serving.explain_command", "write a page that shows what a model thinks"),
    "serve": ("recbole_stream.serving.service", "recommend over HTTP, with a page to try it"),
    "add-items": ("recbole_stream.serving.new_items", "add items that came after the training, by their texts"),
    "update": ("recbole_stream.serving.later_events", "add events that came after the training, without training"),
    "index": ("recbole_stream.serving.index_command", "add an approximate index to a model of many items"),
    "onnx": ("recbole_stream.serving.onnx_export", "write a model as one ONNX graph"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (failed), 2 (bad input) or 130 (interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        if words and not words[0].startswith("-") and "=" not in words[0]:
            print(f"Error: There is no command {words[0]!r} but {', '.join(COMMANDS)}.", file=sys.stderr)
            return 2
        from recbole_stream.host.run.commands import main as compare

        return compare(words)
    name, *words = words
    module, what = COMMANDS[name]
    debug = "--debug" in words
    try:
        room = importlib.import_module(module)
        parser = argparse.ArgumentParser(prog=f"python -m recbole_stream {name}", description=f"{name}: {what}")
        room.arguments(parser)
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        room.command(parser.parse_args(words))
    except SystemExit as end:  # of argparse
        return int(end.code or 0)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except Exception as fault:
        return report(fault, debug)
    return 0


if __name__ == "__main__":
    sys.exit(main())
