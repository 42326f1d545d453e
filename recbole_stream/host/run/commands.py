"""The command line: options in, exit status out, one sentence for what cannot be used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from recbole_stream.errors import InputError, report
from recbole_stream.host.configuration import parse_command_line, quiet_argv
from recbole_stream.host.run.launcher import together
from recbole_stream.host.run.runner import run

__all__ = ["guarded", "main"]

USAGE = """\
python run_recbole.py --model=STREAMRec [--dataset=ml-100k] [--key=value ...]

--model=A,B,...      models of the table; TIGER joins a STREAMRec that pretrains
--dataset=NAME       a folder with NAME.inter under --data_path (default: dataset), or a name RecBole downloads
--data_path=FOLDER   where the data set's folder lies
--preset=paper       the paper's readings instead of what measured best
--plugins=F.py,G.py  files with models of your own, to be named in --model
--config_files=F,G   YAML files with further keys
--seeds=1,2,3        train every model with each seed; the table gives mean ± standard deviation (default: --seed=2020)
--equal_time=True    let TIGER train as long as STREAMRec has, instead of its own number of epochs
--references=A,B     models that all others are tested against (default: TIGER,SASRec, those that are there)
--nproc=N            train in N processes, on as many GPUs of --gpu_id or on the CPU (or: torchrun --nproc_per_node=N)
--address=auto       train models and seeds at once on the Ray cluster this machine belongs to, HOST:PORT, or local;
                     with --cpus-per-trial and --gpus-per-trial as in run_hyper.py
--output_dir=FOLDER  where results go (default: results/...)
--resume=FOLDER      go on with a run that was interrupted
--debug              show the traceback of an error
--key=value          any key of properties/model/*.yaml or of RecBole"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and compare models; returns the exit status. The arguments are by default those of the process."""
    return guarded(arguments, USAGE, together(run))


def guarded(arguments: Sequence[str] | None, usage: str, action: Callable[[dict[str, Any], list[str]], object]) -> int:
    """Run one command; returns the exit status: 0, 1 (failed), 2 (bad input) or 130 (interrupted).

    Args:
        arguments: the command line without the script's name; None for that of the process.
        usage: printed where there are none, or where help is asked for.
        action: given the keys with typed values, lists where lists are meant, and the command as it was typed.
    """
    if arguments is None:
        arguments = sys.argv[1:]
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(usage)
        return 0 if arguments else 2
    debug = "--debug" in arguments
    try:
        options = parse_command_line([argument for argument in arguments if argument != "--debug"])
        with quiet_argv():
            action(_lists(options), [*_program(), *arguments])
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except Exception as fault:
        if int(os.environ.get("RANK", 0)) > 0:  # the first of several processes prints the error
            return 2 if isinstance(fault, InputError) else 1
        return report(fault, debug)
    return 0


def _program() -> list[str]:
    """How the program was called: as a script of the checkout, as a module, or as a command of the installed wheel."""
    name = os.path.basename(sys.argv[0])
    if name == "__main__.py":
        return ["python", "-m", "recbole_stream"]
    return ["python", name] if name.endswith(".py") else [name]


def _lists(options: dict[str, Any]) -> dict[str, Any]:
    """``A,B`` and ``A`` become lists where a list is meant."""
    for key in ("model", "config_files", "references"):
        if isinstance(options.get(key), str):
            options[key] = options[key].replace(",", " ").split()
    if "seeds" in options:
        words = str(options["seeds"]).strip("[]").replace(",", " ").split()
        options["seeds"] = [int(word) if word.isdecimal() else word for word in words]
    return options
