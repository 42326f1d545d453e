"""RecR1 through the command line: what it refuses, and, with TRL, a run of a tiny random language model."""

import json

import pytest
from recbole.config import Config

from recbole_stream.errors import InputError
from recbole_stream.host.keys import check_combinations
from recbole_stream.host.recommend import recommend
from recbole_stream.host.run.commands import main
from recbole_stream.reporting.ranks import read_ranks
from tests.cases import TITLES, write_case
from tests.llm.tiny import save_language_model


def arguments(folder) -> list[str]:
    return [
        "--model=RecR1", "--dataset=toy", f"--data_path={write_case(folder / 'data', 'toy')}", "--show_progress=False",
        "--use_gpu=False", f"--output_dir={folder / 'out'}", "--epochs=1", "--llm_samples=4", "--train_batch_size=2",
        "--group_size=2", "--llm_tokens=5", "--precision=float32",
    ]  # fmt: skip


def test_what_it_cannot_work_with_is_said_in_a_sentence(tmp_path, capsys):
    assert main(arguments(tmp_path)) == 2
    assert "llm_path is not set" in capsys.readouterr().err
    with pytest.raises(InputError, match="llm_answer is 'poem', but must be one of 'query', 'titles'"):
        Config("RecR1", "toy", config_dict={"llm_answer": "poem"})
    keys = {"llm_answer": "query", "train_batch_size": 2, "group_size": 2, "llm_micro_batch": 3}
    with pytest.raises(InputError, match="llm_micro_batch is 3, but must divide the 4 completions"):
        check_combinations(keys)


@pytest.mark.slow
@pytest.mark.trl
def test_it_stands_in_the_table_like_any_model(tmp_path):
    path = save_language_model(tmp_path / "lm", list(TITLES.values()))
    assert main([*arguments(tmp_path), f"--llm_path={path}", f"--cache_dir={tmp_path / 'cache'}"]) == 0
    run = tmp_path / "out"
    (row,) = json.loads((run / "results.json").read_text())
    assert (row["model"], row["stage"], row["final"]) == ("RecR1", "", True)
    assert row["parameters"] > 1000 and 0 <= row["test"]["ndcg@10"] <= row["test"]["recall@10"] <= 1
    hits = read_ranks(run, "RecR1", "", row["seed"])["rank"].notna()
    assert hits.mean() == pytest.approx(row["test"]["recall@10"], abs=1e-4)
    (run / "results.json").unlink()
    assert main([f"--resume={run}"]) == 0
    (again,) = json.loads((run / "results.json").read_text())
    assert (again["test"], again["valid"]) == (row["test"], row["valid"])
    table = recommend(run / "checkpoints" / f"RecR1-seed{row['seed']}-GRPO.pth", ["u00"], 3)
    assert table["item"].nunique() == len(table)
