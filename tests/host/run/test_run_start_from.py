"""The key ``start_from``: stages from the checkpoint of another run."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from recbole.quick_start import load_data_and_model

from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.run.commands import main
from recbole_stream.training.finetune import Finetune
from tests.host.conftest import SMALL

pytestmark = pytest.mark.long
# without dropout nothing but the order of batches, traces and rollouts is drawn, each by the stage's own name
PLAIN = ["--model=STREAMRec", "--train_batch_size=2048", "--dropout=0", "--matching_dropout=0", "--finetune_epochs=2"]


@pytest.fixture(scope="module")
def plain(module_tinier_ml100k, cache):
    small = [option for option in SMALL if not option.startswith("--finetune_epochs")]
    return [*small, *PLAIN, f"--data_path={module_tinier_ml100k}", f"--cache_dir={cache}"]


@pytest.fixture(scope="module")
def whole(plain, tmp_path_factory):
    """The folder of a run of all four stages."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*plain, f"--output_dir={folder}"]) == 0
    return folder


def rows(folder):
    written = json.loads(Path(folder, "results.json").read_text())
    return {row["stage"]: row for row in written if row["model"] == "STREAMRec"}


def assert_same(run, whole, stages):
    """The rows of the stages are equal but for times, and so are the weights of all parts that both have."""
    for stage in stages:
        ours, theirs = rows(run)[stage], rows(whole)[stage]
        assert all(ours[name] == theirs[name] for name in ("valid", "test", "parameters")), stage
        files = (Path(folder, "checkpoints", f"STREAMRec-seed2020-{stage}.pth") for folder in (run, whole))
        weights, others = (torch.load(file, weights_only=False)["state_dict"] for file in files)
        assert len(weights) > 20 and weights.keys() <= others.keys()
        assert all(torch.equal(value, others[name]) for name, value in weights.items()), stage


def test_fine_tuning_goes_on_when_interrupted_and_ends_as_in_one_run(plain, whole, monkeypatch, caplog):
    caplog.set_level("INFO")
    prepare = Finetune.prepare

    def killed(stage, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return prepare(stage, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Finetune, "prepare", killed)
        options = [*plain, "--stages=[finetune, reinforce]", f"--start_from={whole}", "--output_dir=out"]
        assert main(options) == 130
    assert main(["--resume=out"]) == 0
    assert "SFT: resumed after 1 epochs" in caplog.text
    before, after = rows(whole), rows("out")
    assert list(after) == ["PT", "SFT", "RL"]
    assert_same("out", whole, after)
    # seconds count what the other run has spent, and each row says which
    assert after["PT"]["train_seconds"] == before["PT"]["train_seconds"] < after["SFT"]["train_seconds"]
    said, file = after["RL"]["run"]["start"], whole / "checkpoints" / "STREAMRec-seed2020-PT.pth"
    assert (said["stage"], Path(said["checkpoint"])) == ("PT", file)
    assert said["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not any("TIGER" in path.name for path in Path("out/checkpoints").iterdir())


def test_reinforcement_alone_starts_from_fine_tuning(plain, whole):
    assert main([*plain, "--stages=[reinforce]", f"--start_from={whole}", "--output_dir=out"]) == 0
    assert list(rows("out")) == ["SFT", "RL"]
    assert_same("out", whole, ["SFT", "RL"])


def test_the_tower_alone_starts_from_the_best_stage_and_needs_the_other_run_no_more(plain, whole):
    shutil.copytree(whole, "before")
    options = [option for option in plain if not option.startswith("--cache_dir")]
    assert main([*options, "--stages=[match]", "--start_from=before", "--cache_dir=empty", "--output_dir=out"]) == 0
    # IDs and vectors are those that the other run has computed
    assert not list(Path("empty").glob("*.npz"))
    assert Path("out/semantic_ids.tsv").read_bytes() == Path("before/semantic_ids.tsv").read_bytes()
    before, after = rows("before"), rows("out")
    best = max(("PT", "SFT", "RL"), key=lambda stage: before[stage]["valid"]["ndcg@10"])
    assert list(after) == [best, "States", "Deliberation"]
    assert_same("out", "before", after)
    shutil.rmtree("before")
    with quiet_argv():
        _, model, _, _, _, test = load_data_and_model("out/checkpoints/STREAMRec-seed2020-Deliberation.pth")
    model.eval()
    samples = samples_of(test._dataset)
    items, _ = model.rank(samples.histories.to_dense(), 10)
    recall = (items == samples.targets[:, None]).any(1).float().mean()
    assert after["Deliberation"]["test"]["recall@10"] == pytest.approx(float(recall), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages=[finetune]", "--start_from=nowhere"], "nowhere/results.json does not exist"),
        (["--stages=[finetune]"], "finetune needs pretrain: add that, or name a run that has it as start_from"),
        (["--start_from=RUN"], "pretrain, the first of stages, starts from nothing"),
        (["--stages=[match]", "--start_from=RUN", "--seed=7"], "PT or SFT or RL with seed 7, but RUN has of STREAMRec"),
        (["--stages=[match]", "--start_from=RUN", "--hidden_size=32"], "other sizes, hidden_size being 16 and here 32"),
        (
            ["--stages=[match]", "--start_from=RUN", "--codebook_size=64"],
            "other semantic IDs, codebook_size being 32 and here 64",
        ),
        (
            ["--stages=[match]", "--start_from=RUN", "--valid_metric=MRR@10", "--metrics=[MRR]"],
            "not validated by mrr@10",
        ),
        (
            ["--stages=[match]", "--start_from=RUN", "--user_inter_num_interval=[9,inf)"],
            "other data, user_inter_num_interval being",
        ),
    ],
)
def test_what_cannot_fit_is_refused_in_one_sentence(plain, whole, arguments, message, capsys):
    names = {argument.partition("=")[0] for argument in arguments}
    options = [option for option in plain if option.partition("=")[0] not in names]
    assert main([*options, *(argument.replace("RUN", str(whole)) for argument in arguments), "--output_dir=out"]) == 2
    error = capsys.readouterr().err
    assert message.replace("RUN", str(whole)) in error and error.count("\n") == 1
    assert not Path("out").exists()


class TestOtherRuns:
    """Copies of the run, each with one thing changed."""

    @pytest.fixture
    def copy(self, whole):
        shutil.copytree(whole, "copy")
        return Path("copy")

    def refused(self, plain, message, capsys, stages="[reinforce]"):
        assert main([*plain, f"--stages={stages}", "--start_from=copy", "--output_dir=out"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

    def test_a_stage_is_missing(self, plain, copy, capsys):
        left = [row for row in json.loads((copy / "results.json").read_text()) if row["stage"] != "SFT"]
        (copy / "results.json").write_text(json.dumps(left))
        self.refused(plain, "reinforce starts from SFT with seed 2020, but copy has of STREAMRec only: PT", capsys)

    def test_a_checkpoint_is_missing(self, plain, copy, capsys):
        (copy / "checkpoints" / "STREAMRec-seed2020-SFT.pth").unlink()
        self.refused(plain, "STREAMRec-seed2020-SFT.pth is not there, from which reinforce would start", capsys)

    def test_a_checkpoint_is_damaged(self, plain, copy, capsys):
        file = copy / "checkpoints" / "STREAMRec-seed2020-SFT.pth"
        file.write_bytes(file.read_bytes()[:1000])
        self.refused(plain, "STREAMRec-seed2020-SFT.pth is damaged: train that stage again.", capsys)

    def test_the_data_are_others(self, plain, copy, capsys):
        record = json.loads((copy / "data.json").read_text())
        (copy / "data.json").write_text(json.dumps(record | {"tiny.inter": "0" * 64}))
        self.refused(plain, "tiny.inter is another file than copy was trained on", capsys)
