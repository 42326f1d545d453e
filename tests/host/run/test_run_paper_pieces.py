"""``--preset=paper`` on a set that brings its IDs and no text, in pieces: it ends as if it had never been interrupted."""

import json
from pathlib import Path

import pytest
import torch

from recbole_stream.host.run.commands import main
from tests.host.conftest import SMALL

STEPS = 9  # of all optimisers, in a piece; 7 an epoch of TIGER and of the first two stages, 4 of reinforcement
REPLACED = (
    "--codebook", "--text_fields", "--dataset", "--matching", "--candidates", "--finetune", "--pretrain", "--epochs",
    "--reinforce_batch",
)  # fmt: skip
PAPER = [
    "--model=STREAMRec", "--preset=paper", "--semantic_ids_file=ids.tsv", "--train_batch_size=640", "--epochs=2",
    "--pretrain_epochs=2", "--finetune_epochs=2", "--collect_rounds=2", "--collect_epochs=1", "--save_seconds=0",
    "--reinforce_batch_size=16", "--dataset=tiny",
]  # fmt: skip


def own_ids(data_path):
    """Five codes an item from one vocabulary, some IDs twice, as those of Instruments."""
    lines = Path(data_path, "tiny", "tiny.item").read_text(encoding="utf-8").splitlines()[1:]
    items = [line.split("\t")[0] for line in lines]
    rows = [[n % 7, 7 + n // 7 % 6, 13 + n // 42 % 5, 18 + n // 210 % 3, 21] for n in range(len(items))]
    rows[1] = rows[0]
    text = "\n".join("\t".join([item, *map(str, row)]) for item, row in zip(items, rows))
    head = "\t".join(["item_id", *(f"code_{level}" for level in range(5))])
    Path(data_path, "tiny", "ids.tsv").write_text(f"{head}\n{text}\n")


def rows(folder):
    times = ("train_seconds", "rank_seconds_per_1000_users", "run")
    written = json.loads(Path(folder, "results.json").read_text())
    return [{name: value for name, value in row.items() if name not in times} for row in written]


@pytest.mark.long
def test_it_goes_on_piece_after_piece(module_tinier_ml100k, monkeypatch):
    own_ids(module_tinier_ml100k)
    small = [option for option in SMALL if not option.startswith(REPLACED)]
    command = [*small, *PAPER, f"--data_path={module_tinier_ml100k}"]
    assert main([*command, "--output_dir=whole"]) == 0

    stock, pieces = torch.nn.utils.clip_grad_norm_, 0
    while not Path("pieces/results.json").is_file() or len(rows("pieces")) < 4:
        taken = 0

        def step(*arguments, **named):
            nonlocal taken
            taken += 1
            if taken > STEPS:
                raise KeyboardInterrupt
            return stock(*arguments, **named)

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", step)
        status = main(["--resume=pieces"] if pieces else [*command, "--output_dir=pieces"])
        assert status in (0, 130)
        pieces += 1
    assert pieces > 4
    assert [(row["model"], row["stage"]) for row in rows("whole")] == [
        ("TIGER", ""), ("STREAMRec", "PT"), ("STREAMRec", "SFT"), ("STREAMRec", "RL"),
    ]  # fmt: skip
    assert rows("pieces") == rows("whole")
