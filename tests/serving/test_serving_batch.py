"""Recommendations into a file: in parts, resumed, and the same over a cluster."""

import json

import pandas as pd
import pyarrow.parquet
import pytest
from parts import make_parts

from recbole_stream import Recommender
from recbole_stream.__main__ import main
from recbole_stream.errors import InputError
from recbole_stream.serving import batch
from recbole_stream.serving.batch import recommend_to_file
from recbole_stream.serving.folder import write_model
from recbole_stream.serving.recommender import OPENERS

READ = {"parquet": pd.read_parquet, "csv": pd.read_csv, "jsonl": lambda path: pd.read_json(path, lines=True)}
HISTORIES = [["i1", "i2"], ["i7"], ["x"], ["i3", "y", "i4"], ["i5"], ["i9", "i8", "i7"], ["i2"]]


@pytest.fixture
def model() -> Recommender:
    return Recommender(make_parts("verifier"))


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "PART", 2)
    lines = [json.dumps({"id": f"h{row}", "items": items}) for row, items in enumerate(HISTORIES)]
    (tmp_path / "h.jsonl").write_text("\n".join(lines))
    return tmp_path / "h.jsonl"


def expected(model):
    known = {0: HISTORIES[0], 1: HISTORIES[1], 3: ["i3", "i4"], 4: HISTORIES[4], 5: HISTORIES[5], 6: HISTORIES[6]}
    table = model.recommend(list(known.values()), 3)
    names = [f"h{row}" for row in known]
    return [(names[row], rank, item) for row, rank, item in zip(table["row"], table["rank"], table["item"])]


def rows(table):
    return list(zip(table["user"], table["rank"], table["item"]))


@pytest.mark.parametrize("ending", READ)
def test_a_file_of_histories(model, source, tmp_path, ending):
    output = tmp_path / f"recs.{ending}"
    said = recommend_to_file(model, output, source, k=3)
    assert rows(READ[ending](output)) == expected(model)
    assert said.startswith("18 recommendations for 6 histories")
    assert "2 events with unknown items" in said and "1 histories without any known item" in said
    assert [path.name for path in tmp_path.iterdir() if "recs" in path.name] == [output.name]


def test_a_killed_call_goes_on(model, source, tmp_path, monkeypatch):
    ranked = []
    whole = batch._rank_part

    def dies_at_the_third(model, part, *rest):
        if len(ranked) == 2:
            raise KeyboardInterrupt
        ranked.append(part)
        return whole(model, part, *rest)

    monkeypatch.setattr(batch, "_rank_part", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        recommend_to_file(model, tmp_path / "recs.csv", source, k=3)
    assert not (tmp_path / "recs.csv").exists()
    with pytest.raises(InputError, match="holds parts of another call"):
        recommend_to_file(model, tmp_path / "recs.csv", source, k=4)
    again = []
    monkeypatch.setattr(batch, "_rank_part", lambda model, part, *rest: again.append(part) or whole(model, part, *rest))
    recommend_to_file(model, tmp_path / "recs.csv", source, k=3)
    assert [part[0][0] for part in again] == ["h4", "h6"]
    assert rows(pd.read_csv(tmp_path / "recs.csv")) == expected(model)


def test_reasons_are_columns(model, source, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "_EXPLAINED_AT_ONCE", 1)
    recommend_to_file(model, tmp_path / "recs.csv", source, k=3, explain=True)
    table = pd.read_csv(tmp_path / "recs.csv")
    assert list(table) == batch.EXPLAINED.names
    assert rows(table) == expected(model)
    added = table[["base", *(name for name in table if name.startswith("by_"))]].sum(axis=1)
    assert added.to_numpy() == pytest.approx(table["score"].to_numpy(), abs=1e-4)
    # the first history is i1, i2: its evidence is that of Python, of each kind the strongest
    whys = model.recommend([HISTORIES[0]], 3, explain=True)["why"]
    for why, (_, cells) in zip(whys, table.iterrows()):
        assert cells["words"] == why["words"] and cells["had"] == why["had"]
        assert cells["by_matching"] == pytest.approx(why["views"]["matching"], abs=1e-4)
        assert (
            cells["reads_like"] == why["reads_like"][0]["item"] if why["reads_like"] else pd.isna(cells["reads_like"])
        )
        assert cells["followed_times"] == pytest.approx(why["followed"][0]["times"]) if why["followed"] else True
        assert cells["match_rank"] == why["match"]["rank"]
        chances = [token["log_probability"] for token in why["tokens"]]
        assert cells["log_probability"] == pytest.approx(sum(chances), abs=1e-4)


def test_what_a_model_does_not_know_is_empty(tmp_path):
    recommend_to_file(Recommender(make_parts("TIGER")), tmp_path / "recs.parquet", users=["u2"], k=1, explain=True)
    (cells,) = pyarrow.parquet.read_table(tmp_path / "recs.parquet").to_pylist()
    assert cells["followed"] is cells["similarity"] is cells["match_rank"] is None
    assert cells["by_transitions"] == cells["by_verifier"] == 0
    assert cells["base"] + cells["by_likelihood"] == pytest.approx(cells["log_probability"], abs=1e-5)


def test_whole_numbers_stay_whole_in_json(tmp_path):
    recommend_to_file(Recommender(make_parts("states")), tmp_path / "recs.jsonl", users=["u2"], k=1, explain=True)
    cells = json.loads((tmp_path / "recs.jsonl").read_text())
    assert isinstance(cells["match_rank"], int) and isinstance(cells["rank"], int) and cells["had"] is False


def test_parts_without_reasons_are_not_those_of_a_call_with_them(model, source, tmp_path, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batch, "_rank_part", dies)
        recommend_to_file(model, tmp_path / "recs.csv", source, k=3)
    with pytest.raises(InputError, match="holds parts of another call"):
        recommend_to_file(model, tmp_path / "recs.csv", source, k=3, explain=True)


def test_a_model_without_reasons_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    parts = make_parts("states")
    parts.config |= {"kind": "RecBole", "model": "SASRec"}
    monkeypatch.setitem(OPENERS, "RecBole", lambda parts, device: object())
    with pytest.raises(InputError, match="SASRec is RecBole's own model, which gives scores without reasons"):
        recommend_to_file(Recommender(parts), tmp_path / "recs.csv", source, k=3, explain=True)
    assert not [path for path in tmp_path.iterdir() if "recs" in path.name]


def test_users_by_name(tmp_path, capsys):
    folder = write_model(tmp_path / "MODEL", make_parts("states"))
    assert main(["recommend", str(folder), "--users=u1,u2", "--top=2"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("u1") == printed.count("u2") == 2 and "Title" in printed
    assert main(["recommend", str(folder), "--users=u2", "--top=1", "--explain"]) == 0
    assert "It matches the history best of 40 items." in capsys.readouterr().out
    assert main(["recommend", str(folder), "--all-users", "--top=2", f"--output={tmp_path / 'all.csv'}"]) == 0
    assert pd.read_csv(tmp_path / "all.csv")["user"].tolist() == ["u1", "u1", "u2", "u2"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--users=u1,u7", "--output=a.csv"], "knows no user 'u7'"),
        (["--users=u1", "--top=41"], "from 1 to the 40 items"),
        (["--all-users", "--top=41", "--output=a.csv"], "from 1 to the 40 items"),
        (["--all-users"], "--output is missing"),
        (["--users=u1", "--address=local"], "--output is missing"),
        (["--users=u1", "--device=tpu"], "There is no device 'tpu' here: name cpu"),
        (["--users=u1", "--device=meta"], "There is no device 'meta' here: name cpu"),
        (["--users=u1", "--output=a.txt"], "must end in one of .parquet, .csv, .jsonl"),
        (["--histories=h.csv", "--output=a.csv"], "There is no file h.csv"),
        (["--histories=strange.csv", "--output=a.csv"], "No history holds an item that the model knows"),
        (["--histories=short.csv", "--output=a.csv"], "no column that is plainly the user"),
        (["--users=u1", "--output=there.csv"], "is there already"),
        (["--users=", "--output=a.csv"], "knows no user ''"),
    ],
)
def test_bad_input_ends_with_a_sentence_and_leaves_nothing(tmp_path, words, sentence, capsys):
    folder = write_model(tmp_path / "MODEL", make_parts("states"))
    (tmp_path / "strange.csv").write_text("items\nx y\n")
    (tmp_path / "short.csv").write_text("a,b\nx,y\n")
    (tmp_path / "there.csv").touch()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["recommend", str(folder), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_unknown_command_is_named(capsys):
    assert main(["recomend", "MODEL"]) == 2
    assert "There is no command 'recomend' but export, recommend" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_that_loses_a_machine_gives_the_same(model, source, tmp_path):
    import ray
    from ray.cluster_utils import Cluster

    from recbole_stream import cluster as cluster_room

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        lost = []
        real = cluster_room._next

        def lose_one(ray_module, running):
            if not lost:
                lost.append(cluster.remove_node(other, allow_graceful=False))
            return real(ray_module, running)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster_room, "_next", lose_one)
            recommend_to_file(model, tmp_path / "recs.csv", source, k=3, address=cluster.address)
        assert lost
        assert rows(pd.read_csv(tmp_path / "recs.csv")) == expected(model)
    finally:
        ray.shutdown()
        cluster.shutdown()
