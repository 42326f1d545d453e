import logging
import os
import random

import numpy as np
import pytest
import torch

from recbole_stream.training.checkpoint import Progress, load_checkpoint, random_state, save_checkpoint
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


def test_changed_bytes_are_noticed(tmp_path, caplog):
    path = tmp_path / "state.pth"
    save_checkpoint(STATE, path)
    content = bytearray(path.read_bytes())
    content[content.index(STATE["weights"].numpy().tobytes()) + 400] ^= 1  # one bit of weight 100
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(path) is None
    assert "state.pth cannot be read" in caplog.text


class TestProgress:
    @pytest.fixture
    def file(self, tmp_path):
        return tmp_path / "stage-0.pth"

    def test_the_last_state_comes_back_with_all_random_states(self, file):
        progress = Progress(file)
        progress.save({"epoch": 1})
        first = random.random(), np.random.rand(), torch.rand(()).item()
        assert Progress(file).load() == {"epoch": 1}
        assert (random.random(), np.random.rand(), torch.rand(()).item()) == first

    def test_nothing_kept_is_none_and_draws_nothing(self, file):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        assert Progress(file).load() is None
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("fault", ["torn", "foreign", "something else", "missing"])
    def test_instead_of_a_useless_state_the_previous_one_is_taken(self, file, fault, caplog):
        progress = Progress(file, owner="SASRec")
        progress.save({"epoch": 1})
        progress.save({"epoch": 2})
        if fault == "torn":
            file.write_bytes(file.read_bytes()[:-100])
        elif fault == "foreign":
            elsewhere = Progress(file.with_name("other.pth"), owner="GRU4Rec")
            elsewhere.save({"epoch": 5})
            os.replace(elsewhere.file, file)
        elif fault == "something else":
            save_checkpoint(torch.zeros(3), file)
        else:  # killed between the two renames
            file.unlink()
        with caplog.at_level(logging.WARNING):
            assert Progress(file, owner="SASRec").load() == {"epoch": 1}
        words = {"torn": "cannot be read", "missing": ""}.get(fault, "belongs to another run")
        assert words in caplog.text
        # and from there it goes on
        Progress(file, owner="SASRec").save({"epoch": 3})
        assert Progress(file, owner="SASRec").load() == {"epoch": 3}

    def test_a_torn_state_never_becomes_the_previous_one(self, file):
        progress = Progress(file)
        progress.save({"epoch": 1})
        progress.save({"epoch": 2})
        file.write_bytes(b"torn")
        again = Progress(file)
        assert again.load() == {"epoch": 1}
        again.save({"epoch": 3})
        file.unlink()  # killed between the two renames of the next save
        assert Progress(file).load() == {"epoch": 1}

    def test_a_state_of_two_processes_goes_on_in_one_with_a_warning(self, file, caplog):
        torch.manual_seed(5)
        kept = [random_state(), None]  # of the second process: whatever it was
        first = torch.rand(())
        save_checkpoint({"owner": "", "random": kept, "state": {"epoch": 4}}, file)
        with caplog.at_level(logging.WARNING):
            assert Progress(file).load() == {"epoch": 4}
        assert torch.equal(torch.rand(()), first)
        assert "was kept by 2 processes and goes on with 1" in caplog.text

    def test_two_useless_states_are_none(self, file):
        Progress(file, owner="a").save({"epoch": 1})
        Progress(file, owner="a").save({"epoch": 2})
        assert Progress(file, owner="b").load() is None

    def test_is_due_after_its_seconds(self, file):
        assert Progress(file, seconds=0.0).due()
        assert not Progress(file, seconds=3600.0).due()
