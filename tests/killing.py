"""Runs of the command line, each in a process of its own that is killed: ``python killing.py PLAN.json``.

The plan is a list of runs. Each run has ``arguments`` (how it begins), ``folder`` (where, and what is resumed) and
``deaths``, one for each process before the last, which lives. A death is

* ``["call", "package.module", "name.of.function", n]``: SIGKILL instead of the n-th call, counted from 1;
* ``["renamed", "text", n]``: SIGKILL right after the n-th file has got a name that contains the text;
* ``["half", "text", n]``: SIGKILL within the n-th ``torch.save`` into a file whose path contains the text, when
  something is written;
* ``["seconds", s]``: SIGKILL from outside after so many seconds;
* ``["torn", "path"]``: no process, but the file of this path in the folder loses its second half.

A process that ends before its death is an error, except for deaths by the clock, after which nothing more is done.
Imports are done once: the processes are forked from this one, which loads what the first of them has needed.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import signal
import sys
import time
from operator import attrgetter
from pathlib import Path

import torch

from recbole_stream.host.run.commands import main


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(death: list) -> None:
    """Prepare this process for its death."""
    kind, *details = death
    if kind == "half":
        (text, number), stock, calls = details, torch.save, itertools.count(1)

        def save(state, file, **named):
            if text in str(file.name) and next(calls) == number:
                file.write(b"PK\x03\x04 half a checkpoint")
                file.flush()
                die()
            stock(state, file, **named)

        torch.save = save
    elif kind == "renamed":
        (text, number), stock, calls = details, os.replace, itertools.count(1)

        def replace(source, target):
            stock(source, target)
            if text in str(target) and next(calls) == number:
                die()

        os.replace = replace
    elif kind == "call":
        module, name, number = details
        path, _, last = name.rpartition(".")
        owner = importlib.import_module(module)
        owner = attrgetter(path)(owner) if path else owner
        stock, calls = getattr(owner, last), itertools.count(1)

        def call(*arguments, **named):
            if next(calls) == number:
                die()
            return stock(*arguments, **named)

        setattr(owner, last, call)


def run(arguments: list[str], death: list | None) -> int:
    """One process; returns its exit status, -9 where it was killed."""
    child = os.fork()
    if child == 0:
        if death:
            arm(death)
        status = main(["--debug", *arguments])
        Path("modules.json").write_text(json.dumps(list(sys.modules)))
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    if death and death[0] == "seconds":
        time.sleep(death[1])
        os.kill(child, signal.SIGKILL)  # a child that has ended by now is still there to be waited for
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def load(modules: list[str]) -> None:
    for name in modules:
        with contextlib.suppress(Exception):  # some cannot be loaded twice, or alone
            importlib.import_module(name)


def play(plan: list[dict]) -> None:
    for part in plan:
        folder = Path(part["folder"])
        for death in [*part["deaths"], None]:
            if death and death[0] == "torn":
                file = folder / death[1]
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
                continue
            begun = (folder / "command.json").exists()
            arguments = [f"--resume={folder}"] if begun else [*part["arguments"], f"--output_dir={folder}"]
            status = run(arguments, death)
            if status == 0:
                load(json.loads(Path("modules.json").read_text()))
            if death and death[0] == "seconds" and status == 0:
                break
            expected = -signal.SIGKILL if death else 0
            if status != expected:
                sys.exit(f"{folder} {death}: status {status}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(json.loads(Path(sys.argv[1]).read_text()))
