"""Both models inside the stock RecBole: three stages, its evaluator, its checkpoints."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.trainer import Trainer
from recbole.utils import get_model, get_trainer, init_seed
from recbole.utils.case_study import full_sort_scores, full_sort_topk

from recbole_stream.decoding.rank import item_log_probs
from recbole_stream.errors import InputError
from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.dataset import samples_of
from recbole_stream.model.deliberation import RANKINGS

# small enough that three stages take seconds
SMALL = {
    "dataset": "tiny",
    "text_fields": ["movie_title", "class"],
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "MAX_ITEM_LIST_LENGTH": 20,
    "codebook_size": 32,
    "codebook_levels": 3,
    "hidden_size": 16,
    "inner_size": 32,
    "n_heads": 2,
    "head_size": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "beam_size": 10,
    "similar_items": 5,
    "reasoning_steps": 2,
    "epochs": 1,
    "pretrain_epochs": 1,
    "finetune_epochs": 1,
    "reinforce_epochs": 1,
    "matching_epochs": 1,
    "pointer_size": 0,
    "reinforce_samples": 64,
    "reinforce_batch_size": 32,
    "group_size": 4,
    "show_progress": False,
    "use_gpu": False,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Embeddings and semantic IDs, made once for all tests here."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def small(tiny_ml100k: str, cache: str, tmp_path: Path) -> dict:
    return SMALL | {"data_path": tiny_ml100k, "cache_dir": cache, "checkpoint_dir": str(tmp_path / "saved")}


def prepared(model: str, options: dict):
    config = Config(model=model, config_dict=dict(options))
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    network = get_model(model)(config, loaders[0]._dataset)
    return config, dataset, loaders, network


def test_stock_run_trains_all_stages_and_keeps_the_best(small, tmp_path):
    result = run_recbole(model="STREAMRec", config_dict=small)
    stages = sorted(path.name.rsplit("-", 1)[1] for path in (tmp_path / "saved").iterdir())
    assert stages == ["Deliberation.pth", "PT.pth", "RL.pth", "SFT.pth", "States.pth"]
    scores = [torch.load(path, weights_only=False)["best_valid_score"] for path in (tmp_path / "saved").iterdir()]
    assert result["best_valid_score"] == max(scores)
    assert 0 <= result["test_result"]["ndcg@10"] <= result["test_result"]["recall@10"] <= 1


def test_checkpoint_comes_back_and_recommends(small, tmp_path, monkeypatch):
    run_recbole(model="TIGER", config_dict=small)
    (file,) = (tmp_path / "saved").iterdir()
    # elsewhere the encoder would give other vectors, and the vectors other IDs
    monkeypatch.setattr("recbole_stream.host.dataset.encode_texts", lambda *given, **keys: pytest.fail("made anew"))
    file = file.rename(tmp_path / "alone.pth")
    config, model, dataset, _, _, test_data = load_data_and_model(str(file))
    scores, items = full_sort_topk(np.array([1, 2]), model, test_data, k=10, device="cpu")
    assert items.shape == (2, 10) and (items > 0).all()
    assert all(len(set(row.tolist())) == 10 for row in items)
    all_scores = full_sort_scores(np.array([1, 2]), model, test_data, device="cpu")
    assert torch.isfinite(all_scores[:, 1:]).all()


def rig(model, data) -> torch.Tensor:
    """Give each user the item that the model puts at the user's place, 1, 2, .., 13, 1, 2, ..; returns the places."""
    model.eval()
    ranked, _ = model.rank(samples_of(data._dataset).histories.to_dense(), 13)
    places = 1 + torch.arange(len(ranked)) % 13
    data._dataset.inter_feat.interaction["item_id"] = ranked.gather(1, places[:, None] - 1)[:, 0]
    return places


@pytest.mark.parametrize("name", ["TIGER", "STREAMRec"])
def test_our_evaluation_equals_recboles(small, name):
    # RecBole's way scores every item: beams alone may miss one
    keys = {"search": "exact", "metrics": ["Recall", "NDCG", "MRR"], "topk": [5, 10], "beam_size": 20}
    config, _, (_, valid_data, _), model = prepared(name, small | keys)
    places = rig(model, valid_data)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    ours = trainer.evaluate(valid_data, load_best_model=False)
    theirs = Trainer.evaluate(trainer, valid_data, load_best_model=False)
    assert dict(ours) == dict(theirs)
    for k in (5, 10):
        hit = (places <= k).double()
        by_hand = {"recall": hit, "ndcg": hit / (places + 1.0).log2(), "mrr": hit / places}
        for metric, values in by_hand.items():
            assert ours[f"{metric}@{k}"] == pytest.approx(values.mean().item(), abs=1e-6), metric


@pytest.mark.parametrize(
    ("name", "ranking"), [("TIGER", "likelihood"), ("STREAMRec", "likelihood"), ("STREAMRec", "states")]
)
def test_metrics_beyond_hits_are_of_exact_scores_and_of_the_lists_that_are_recommended(small, name, ranking):
    further = ["GAUC", "ItemCoverage", "GiniIndex", "AveragePopularity"]
    options = small | {
        "topk": [10],
        "beam_size": 13,
        "metrics": ["Recall", "NDCG", *further],
        "valid_metric": "NDCG@10",
    }
    config, dataset, (train_data, valid_data, _), model = prepared(name, options)
    if name == "STREAMRec":
        rank_by(model, ranking)
    rig(model, valid_data)
    samples, n = samples_of(valid_data._dataset), dataset.item_num

    def measured(metrics):
        config["metrics"] = metrics
        trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
        trainer.eval_collector.data_collect(train_data)
        return trainer.evaluate(valid_data, load_best_model=False)

    found = measured(["Recall", "NDCG", *further])
    assert {name: found[name] for name in ("recall@10", "ndcg@10")} == dict(measured(["Recall", "NDCG"]))
    assert found["recall@10"] > 0.7

    with torch.no_grad():
        if ranking == "states":
            scores = model.network.deliberation.matcher(samples.histories.to_dense())[:, 1:]
        else:
            scores = item_log_probs(
                model.network, samples.histories.to_dense(), torch.arange(1, n).expand(len(samples), -1)
            )
    own = scores.gather(1, samples.targets[:, None] - 1)
    # the share of other items that the target beats; the target itself ties with itself, which is taken out
    auc = ((scores < own).sum(1) + ((scores == own).sum(1) - 1) / 2) / (n - 2)
    assert found["gauc"] == pytest.approx(auc.mean().item(), abs=1e-5)

    lists = model.rank(samples.histories.to_dense(), 10)[0].numpy()
    counts = np.bincount(lists.ravel(), minlength=n)  # RecBole counts the padding item as one that nobody is shown
    assert counts[0] == 0
    assert found["itemcoverage@10"] == pytest.approx((counts > 0).sum() / n, abs=1e-6)
    differences = np.abs(counts[:, None] - counts[None]).sum()
    assert found["giniindex@10"] == pytest.approx(differences / (2 * n * n * counts.mean()), abs=1e-6)
    popularity = np.bincount(train_data._dataset.inter_feat["item_id"].numpy(), minlength=n)
    assert found["averagepopularity@10"] == pytest.approx(popularity[lists].mean(), abs=1e-4)


@pytest.fixture(scope="module")
def untrained(module_tiny_ml100k: str, cache: str):
    """STREAMRec with random weights, whose search of 10 beams misses most items, and all test users' batches."""
    with quiet_argv():
        _, _, (_, _, test_data), model = prepared(
            "STREAMRec", SMALL | {"data_path": module_tiny_ml100k, "cache_dir": cache}
        )
    return model.eval(), test_data


def rank_by(model, ranking):
    model.network.deliberation.ranking.fill_(RANKINGS.index(ranking))
    return model


@pytest.mark.parametrize("ranking", RANKINGS)
def test_predict_is_the_score_of_full_sort(untrained, ranking):
    model, test_data = rank_by(untrained[0], ranking), untrained[1]
    batch = next(iter(test_data))[0]
    with torch.no_grad():
        full = model.full_sort_predict(batch)
        single = model.predict(batch)
    assert full.shape == (len(batch), model.n_items)
    torch.testing.assert_close(full.gather(1, batch["item_id"][:, None])[:, 0], single, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ranking", RANKINGS)
def test_more_items_than_beams_are_the_best_there_are(untrained, ranking):
    model, test_data = rank_by(untrained[0], ranking), untrained[1]
    users = np.array([1, 2, 3])
    scores, items = full_sort_topk(users, model, test_data, k=80, device="cpu")
    batch = test_data.dataset[:].to("cpu")
    batch = batch[[int((batch["user_id"] == user).nonzero()) for user in users]]
    for user in range(len(users)):  # every item by the model's own score of single items, best first
        own = Interaction({"item_id_list": batch["item_id_list"][user].expand(model.n_items - 1, -1)})
        own.update(Interaction({"item_id": torch.arange(1, model.n_items)}))
        with torch.no_grad():
            best = model.predict(own).sort(descending=True).values[:80]
        torch.testing.assert_close(scores[user], best, atol=1e-4, rtol=1e-4)
        assert len(items[user].unique()) == 80
    # 80 of a model's own door: a search as wide as that
    found, _ = model.rank(batch["item_id_list"], 80)
    shared = np.mean([len(set(ours.tolist()) & set(theirs.tolist())) / 80 for ours, theirs in zip(found, items)])
    assert found.shape == (3, 80) and (found > 0).all()
    assert shared == 1 if ranking == "states" else shared > 0.5


def test_an_exact_search_misses_nothing(module_tiny_ml100k, cache):
    options = SMALL | {"data_path": module_tiny_ml100k, "cache_dir": cache, "search": "exact", "beam_size": 10}
    _, _, (_, _, test_data), model = prepared("TIGER", options)
    batch = next(iter(test_data))[0]
    items, scores = model.eval().rank(batch["item_id_list"], 10)
    best = model.scores_of_all(batch).topk(10)
    torch.testing.assert_close(scores, best.values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ranking", RANKINGS)
def test_histories_may_be_padded_on_the_left_and_be_too_long(untrained, ranking):
    model, test_data = rank_by(untrained[0], ranking), untrained[1]
    batch = next(iter(test_data))[0]
    histories = batch["item_id_list"]
    long = torch.tensor([[5, 6, 7, *history[history > 0].tolist()] for history in histories if history[-1] > 0])
    kept = histories[histories[:, -1] > 0]
    assert long.shape[1] == 23 and len(kept)
    left = torch.stack([history.roll(int((history == 0).sum())) for history in histories])
    assert (left[:, -1] > 0).all()
    for given, same in ((left, histories), (long, kept)):
        targets = torch.arange(1, len(given) + 1)
        ours, theirs = (Interaction({"item_id_list": rows, "item_id": targets}) for rows in (given, same))
        with torch.no_grad():
            assert torch.equal(model.rank(given, 10)[0], model.rank(same, 10)[0])
            assert torch.equal(model.full_sort_predict(ours), model.full_sort_predict(theirs))
            assert torch.equal(model.predict(ours), model.predict(theirs))


@pytest.mark.parametrize("similar", [0, 2])
def test_loss_of_a_stock_batch_has_a_gradient(small, similar):
    _, _, (train_data, _, _), model = prepared("STREAMRec", small | {"pretrain_similar": similar})
    loss = model.calculate_loss(next(iter(train_data)))
    loss.backward()
    assert loss.item() > 0
    assert model.network.reference.encoder.norm.weight.grad is None  # frozen copies do not train
    direct = model.network.reference.decoder if similar else model.network.decoder
    assert direct.start.grad.abs().sum() > 0  # the direct decoder does


@pytest.mark.parametrize(("keys", "looked_for"), [({}, 0), ({"dpo_weight": 0.1}, 5), ({"pretrain_similar": 2}, 5)])
def test_similar_items_are_looked_for_where_something_reads_them(small, keys, looked_for):
    _, dataset, _, model = prepared("STREAMRec", small | keys)
    assert tuple(model.similar.shape) == (dataset.item_num, looked_for)
    if looked_for:
        assert torch.equal(model.similar, dataset.similar)
        closest = torch.nn.functional.cosine_similarity(dataset.text[1:], dataset.text[1:2])[1:].argmax() + 2
        assert dataset.similar[1, 0] == closest


def test_foreign_checkpoint_is_refused(small, tmp_path):
    _, _, _, model = prepared("TIGER", small)
    _, _, _, other = prepared("TIGER", small | {"seed": 7})
    with pytest.raises(InputError, match="other semantic IDs than were made here"):
        model.load_state_dict(other.state_dict())
    _, _, _, wider = prepared("TIGER", small | {"hidden_size": 24})
    with pytest.raises(InputError, match="other sizes"):
        model.load_state_dict(wider.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beam_size": 5}, "beam_size is 5, but topk asks for 10"),
        ({"pretrain_similar": 9, "similar_items": 5}, "pretrain_similar is 9, but similar_items keeps only 5"),
        ({"codebook_sise": 32}, "did you mean 'codebook_size'"),
        ({"tokenizer": "vq"}, "tokenizer is 'vq', but must be one of"),
        ({"reasoning_steps": 0}, "reasoning_steps is 0"),
        ({"text_fields": []}, "semantic_ids_file"),
        ({"text_fields": ["titel"]}, "titel"),
        ({"TIME_FIELD": "when"}, "has no column 'when'"),
        ({"dataset": "tini"}, "did you mean tiny"),
        ({"preset": "papyrus"}, "default, paper"),
        ({"reward_weights": {"format": 1}}, "reward_weights"),
    ],
)
def test_bad_input_stops_before_training_with_one_sentence(small, change, message):
    with pytest.raises(InputError, match=message) as caught:
        run_recbole(model="STREAMRec", config_dict=small | change)
    assert "\n" not in str(caught.value)


def test_users_with_too_few_interactions_are_named(small, tiny_ml100k):
    file = Path(tiny_ml100k) / "tiny" / "tiny.inter"
    file.write_text(file.read_text() + "stranger\t1\t3\t880000000\n")
    with pytest.raises(InputError, match=r"1 users of tiny have fewer than 3 interactions \(such as 'stranger'\)"):
        run_recbole(model="TIGER", config_dict=small)
    # the remedy that the sentence names works
    prepared("TIGER", small | {"user_inter_num_interval": "[3,inf)"})


def test_own_semantic_ids_are_used_and_their_collisions_resolved(small, tiny_ml100k):
    folder = Path(tiny_ml100k) / "tiny"
    items = [line.split("\t")[0] for line in (folder / "tiny.item").read_text().splitlines()[1:]]
    table = ["item_id\ta\tb\tc"] + [f"{item}\t{int(item) % 7}\t{int(item) % 5}\t{int(item) % 3}" for item in items]
    (folder / "ids.tsv").write_text("\n".join(table) + "\n")
    _, dataset, _, _ = prepared("TIGER", small | {"semantic_ids_file": "ids.tsv"})
    codes = dataset.semantic_ids.codes
    assert len(np.unique(codes, axis=0)) == len(codes) == dataset.item_num - 1
    first = dataset.field2id_token["item_id"][1]
    assert codes[0, 0] == int(first) % 7


def test_a_process_that_only_knows_stock_recbole(small):
    """The plugin is imported once; everything else is RecBole's own API."""
    code = f"import recbole_stream\nfrom recbole.quick_start import run_recbole\nprint('DONE', run_recbole(model='TIGER', config_dict={small!r})['best_valid_score'])"
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment(root))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "DONE" in done.stdout


def _environment(root: str) -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": root}


def test_interrupted_run_ends_with_the_same_weights(small, tmp_path):
    """Stop after Stage 1 and within Stage 2, go on: weights and metrics equal those of a run in one go."""

    class Stop(Exception):
        pass

    def stop_at(moment: int):
        calls = iter(range(100))

        def callback(epoch: int, score: float) -> None:
            if next(calls) == moment:
                raise Stop

        return callback

    options = small | {"finetune_epochs": 3, "pretrain_epochs": 2, "collect_rounds": 2, "collect_epochs": 2}

    def train(folder: str, callback=None):
        config, _, (train_data, valid_data, _), model = prepared("STREAMRec", options | {"resume_dir": folder})
        trainer = get_trainer(config["MODEL_TYPE"], "STREAMRec")(config, model)
        trainer.fit(train_data, valid_data, verbose=False, callback_fn=callback)
        return model.state_dict(), [stage.result.valid for stage in trainer.stages]

    whole_weights, whole_valid = train(str(tmp_path / "whole"))
    for moment in (0, 1):  # in Stage 1, then (after Stage 1's second epoch) in Stage 2
        with pytest.raises(Stop):
            train(str(tmp_path / "parts"), stop_at(moment))
    weights, valid = train(str(tmp_path / "parts"))
    assert valid == whole_valid
    assert all(torch.equal(weights[name], value) for name, value in whole_weights.items())
