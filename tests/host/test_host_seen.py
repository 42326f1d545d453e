"""leave_out_seen: the same rule for a model of RecBole's and for ours."""

import json
from pathlib import Path

import pandas as pd
import torch

from recbole_stream.host.models import TIGER
from recbole_stream.host.run.commands import main
from recbole_stream.host.seen import leave_out_seen

ARGUMENTS = [
    "--dataset=tiny", "--text_fields=[movie_title]", "--codebook_size=32", "--codebook_levels=3", "--hidden_size=16",
    "--inner_size=32", "--n_heads=2", "--head_size=8", "--encoder_layers=1", "--decoder_layers=1", "--beam_size=40",
    "--epochs=1", "--show_progress=False", "--use_gpu=False",
]  # fmt: skip


class Popular(torch.nn.Module):
    """Scores items by their id, whatever the history."""

    ITEM_SEQ = "history"

    def full_sort_predict(self, interaction):
        return torch.arange(6.0).repeat(len(interaction["history"]), 1)


def test_only_the_items_of_the_history_are_left_out():
    model = Popular()
    leave_out_seen(model)
    scores = model.full_sort_predict({"history": torch.tensor([[5, 3, 0], [1, 0, 0]])})
    best = scores.topk(2).indices
    assert best.tolist() == [[4, 2], [5, 4]]


def test_a_search_gives_as_many_unseen_items_as_asked_for():
    class Search(TIGER):
        def __init__(self):  # no network: the search alone
            torch.nn.Module.__init__(self)
            self.beams, self.ITEM_SEQ = 5, "history"

        def rank(self, histories, top=None):
            items = torch.arange(1, 1 + top).repeat(len(histories), 1)
            return items, -items.float()

    model = Search()
    leave_out_seen(model)
    items, scores = model.rank(torch.tensor([[1, 3, 0], [9, 0, 0]]), 3)
    assert items.tolist() == [[2, 4, 5], [1, 2, 3]] and scores.tolist() == [[-2, -4, -5], [-1, -2, -3]]


def test_a_run_ranks_unseen_items_higher(tiny_ml100k):
    for folder, key in (("all", "False"), ("unseen", "True")):
        arguments = ["--model=SASRec,TIGER", f"--output_dir={folder}", f"--leave_out_seen={key}", "--topk=[10,20]"]
        assert main([*arguments, *ARGUMENTS, f"--data_path={tiny_ml100k}"]) == 0
    for name in ("SASRec", "TIGER"):
        everything, unseen = (pd.read_parquet(f"{f}/ranks/{name}-seed2020.parquet")["rank"] for f in ("all", "unseen"))
        # the same weights of one epoch: without a user's own items no target of ml-100k, which has no repeats, falls
        both = everything.notna() & unseen.notna()
        assert both.any() and (unseen[both] <= everything[both]).all()
        if name == "SASRec":  # which ranks the whole catalogue: most targets rise
            assert (unseen[both] < everything[both]).mean() > 0.5
        assert unseen.notna().sum() >= everything.notna().sum()
    for row in json.loads(Path("unseen/results.json").read_text()):
        assert row["run"]["configuration"]["leave_out_seen"] is True


def test_a_value_that_is_not_a_switch_is_refused(tiny_ml100k, capsys):
    assert main(["--model=SASRec", "--leave_out_seen=maybe", f"--data_path={tiny_ml100k}", *ARGUMENTS[:1]]) == 2
    assert "leave_out_seen is 'maybe'" in capsys.readouterr().err
