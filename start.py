"""Set this checkout up and take a first look, or set it up and test it: one command each.

    python3 start.py          makes .venv, installs, trains a first look on ml-100k
    python3 start.py test     makes .venv-test, installs, runs the tests

Both can be repeated: what is installed stays. Only Python's standard library is needed. --cuda accepts PyTorch's CUDA
build, several gigabytes, on a machine without an NVIDIA GPU for which no CPU build is found.
"""

from __future__ import annotations  # an older Python shall read this file too, and say what it is

import argparse
import hashlib
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYTHONS = ["3.11", "3.12", "3.13"]
# RecBole comes without its dependencies; setup.py says why, and lists what it imports
RECBOLE = "recbole==1.2.1"

FIRST_LOOK = ["run_recbole.py", "--model=SASRec,TIGER,STREAMRec", "--config_files=properties/first-look.yaml"]
LONG_RUN = """This was a first look: small networks, few epochs, no reasoning. No model of it is trained out.
-- The long run, a quarter of an hour or more: {program} run_recbole.py --model=STREAMRec"""
# task -> its virtual environment, the extras of setup.py installed there, what its Python then runs
TASKS = {
    "run": (".venv", "encoder,serve", FIRST_LOOK),
    "test": (".venv-test", "encoder,test", ["-m", "pytest", "-q"]),
}

DISK_FULL = "No space left on device"
# what pip, uv or venv say -> what to do about it
CURES = {
    DISK_FULL: "The disk is full: free about 3 GB and run the same command again.",
    "ensurepip|No module named venv": (
        "Python's venv module is incomplete: install it (on Debian and Ubuntu: apt install python3-venv)."
    ),
    "NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|Network is unreachable": (
        "pip reaches no package index: connect this machine to a network, then run the same command again."
    ),
}


class StartError(Exception):
    """Why the set-up cannot go on, in one sentence."""


def main(arguments: Sequence[str]) -> int:
    """Set up and run a task; returns its exit status, 2 where the set-up failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default="run", choices=list(TASKS), help="default: run")
    parser.add_argument("--cuda", action="store_true", help="accept PyTorch's CUDA build")
    options = parser.parse_args(arguments)
    folder, extras, command = TASKS[options.task]
    try:
        check_python(sys.version_info[:2])
        python = set_up(ROOT / folder, extras, options.cuda)
        program = python.relative_to(ROOT)
        say(f"Running {program} {' '.join(command)}")
        status = subprocess.run([str(python), *command], cwd=ROOT).returncode
    except (StartError, OSError) as fault:
        print(f"Error: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command begins again with what is installed.", file=sys.stderr)
        return 130
    if options.task == "run" and status == 0:
        say(LONG_RUN.format(program=program))
    return status


def check_python(version: tuple[int, int]) -> None:
    """Stop on a Python that the pinned packages are not built for."""
    this = ".".join(map(str, version))
    if this not in PYTHONS:
        raise StartError(f"This is Python {this}: use {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}, such as python3.12.")


def set_up(venv: Path, extras: str, cuda: bool) -> Path:
    """Make the virtual environment and install what it lacks; returns its Python."""
    python = venv / ("Scripts/python.exe" if platform.system() == "Windows" else "bin/python")
    stamp, state = venv / "start.stamp", fingerprint(ROOT, extras)
    if stamp.is_file() and stamp.read_text() == state:
        say(f"{venv.name} is set up (delete it to begin anew)")
        return python
    venv.mkdir(exist_ok=True)
    log = venv / "start.log"
    log.write_text("")
    if fault([python, "-m", "pip", "--version"], log) is not None:
        say(f"Making the virtual environment {venv.name}")
        insist([sys.executable, "-m", "venv", venv], log)
    say(f"Installing {RECBOLE}")
    insist([*pip(python), "--no-deps", RECBOLE], log)
    if needs_cpu_build(platform.system(), has_gpu()) and not cuda:
        install_cpu_build(python, pinned("torch", (ROOT / "requirements.txt").read_text()), log)
    say(f"Installing the other packages, a few minutes; {log.relative_to(ROOT)} shows how far it is")
    insist([*pip(python), "-c", "requirements.txt", "-e", f".[{extras}]"], log)
    stamp.write_text(state)
    return python


def fingerprint(root: Path, extras: str) -> str:
    """Another one where other packages have to be installed."""
    content = b"".join((root / name).read_bytes() for name in ("setup.py", "requirements.txt"))
    return hashlib.sha256(content + f"{extras} {RECBOLE}".encode()).hexdigest()


# -- PyTorch -----------------------------------------------------------------


def has_gpu() -> bool:
    """Whether an NVIDIA GPU answers."""
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def needs_cpu_build(system: str, gpu: bool) -> bool:
    """Whether the ordinary wheel would bring gigabytes of CUDA for nothing; on macOS and Windows it is a CPU build."""
    return system == "Linux" and not gpu


def install_cpu_build(python: Path, torch: str, log: Path) -> None:
    """Install PyTorch for the CPU, unless that version is there: pip then leaves it alone."""
    is_there = f"import importlib.metadata as m; assert m.version('torch').split('+')[0] == '{torch.split('==')[1]}'"
    if fault([python, "-c", is_there], log) is None:
        return
    say(f"Installing {torch} for the CPU: no GPU answers to nvidia-smi")
    for commands in cpu_builds(python, torch):
        words = next((words for command in commands if (words := fault(command, log)) is not None), None)
        if words is None:
            return
        if DISK_FULL in words:
            raise StartError(CURES[DISK_FULL])
    raise StartError(
        f"No CPU build of {torch} was found for this Python: install one into {python.parents[1].name} yourself, or "
        f"add --cuda to accept the CUDA build of several GB ({log.relative_to(ROOT)} shows what was tried)."
    )


def cpu_builds(python: Path, torch: str) -> list[list[list]]:
    """Ways to a CPU build, each some commands: where pip is told to look, and where uv knows that PyTorch keeps it."""
    uv = [python, "-m", "uv", "pip", "install", "--python", python, "--no-deps", "--torch-backend=cpu", torch]
    return [[[*pip(python), f"{torch}+cpu"]], [[*pip(python), "uv"], uv]]


# -- commands ----------------------------------------------------------------


def pip(python: Path) -> list:
    """How a command that installs begins; byte code is left to the first import, which makes only what is used."""
    return [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off", "--no-compile"]


def pinned(package: str, requirements: str) -> str:
    """The line of a requirements file that pins a package."""
    return re.search(rf"^{package}==\S+", requirements, re.MULTILINE).group()


def insist(command: Sequence, log: Path) -> None:
    """Run a command of the set-up; where it fails, stop with what to do."""
    words = fault(command, log)
    if words is not None:
        raise StartError(cure(words) or f"{last_error(words)} ({log.relative_to(ROOT)} has the details).")


def fault(command: Sequence, log: Path) -> str | None:
    """Run a command and add what it says to the log; None where it ends well, else what it said."""
    with log.open("a+", errors="replace") as output:
        began = output.tell()
        try:
            status = subprocess.run([str(word) for word in command], cwd=ROOT, stdout=output, stderr=output).returncode
        except FileNotFoundError as missing:
            return str(missing)
        output.seek(began)
        return output.read() if status else None


def cure(words: str) -> str | None:
    """What to do about a failure of a kind that we know."""
    return next((sentence for pattern, sentence in CURES.items() if re.search(pattern, words)), None)


def last_error(words: str) -> str:
    """The last line that names an error, else the last line."""
    lines = [line.strip() for line in words.splitlines() if line.strip()] or ["The set-up failed without a word"]
    errors = [line[len("error:") :].strip() for line in lines if line.lower().startswith("error:")]
    return errors[-1] if errors else lines[-1]


def say(line: str) -> None:
    print(f"-- {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
