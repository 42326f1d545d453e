"""Recommendations into a file: in parts, resumed, and the same over a cluster."""

import json

import pandas as pd
import pytest
from parts import make_parts

from recbole_stream import Recommender
from recbole_stream.__main__ import main
from recbole_stream.errors import InputError
from recbole_stream.serving import batch
from recbole_stream.serving.batch import recommend_to_file
from recbole_stream.serving.folder import write_model

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


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_file_of_histories(model, source, tmp_path, ending):
    output = tmp_path / f"recs.{ending}"
    said = recommend_to_file(model, output, source, k=3)
    read = {"parquet": pd.read_parquet, "csv": pd.read_csv, "jsonl": lambda path: pd.read_json(path, lines=True)}
    assert rows(read[ending](output)) == expected(model)
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


def test_users_by_name(tmp_path, capsys):
    folder = write_model(tmp_path / "MODEL", make_parts("states"))
    assert main(["recommend", str(folder), "--users=u1,u2", "--top=2"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("u1") == printed.count("u2") == 2 and "Title" in printed
    assert main(["recommend", str(folder), "--all-users", "--top=2", f"--output={tmp_path / 'all.csv'}"]) == 0
    assert pd.read_csv(tmp_path / "all.csv")["user"].tolist() == ["u1", "u1", "u2", "u2"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--users=u1,u7", "--output=a.csv"], "knows no user 'u7'"),
        (["--users=u1", "--top=41"], "from 1 to the 40 items"),
        (["--all-users", "--top=41", "--output=a.csv"], "from 1 to the 40 items"),
        (["--all-users"], "--output is missing"),
        (["--users=u1", "--output=a.txt"], "must end in one of .parquet, .csv, .jsonl"),
        (["--histories=h.csv", "--output=a.csv"], "There is no file h.csv"),
        (["--histories=strange.csv", "--output=a.csv"], "No history holds an item that the model knows"),
        (["--histories=short.csv", "--output=a.csv"], "no column that is plainly the user"),
        (["--users=u1", "--output=there.csv"], "is there already"),
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

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        lost = []
        real = batch._next

        def lose_one(ray_module, running):
            if not lost:
                lost.append(cluster.remove_node(other, allow_graceful=False))
            return real(ray_module, running)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "_next", lose_one)
            recommend_to_file(model, tmp_path / "recs.csv", source, k=3, address=cluster.address)
        assert lost
        assert rows(pd.read_csv(tmp_path / "recs.csv")) == expected(model)
    finally:
        ray.shutdown()
        cluster.shutdown()
