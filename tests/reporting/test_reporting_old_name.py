"""The room's old name still works, and says the new one."""

import subprocess
import sys
from pathlib import Path


def test_the_old_module_runs_the_same_command():
    ran = subprocess.run(
        [sys.executable, "-m", "recbole_stream.benchmark", "compare", "nowhere", "elsewhere"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "python -m recbole_stream.reporting" in ran.stderr and "nowhere" in ran.stderr
    assert ran.returncode == 2
