import logging

import pytest
import torch

from recbole_stream.training.checkpoint import load_checkpoint, save_checkpoint
from recbole_stream.training.loop import StageResult

STATE = {"weights": torch.arange(1000.0), "epoch": 3, "result": StageResult("SFT", {"ndcg@10": 0.25}, epoch=2)}


def test_what_was_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "folder" / "state.pth"
    save_checkpoint(STATE, path)
    state = load_checkpoint(str(path))
    assert torch.equal(state["weights"], STATE["weights"])
    assert (state["epoch"], state["result"]) == (3, STATE["result"])
    assert [file.name for file in path.parent.iterdir()] == ["state.pth"]


def test_no_file_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "state.pth") is None


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_a_torn_file_is_none_with_a_warning(tmp_path, caplog, kept):
    path = tmp_path / "state.pth"
    save_checkpoint(STATE, path)
    path.write_bytes(path.read_bytes()[:kept])
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(path) is None
    assert "state.pth cannot be read" in caplog.text


class Unsaveable:
    """Fails while it is written, after some of the state is out."""

    def __reduce__(self):
        raise RuntimeError("killed")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "state.pth"
    save_checkpoint({"epoch": 1}, path)
    with pytest.raises(RuntimeError, match="killed"):
        save_checkpoint({"weights": torch.zeros(1000), "last": Unsaveable()}, path)
    assert load_checkpoint(path) == {"epoch": 1}


def test_the_old_checkpoint_is_never_written_into(tmp_path):
    path = tmp_path / "state.pth"
    save_checkpoint({"epoch": 1}, path)
    with path.open("rb") as old:
        save_checkpoint({"epoch": 2}, path)
        # the new one took the name of the old one in one step: who has that open still reads all of it
        assert torch.load(old, weights_only=False) == {"epoch": 1}
    assert load_checkpoint(path) == {"epoch": 2}
