"""The one writer of files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recbole_stream.errors import InputError
from recbole_stream.files import remove_halves, whole_file, write_text
from recbole_stream.training.checkpoint import load_checkpoint, save_checkpoint


def test_replaces_and_leaves_nothing_beside(tmp_path):
    for text in ("one", "zwei: ä"):
        write_text(tmp_path / "new" / "table.md", text)
    assert (tmp_path / "new" / "table.md").read_text(encoding="utf-8") == "zwei: ä"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["table.md"]


def test_who_is_reading_gets_the_old_file_to_its_end(tmp_path):
    write_text(tmp_path / "table.md", "old")
    with open(tmp_path / "table.md") as reader:
        write_text(tmp_path / "table.md", "new text")
        assert reader.read() == "old"


def test_a_failed_write_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "table.md", "old")
    with pytest.raises(UnicodeEncodeError):  # a lone surrogate has no UTF-8
        write_text(tmp_path / "table.md", "new \ud800")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "table.md") as file:
        file.write(b"half")
        1 / 0
    assert (tmp_path / "table.md").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


def test_a_kill_keeps_the_old_file_and_what_it_leaves_is_removed(tmp_path):
    write_text(tmp_path / "table.md", "old")
    killed = (
        "import os, signal, sys\nfrom recbole_stream.files import whole_file\n"
        "with whole_file(sys.argv[1]) as file:\n    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", killed, tmp_path / "table.md"], env={"PYTHONPATH": str(root)})
    assert done.returncode == -9
    assert (tmp_path / "table.md").read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    remove_halves(tmp_path.parent)
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_full_disk_is_one_sentence(tmp_path, size):
    """torch's own writer ends in an assertion there."""
    save_checkpoint({"old": 1}, tmp_path / "model.pth")
    (tmp_path / f".model.pth.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(InputError, match="There is no space left on the disk to write .*model.pth: free some"):
        save_checkpoint({"new": torch.zeros(size)}, tmp_path / "model.pth")
    assert load_checkpoint(tmp_path / "model.pth") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
