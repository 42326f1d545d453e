"""Whose folder a run's is, and which data its rows belong to."""

import threading
from datetime import datetime
from pathlib import Path

import pytest

from recbole_stream.errors import InputError
from recbole_stream.host.run import folder, runner
from recbole_stream.host.run.commands import main
from recbole_stream.host.run.folder import begin_run, open_folder
from recbole_stream.reporting.results import read_results


class OneSecond(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 26, 12, 30, 15)


def test_runs_that_begin_in_one_second_have_folders_of_their_own(monkeypatch):
    monkeypatch.setattr(folder, "datetime", OneSecond)
    together, names = threading.Barrier(4), []

    def begin():
        with open_folder({"model": ["TIGER"]}, ["run"]) as (own, *_):
            names.append(own)
            begin_run(own, {}, ["run"])
            together.wait(30)  # all four are live at once

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = "results/ml-100k-TIGER-20261126-123015"
    assert sorted(map(str, names)) == [first, f"{first}-2", f"{first}-3", f"{first}-4"]


def test_a_folder_that_a_live_run_writes_is_refused_and_is_free_again_after_it(monkeypatch, capsys):
    monkeypatch.setattr(folder, "_SECONDS", 0.1)
    message = "out belongs to a run that is still going: wait for its end, or stop it."
    with open_folder({"output_dir": "out"}, ["run"]) as (own, *_):
        assert main(["--model=TIGER", "--output_dir=out"]) == 2  # which has not begun yet
        assert message in capsys.readouterr().err
        begin_run(own, {"model": ["TIGER"]}, ["run"])
        assert main(["--resume=out"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    with open_folder({"resume": "out"}, ["again"]) as (own, options, command):
        assert (str(own), options, command) == ("out", {"model": ["TIGER"]}, ["run"])
    with pytest.raises(InputError, match="already holds a run"), open_folder({"output_dir": "out"}, ["run"]):
        pass


def test_a_folder_in_which_no_run_began_is_left_as_it_was():
    Path("there").mkdir()
    for name in ("new", "there"):
        with pytest.raises(InputError), open_folder({"output_dir": name}, ["run"]):
            raise InputError("a wrong key")
    assert not Path("new").exists() and Path("there").is_dir()


def test_a_run_does_not_go_on_with_other_data(tiny_ml100k, monkeypatch, capsys):
    data, more = Path(tiny_ml100k, "tiny", "tiny.inter"), Path("more.yaml")
    more.write_text(
        "{n_layers: 1, hidden_size: 8, embedding_size: 8, inner_size: 8, MAX_ITEM_LIST_LENGTH: 5, epochs: 1, "
        "train_batch_size: 4096, show_progress: False, use_gpu: False}"
    )
    train = runner.run_job

    def only_the_first(config, *others):
        if config["model"] == "SASRec":
            raise KeyboardInterrupt
        return train(config, *others)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_job", only_the_first)
        command = ["--model=GRU4Rec,SASRec", "--dataset=tiny", f"--data_path={tiny_ml100k}", f"--config_files={more}"]
        assert main([*command, "--output_dir=out"]) == 130
    capsys.readouterr()
    for file, text in ((data, "1\t1\t5\t999999999\n"), (more, "\n")):
        before = file.read_text()
        file.write_text(before + text)
        assert main(["--resume=out"]) == 2
        error = capsys.readouterr().err
        assert f"{file.name} has changed since out began" in error and error.count("\n") == 1
        file.write_text(before)
    assert [row.model for row in read_results("out")] == ["GRU4Rec"]
    assert main(["--resume=out"]) == 0
    assert [row.model for row in read_results("out")] == ["GRU4Rec", "SASRec"]
