"""Memory as a limit that the kernel keeps: rankings at 70 thousand items pass where a matrix of all scores does not fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# each work in memory that was free before plus so many MiB of private memory; prints which of them were done
WORK = """
import json, resource, sys
import torch
from recbole_stream.decoding.rank_by_views import deliberate, rank_by_states
from recbole_stream.decoding.trie import Trie
from tests.helpers import catalogue, deliberating, random_histories

items, sizes = 70_000, (42, 42, 42)
codes = catalogue(items, sizes)
model, trie = deliberating(codes, sizes), Trie(codes)
slow = model.deliberation
slow.weights[0] = 0  # nothing is generated
histories = random_histories(items, [6] * 256)

def used():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData"))

def within(mib, work):
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (used() + mib * 2**20, hard))
    try:
        work()
        return True
    except (RuntimeError, MemoryError) as fault:
        assert "memory" in str(fault), fault
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))

deliberate(model, histories[:2], trie, 1, 50, 10)  # libraries make their buffers
found = {
    "views": within(160, lambda: deliberate(model, histories, trie, 1, 50, 10)),
    "dense views": within(160, lambda: slow.catalogue(histories)),
    "states": within(160, lambda: rank_by_states(model, histories, 10)),
}
print(json.dumps(found))
"""


def test_rankings_fit_where_all_scores_at_once_do_not():
    ended = subprocess.run(
        [sys.executable, "-c", WORK],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "views": True,
        "dense views": False,
        "states": True,
    }
