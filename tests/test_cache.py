"""The cache that several processes share."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from recbole_stream.cache import cached_arrays

# waits until the other process is there too, then wants the same arrays and notes whether it computed them
WORKER = """
import sys, time
from pathlib import Path
import numpy as np
from recbole_stream.cache import cached_arrays

me, other = Path(sys.argv[1]), Path(sys.argv[2])
def compute():
    with open("computed", "a") as file:
        file.write("x")
    time.sleep(0.5)
    return {"a": np.arange(3)}, {"by": me.name}
me.touch()
while not other.exists():
    time.sleep(0.01)
arrays, info = cached_arrays("cache", "thing", "key", compute)
assert arrays["a"].tolist() == [0, 1, 2] and info["by"] in ("one", "two")
"""


def test_of_two_processes_that_want_the_same_one_computes():
    root = Path(__file__).parents[1]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, *names], env={"PYTHONPATH": str(root)})
        for names in (("one", "two"), ("two", "one"))
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    assert Path("computed").read_text() == "x"
    assert [file.name for file in Path("cache").iterdir()] == ["thing-key.npz"]


def test_a_torn_file_is_computed_again_and_replaced():
    Path("cache").mkdir()
    Path("cache/thing-key.npz").write_bytes(b"PK\x03\x04half of a file")
    arrays, info = cached_arrays("cache", "thing", "key", lambda: ({"a": np.ones(2)}, {"n": 1}))
    assert arrays["a"].tolist() == [1.0, 1.0] and info == {"n": 1}
    again, _ = cached_arrays("cache", "thing", "key", lambda: 1 / 0)  # read, not computed
    assert again["a"].tolist() == [1.0, 1.0]


def test_a_computation_that_fails_leaves_nothing_behind():
    try:
        cached_arrays("cache", "thing", "key", lambda: 1 / 0)
    except ZeroDivisionError:
        assert list(Path("cache").iterdir()) == []
    else:
        raise AssertionError("the fault was swallowed")
