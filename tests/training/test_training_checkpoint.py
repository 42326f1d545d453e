import logging
import multiprocessing

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


def _save_forever(path):
    epoch = 0
    while True:
        epoch = (epoch + 1) % 256
        # no tensors: a forked process must not start torch's threads again
        save_checkpoint({"epoch": epoch, "weights": bytes([epoch]) * 1_000_000}, path)


def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "state.pth"
    process = multiprocessing.get_context("fork").Process(target=_save_forever, args=(path,), daemon=True)
    process.start()
    while process.is_alive() and not path.exists():
        process.join(0.02)
    process.join(0.3)
    process.kill()
    process.join()
    state = load_checkpoint(path)
    assert state["weights"] == bytes([state["epoch"]]) * 1_000_000
