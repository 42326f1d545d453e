"""ReaRec inside RecBole: its steps against a pass over everything, SASRec with no step, and a run."""

import json

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender.sasrec import SASRec
from recbole.utils import get_model, init_seed

from recbole_stream.host.run.commands import main
from recbole_stream.model.rivals.rearec import ranking_state

KEYS = {
    "dataset": "tiny", "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None,
    "hidden_size": 8, "inner_size": 16, "MAX_ITEM_LIST_LENGTH": 6, "use_gpu": False,
}  # fmt: skip


@pytest.fixture
def made(tiny_ml100k):
    def make(**keys):
        config = Config(model="ReaRec", config_dict=KEYS | {"data_path": tiny_ml100k} | keys)
        init_seed(1, True)
        return config, data_preparation(config, create_dataset(config))[0]._dataset

    return make


def some(n_items: int) -> Interaction:
    histories = torch.tensor([[3, 1, 4, 0, 0, 0], [2, 7, 1, 8, 2, 8], [5, 0, 0, 0, 0, 0]])
    assert n_items > 8
    lengths = (histories > 0).sum(1)
    return Interaction({"item_id_list": histories, "item_length": lengths, "item_id": torch.tensor([6, 3, 2])})


def test_without_steps_it_is_sasrec(made):
    config, dataset = made(rearec_steps=0)
    model, sasrec = get_model("ReaRec")(config, dataset).eval(), SASRec(config, dataset).eval()
    sasrec.load_state_dict({name: value for name, value in model.state_dict().items() if "step_" not in name})
    batch = some(model.n_items)
    assert torch.equal(model.full_sort_predict(batch), sasrec.full_sort_predict(batch))
    torch.testing.assert_close(model.calculate_loss(batch), sasrec.calculate_loss(batch))


@pytest.mark.parametrize("way", ["erl", "prl"])
def test_each_step_is_the_last_position_of_a_pass_over_history_and_earlier_steps(made, way):
    config, dataset = made(rearec=way, rearec_steps=3)
    model = get_model("ReaRec")(config, dataset).eval()
    torch.nn.init.normal_(model.step_embedding.weight)
    batch = some(model.n_items)
    scores = model.full_sort_predict(batch)
    for row in range(3):
        length = int(batch["item_length"][row])
        history = batch["item_id_list"][row, :length]  # no padding: nothing is masked but the future
        inputs = (model.item_embedding(history) + model.position_embedding.weight[:length])[None]
        states = []
        for step in range(4):
            hidden = model.LayerNorm(inputs)
            mask = torch.full((inputs.shape[1],) * 2, -10000.0).triu(1)[None, None]
            states.append(model.trm_encoder(hidden, mask, output_all_encoded_layers=False)[-1][:, -1])
            if step < 3:
                inputs = torch.cat([inputs, (states[-1] + model.step_embedding.weight[step])[:, None]], 1)
        expected = ranking_state(torch.stack(states, 1), way) @ model.item_embedding.weight.T
        torch.testing.assert_close(scores[row], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["erl", "prl"])
def test_training_moves_the_step_embeddings(made, way):
    config, dataset = made(rearec=way, rearec_steps=2)
    model = get_model("ReaRec")(config, dataset).train()
    model.calculate_loss(some(model.n_items)).backward()
    assert (model.step_embedding.weight.grad.abs().sum(1) > 0).all()


def test_a_run_gives_a_row(tiny_ml100k, tmp_path):
    users = [str(user) for user in range(1, 13)]
    command = [
        "--model=ReaRec", "--dataset=tiny", f"--data_path={tiny_ml100k}", f"--val_interval={{user_id: {users}}}",
        "--rearec=prl", "--epochs=2", "--hidden_size=8", "--inner_size=16", "--n_layers=1", "--show_progress=False",
        "--state=warning", "--output_dir=out",
    ]  # fmt: skip
    assert main(command) == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())
    keys = row["run"]["configuration"]
    assert (row["model"], keys["rearec"], keys["rearec_steps"], keys["loss_type"]) == ("ReaRec", "prl", 2, "CE")
    assert 0 <= row["test"]["ndcg@10"] <= row["test"]["recall@10"] <= 1
