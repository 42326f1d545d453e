"""The folder is what a model hub holds: huggingface_hub uploads and downloads it as it is."""

import json
import shutil

from huggingface_hub import ModelCard
from parts import make_parts

from recbole_stream.serving.card import model_card
from recbole_stream.serving.folder import write_model
from recbole_stream.serving.recommender import Recommender


def test_the_card_is_read_and_a_copy_opens(tmp_path):
    parts = make_parts("states")
    parts.card = model_card(
        {
            "model": "STREAMRec", "stage": "States", "dataset": "toy", "seed": 1, "items": 40, "users": 2,
            "test": {"ndcg@10": 0.25, "recall@10": 0.5}, "valid": {"ndcg@10": 0.3}, "protocol": "All items are ranked.",
            "command": "python run_recbole.py", "date": "2026-11-26", "hardware": "a CPU", "encoder": None,
            "parameters": 10,
        }
    )  # fmt: skip
    folder = write_model(tmp_path / "model", parts)
    card = ModelCard.load(folder / "README.md")
    result = {found.metric_type: found.metric_value for found in card.data.eval_results}
    assert result == {"ndcg@10": 0.25, "recall@10": 0.5}
    assert card.data.library_name == "recbole-stream"
    assert card.data.datasets == ["toy"]
    copy = tmp_path / "snapshot"
    shutil.copytree(folder, copy)
    assert Recommender.load(copy).recommend([["i1"]], k=3).equals(Recommender.load(folder).recommend([["i1"]], k=3))
    assert json.loads((copy / "config.json").read_text())["format"] == "recbole-stream-model"
    assert not [path for path in copy.iterdir() if path.suffix in (".pkl", ".pth", ".bin", ".npy", ".npz")]
