"""Every Python example of the pages runs as it stands, in a folder that holds what the pages speak of.

An example may take for granted: ``results/RUN``, the folder of a run of STREAMRec (and TIGER) on ml-100k with seed 2020,
and the user "196". Nothing else is there, and examples know nothing of each other.
"""

import re
import sys
from pathlib import Path

import pytest
import recbole

from recbole_stream.host.run.commands import main

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "results").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("dataset", "speed")), *sorted((ROOT / "experiments").glob("*.md")),
]  # fmt: skip
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples():
    """(page, line above the code, code) of each example, under the name of page and line."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            line = text.count("\n", 0, found.start(1))
            yield pytest.param(page, line, found[1], id=f"{page.relative_to(ROOT).as_posix()}:{line}")


# ml-100k cut to 54 users, user 196 among them, and models that train in seconds; RecBole reads them from sys.argv too
SMALL = [
    "--user_inter_num_interval=[39,46)", "--hidden_size=8", "--inner_size=8", "--n_heads=1", "--head_size=8",
    "--encoder_layers=1", "--decoder_layers=1", "--codebook_size=16", "--codebook_levels=3", "--train_batch_size=2048",
    "--beam_size=10", "--epochs=1", "--pretrain_epochs=1", "--finetune_epochs=1", "--reinforce_epochs=1",
    "--matching_epochs=1", "--reinforce_samples=32", "--reinforce_batch_size=32", "--group_size=4", "--use_gpu=False",
    "--show_progress=False", "--pointer_size=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader who followed the pages would try the examples."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["pytest"])
        assert main(["--model=STREAMRec", "--output_dir=results/RUN", *SMALL]) == 0
    return folder


@pytest.mark.parametrize(("page", "line", "code"), [*examples()])
def test_an_example_runs(page, line, code, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["example.py", *SMALL])
    exec(compile("\n" * line + code, str(page), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out.strip()
    if "print(" in code:
        assert printed
    if page.name == "README.md":
        items = Path(recbole.__file__).parent / "dataset_example" / "ml-100k" / "ml-100k.item"
        titles = {line.split("\t")[1] for line in items.read_text(encoding="utf-8").splitlines()[1:]}
        assert sum(any(title in line for title in titles) for line in printed.splitlines()) >= 3


def test_readme_has_an_example():
    assert any(example.values[0].name == "README.md" for example in examples())
