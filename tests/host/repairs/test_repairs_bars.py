"""Progress bars: on a terminal as RecBole draws them, in a log file none."""

import contextlib
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

RUN = """
import sys, recbole_stream
from recbole.quick_start import run_recbole
run_recbole(model="Pop", dataset="tiny", saved=False, config_dict={
    "data_path": sys.argv[1], "checkpoint_dir": sys.argv[2], "use_gpu": False, **keys
})
"""


def run(folder, data_path, keys="{}", stderr=subprocess.PIPE):
    code = RUN.replace("keys", keys)
    return subprocess.run(
        [sys.executable, "-c", code, data_path, str(folder)],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE, stderr=stderr, check=True,
    )  # fmt: skip


def test_a_log_has_lines_and_no_bars(tmp_path, tiny_ml100k):
    done = run(tmp_path, tiny_ml100k)
    words = (done.stdout + done.stderr).decode()
    assert "epoch 0 training" in words
    assert "\r" not in words and "%|" not in words


def test_who_asks_for_bars_has_them_in_a_log_too(tmp_path, tiny_ml100k):
    assert "\r" in run(tmp_path, tiny_ml100k, '{"show_progress": True}').stderr.decode()


def test_a_terminal_has_bars(tmp_path, tiny_ml100k):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))  # on one of no height tqdm draws nothing
    run(tmp_path, tiny_ml100k, '{"state": "error"}', stderr=theirs)
    os.close(theirs)
    words = b""
    with contextlib.suppress(OSError):  # which is how a terminal says that nobody writes to it any more
        while part := os.read(ours, 4096):
            words += part
    os.close(ours)
    assert b"%|" in words
