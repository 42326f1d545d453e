"""What memory is left: of the machine, of control groups, of limits."""

import mmap
import os
import resource
import sys
from pathlib import Path

import psutil
import pytest

from recbole_stream import memory
from recbole_stream.errors import InputError
from recbole_stream.memory import check_fits, free_memory

GB = 10**9


def group(folder: Path, most: str, used: int, files: int, swap: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"max": most, "current": used, "swap.max": swap}.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")
    (folder / "memory.stat").write_text(f"anon 5\nactive_file {files}\ninactive_file 7\n")


def test_the_tightest_control_group_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "_OWN_GROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/pod/container\n")
    group(tmp_path / "groups/pod/container", "max", 10, 0, "0")
    group(tmp_path / "groups/pod", "1000", 600, 100, "20")
    assert free_memory() == 1000 - 600 + 100 + 7 + 20
    group(tmp_path / "groups/pod/container", "100", 400, 0, "0")
    assert free_memory() == 0
    (tmp_path / "own").write_text("8:pids:/\n")  # version 1
    machine = psutil.virtual_memory().available + psutil.swap_memory().free
    assert abs(free_memory() - machine) < machine / 2


def fits(count: int) -> bool:
    """Whether so much can be taken; nothing is written there."""
    try:
        mmap.mmap(-1, count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(("kind", "field"), [("RLIMIT_AS", "vms"), ("RLIMIT_DATA", "data")])
def test_limits_of_the_process_count(kind, field):
    child = os.fork()  # a limit that is lowered cannot be raised again
    if child == 0:
        most = getattr(psutil.Process().memory_info(), field) + GB
        resource.setrlimit(getattr(resource, kind), (most, most))
        left = free_memory()
        os._exit(not (0.9 * GB < left < 1.1 * GB and fits(int(0.9 * left)) and not fits(int(1.1 * left))))
    assert os.waitpid(child, 0)[1] == 0


def test_one_sentence_says_what_would_fit(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 3 * GB)
    check_fits("It", 3 * GB, ["make it smaller"])
    with pytest.raises(InputError) as fault:
        check_fits("The log", 5.4 * GB, ["make it smaller", "wait"])
    assert str(fault.value) == (
        "The log takes at least 5.4 GB of memory, and 3.0 GB are free: make it smaller, wait, or use a machine with 16 GB."
    )
