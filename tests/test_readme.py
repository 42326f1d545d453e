"""The README's commands: what they install is what .ci/run installs, and what they run runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import start

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
# the same stages on the same data with a network that trains in seconds
SMALL = [
    "--hidden_size=8", "--inner_size=8", "--n_heads=1", "--head_size=8", "--encoder_layers=1", "--decoder_layers=1",
    "--train_batch_size=4096", "--pretrain_epochs=1", "--finetune_epochs=1", "--reinforce_epochs=1",
    "--matching_epochs=1", "--epochs=1", "--pointer_size=0",
    "--reinforce_samples=128", "--group_size=4", "--beam_size=10", "--show_progress=False", "--output_dir=out",
]  # fmt: skip


def test_the_first_two_commands_set_up_and_run_and_set_up_and_test():
    assert [block.strip() for block in BLOCKS[:2]] == ["python3 start.py", "python3 start.py test"]


def test_the_way_with_plain_pip_installs_what_the_command_does():
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    _, extras, _ = start.TASKS["run"]
    for line in (f"pip install --no-deps {start.RECBOLE}", f'pip install -c requirements.txt -e ".[{extras}]"'):
        assert f"\n{line}\n" in page


@pytest.mark.parametrize(
    "command, stages",
    [
        (start.FIRST_LOOK, [("SASRec", ""), ("TIGER", ""), ("STREAMRec", "States"), ("STREAMRec", "Deliberation")]),
        pytest.param(
            start.LONG_RUN.split("} ")[-1].split(),
            [("TIGER", ""), *(("STREAMRec", stage) for stage in ("PT", "SFT", "RL", "States", "Deliberation"))],
            marks=pytest.mark.long,
        ),
    ],
    ids=["first look", "long run"],
)
@pytest.mark.slow
def test_the_runs_train_on_ml_100k_and_write_the_table(tmp_path, command, stages):
    command = [word.replace("properties/", f"{ROOT}/properties/") for word in command]
    done = subprocess.run(
        [sys.executable, str(ROOT / command[0]), *command[1:], *SMALL],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(row["model"], row["stage"]) for row in rows] == stages
    ours = [row for row in rows if row["model"] != "SASRec"]
    assert all(row["dataset"] == "ml-100k" and "MiniLM" in row["run"]["encoder"]["encoder"] for row in ours)
    assert "Recall@10" in done.stdout


def test_keys_that_the_readme_names_exist():
    from recbole_stream.host.configuration import known_keys

    of_the_run = {"model", "dataset", "output_dir", "resume", "debug", "key", "config_files", "seeds", "trials"}
    named = set(re.findall(r"`--([a-z_]+)", (ROOT / "README.md").read_text()))
    assert named and named <= known_keys("STREAMRec") | of_the_run


def test_every_key_of_a_model_file_has_a_rule_or_is_recboles():
    import recbole
    import yaml
    from recbole.utils import argument_list

    from recbole_stream.host.keys import RULES, SHARED_RULES

    theirs = {*argument_list.general_arguments, *argument_list.training_arguments, *argument_list.evaluation_arguments,
              *argument_list.dataset_arguments}  # fmt: skip
    sasrec = Path(recbole.__file__).parent / "properties" / "model" / "SASRec.yaml"  # ReaRec is one
    theirs |= set(yaml.safe_load(sasrec.read_text()))
    for file in (ROOT / "properties" / "model").glob("*.yaml"):
        assert set(yaml.safe_load(file.read_text())) <= set(RULES) | theirs, file
    files = [file for file in (ROOT / "properties" / "model").glob("*.yaml") if "-" not in file.stem]  # no presets
    written = {key for file in files for key in yaml.safe_load(file.read_text())}
    # text_fields belongs to the data set; what all models share stands in run.yaml, where RecBole has no such key
    assert set(RULES) - written == {"text_fields", *SHARED_RULES} - written
    assert set(SHARED_RULES) - theirs <= set(yaml.safe_load((ROOT / "properties/run.yaml").read_text()))


def test_the_broken_readings_are_valid_keys_that_differ_from_the_default():
    import yaml

    from recbole_stream.host.keys import RULES

    broken = yaml.safe_load((ROOT / "properties/ablation/broken-readings.yaml").read_text())
    default = yaml.safe_load((ROOT / "properties/model/STREAMRec.yaml").read_text())
    assert broken and all(RULES[key].accepts(value) and value != default[key] for key, value in broken.items())
