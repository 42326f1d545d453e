"""The experiments on a small stored run, and their parts by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import scaling
from experiments.__main__ import main
from experiments.controls import replace_traces, sum_of_two
from experiments.runs import load, metrics
from recbole_stream.decoding.beam import score_items
from recbole_stream.decoding.rank import thought
from recbole_stream.decoding.trie import Trie
from recbole_stream.host.run.commands import main as run_recbole
from recbole_stream.reporting.results import read_results
from recbole_stream.training.finetune import Finetune, FinetuneOptions
from recbole_stream.training.view_weights import ranks_among
from tests.helpers import catalogue, make_samples, random_histories, streamrec
from tests.host.conftest import SMALL

POINTED = [option for option in SMALL if not option.startswith("--pointer_size")]
SIZES = (4, 4, 4)
CODES = catalogue(20, SIZES)


class TestMetrics:
    def test_by_hand(self):
        found = metrics(np.array([1, 3, 11, np.inf]))
        assert found["recall@10"] == 0.5 and found["ndcg@10"] == pytest.approx((1 + 0.5) / 4)
        # gains 1, .5, 0, 0: variance (.390625 + .015625 + 2 * .140625) / 3, over the root of 4 users
        assert found["error"] == pytest.approx((0.6875 / 3) ** 0.5 / 2)


def objective(steps=2):
    model = streamrec(CODES, SIZES)
    samples = make_samples(random_histories(20, (3, 5, 2, 4)), torch.tensor([1, 2, 3, 4]))
    options = FinetuneOptions(steps, 1, 9, 0.0, 0.0, 0.0, 0.1, 0.25, "cosine", 0.1, False, 0.0)
    return Finetune(model, samples, torch.ones(21, 2, dtype=torch.long), options, 2, "float32", False)


class TestControls:
    def test_constant_tokens_are_the_same_for_all(self):
        stage = objective()
        replace_traces(stage, "constant", 1)
        stage.prepare(0)
        assert stage.traces.tolist() == [[0, 1]] * 4

    def test_random_tokens_differ_and_are_also_read_at_test_time(self):
        stage = objective(steps=3)
        replace_traces(stage, "random", 1)
        stage.prepare(0)
        assert len(stage.traces.unique()) > 3
        model = stage.model
        tokens, prefix = model.think(model.begin(stage.samples.histories))
        again, _ = model.think(model.begin(stage.samples.histories))
        assert tokens.shape == (4, 3) and not torch.equal(tokens, again)
        full = model.decoder(model.tokens.embedding(tokens)[:, None], model.memory(stage.samples.histories))
        assert torch.allclose(prefix.hidden, full, atol=1e-5)


@torch.no_grad()
def test_a_path_is_scored_as_its_model_scores_it_and_paths_are_averaged():
    model = streamrec(CODES, SIZES)
    samples = make_samples(random_histories(20, [3] * 40), torch.arange(40) % 20 + 1)
    rows, trie = torch.arange(40), Trie(CODES)
    # without reasoning every path is the same, so that their mean is the plain likelihood
    plain = score_items(thought(model, samples.histories), torch.arange(1, 21).expand(40, -1)).numpy()
    hits = (torch.arange(1, 21) == samples.targets[:, None]).numpy()
    expected = ranks_among(plain, hits)
    got = scaling.rank_by_steps(model, samples, rows, trie, 0)
    assert got.tolist() == expected.tolist()
    model.steps.fill_(1)
    torch.manual_seed(0)
    many = scaling.rank_by_paths(model, samples, rows[:4], trie, 400, 1)
    # one token of reasoning: the mean over samples comes near the sum over all tokens
    every = model.tokens.vocabulary
    exact = []
    for row in range(4):
        prefix = model.begin(samples.histories[row : row + 1])
        weights = prefix.log_probs()[0, 0]
        scores = [
            score_items(prefix.read(torch.tensor([[[token]]])), torch.arange(1, 21)[None])[0] + weights[token]
            for token in range(every)
        ]
        exact.append(torch.stack(scores).logsumexp(0).numpy())
    ranks = ranks_among(np.stack(exact), hits[:4])
    assert np.abs(many - ranks).max() <= 1


@pytest.fixture(scope="module")
def run(module_tinier_ml100k, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    options = [*POINTED, f"--data_path={module_tinier_ml100k}", f"--cache_dir={folder / 'cache'}"]
    assert run_recbole(["--model=STREAMRec", "--seeds=2020,2021", *options, f"--output_dir={folder / 'run'}"]) == 0
    return folder / "run"


class TestCommand:
    def test_ablation_is_what_the_command_gives_without_the_part(self, run, tmp_path, module_tinier_ml100k):
        assert main(["ablation", str(run)]) == 0
        table = pd.read_csv(run / "ablation-seed2020.csv", index_col="parts")
        views = ["likelihood", "matching", "transitions", "text", "repeats"]
        alone = [f"{view} and repeats, no verifier" for view in views[:-1]]
        assert list(table.index) == [
            "all",
            *(f"without {view}" for view in views),
            "without pointer",
            "without verifier",
            *alone,
        ]
        assert (
            table.loc["without transitions", "weight of transitions"],
            table.loc["without repeats", "weight of repeats"],
        ) == (0, 0)
        options = [
            *POINTED,
            f"--data_path={module_tinier_ml100k}",
            f"--cache_dir={run.parent / 'cache'}",
            "--seeds=2020",
        ]
        less = tmp_path / "less"
        assert run_recbole(["--model=STREAMRec", *options, "--views_off=[transitions]", f"--output_dir={less}"]) == 0
        for folder, line in ((run, "all"), (less, "without transitions")):
            rows = {r.stage: r for r in read_results(folder) if r.model == "STREAMRec" and r.seed == 2020}
            for split, found in (("valid", rows["Deliberation"].valid), ("test", rows["Deliberation"].test)):
                for metric in ("ndcg@10", "recall@10"):
                    assert table.loc[line, f"{split} {metric}"] == pytest.approx(found[metric], abs=1e-6)
        # three stages take no part any more
        assert table["train s"]["without likelihood"] < table["train s"]["all"]

    @pytest.mark.long
    def test_thinking_grows_from_a_state_to_the_run_s_own_rows_and_beyond(self, run):
        assert main(["thinking", str(run)]) == 0
        table = pd.read_csv(run / "thinking-seed2020.csv", index_col="parts")
        assert list(table.index) == ["text", "transitions", "both", "States", "+ transitions", "+ text", "+ repeats"] + [
            "+ verifier", "+ pointer", "+ likelihood", "likelihood alone"
        ]  # fmt: skip
        rows = {r.stage: r.test for r in read_results(run) if r.model == "STREAMRec" and r.seed == 2020}
        assert table.loc["States", "ndcg@10"] == pytest.approx(rows["States"]["ndcg@10"], abs=1e-6)
        assert table.loc["likelihood alone", "ndcg@10"] in [
            pytest.approx(rows[stage]["ndcg@10"], abs=1e-6) for stage in ("PT", "SFT", "RL")
        ]
        assert (table["ms a user"] > 0).all()
        assert (run / "thinking-seed2020.png").stat().st_size > 10_000

    def test_scaling_has_every_point_and_a_plot(self, run):
        assert main(["scaling", str(run), "--seed=2021"]) == 0
        table = pd.read_csv(run / "scaling-seed2021.csv")
        points = table[table["series"] == "SFT"].groupby("axis")["amount"].apply(list)
        assert points["reasoning steps"] == [0, 1, 2, 3, 4] and points["paths"] == [1, 2, 4, 8, 16]
        assert (run / "scaling-seed2021.png").stat().st_size > 10_000

    def test_controls_train_each_kind_and_sum_two_tigers(self, run):
        assert main(["controls", str(run)]) == 0
        table = pd.read_csv(run / "controls-seed2020.csv")
        assert list(table["model"]) == [
            "PT", "SFT on collected tokens", "SFT on constant tokens", "SFT on random tokens",
            "TIGER-seed2020", "TIGER-seed2021", "both TIGERs summed",
        ]  # fmt: skip
        assert table["ndcg@10"].between(0, 1).all()

    def test_unseen_leaves_the_checkpoints_and_their_own_figures_alone(self, run):
        assert main(["unseen", str(run), "--seed=2021"]) == 0
        table = pd.read_csv(run / "unseen-seed2021.csv", index_col="model")
        assert list(table.index) == [f"STREAMRec-{s}" for s in ("Deliberation", "PT", "RL", "SFT", "States")] + [
            "TIGER"
        ]
        rows = {(r.model, r.stage): r.test for r in pd.read_json(run / "results.json").itertuples() if r.seed == 2021}
        for name, (model, stage) in {"STREAMRec-PT": ("STREAMRec", "PT"), "TIGER": ("TIGER", "")}.items():
            assert table["test ndcg@10, as trained"][name] == pytest.approx(rows[model, stage]["ndcg@10"])
        # the targets of this set are never repeats: no rank can fall where every item is scored, as a search does not
        states = table.loc["STREAMRec-States"]
        assert states["test recall@10, unseen only"] >= states["test recall@10, as trained"]

    def test_a_model_summed_with_itself_ranks_as_alone(self, run):
        twin = load(run, "TIGER-seed2020-TIGER")
        alone = torch.cat(
            [
                (twin.model.rank(batch.histories, 10)[0] == batch.targets[:, None]).any(1)
                for batch in twin.valid.ordered(128)
            ]
        )
        summed = sum_of_two(twin, load(run, "TIGER-seed2020-TIGER"))
        assert ((summed <= 10) == alone.numpy()).mean() > 0.99  # but for ties

    def test_a_folder_without_the_checkpoint_is_one_sentence(self, run, capsys):
        assert main(["ablation", str(run), "--seed=7"]) == 2
        assert "STREAMRec-seed7-Deliberation.pth does not exist" in capsys.readouterr().err
