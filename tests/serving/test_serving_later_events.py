"""Later events count as they would have counted in the training, and once."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import make_parts

from recbole_stream import __main__ as package
from recbole_stream.model.lookup import Transitions
from recbole_stream.model.pointer import Pairs
from recbole_stream.serving.folder import Parts, read_model, write_model
from recbole_stream.serving.later_events import Later, update
from recbole_stream.serving.recommender import Recommender


def model() -> Parts:
    """u1 had i1, i2, i3 (the last at 30), u2 had i4 (at 20); nothing was looked up yet. Window 2, decay .5, back .5."""
    parts = make_parts("pointer")
    parts.users["last"] = [30.0, 20.0]
    for name in ("rows", "columns"):
        parts.tensors[f"transitions.{name}"] = torch.zeros(0, dtype=torch.long)
    parts.tensors["transitions.counts"] = torch.zeros(0)
    parts.tensors["transitions.one_way"] = torch.zeros(0, 2)
    parts.tensors["popularity"] = torch.zeros(41, dtype=torch.long)
    return parts


def events(*rows: tuple[str, str, object]) -> pd.DataFrame:
    return pd.DataFrame([[str(cell) for cell in row] for row in rows], columns=["user_id", "item_id", "timestamp"])


def counted(parts: Parts) -> dict[tuple[int, int], float]:
    rows, columns, counts = (parts.tensors[f"transitions.{name}"].tolist() for name in ("rows", "columns", "counts"))
    return dict(zip(zip(rows, columns), counts))


def test_what_one_event_adds():
    updated, later = update(model(), events(("u1", "i5", 40)))
    assert later == Later(added=1, known=0, unknown=0, users=1, new_users=0)
    # i5 follows i3 at distance 1 and i2 at distance 2; the way back counts half
    assert counted(updated) == {(3, 5): 1, (2, 5): 0.5, (5, 3): 0.5, (5, 2): 0.25}
    # (2, 5), (3, 5), and both the other way round, of which one way counts nothing; only i3 is directly before it
    assert updated.tensors["transitions.one_way"].tolist() == [[0.5, 0], [1, 1], [0, 0], [0, 0]]
    assert updated.tensors["popularity"].nonzero().tolist() == [[5]]
    assert list(updated.users["items"].iloc[0]) == [1, 2, 3, 5]
    assert updated.users["last"].tolist() == [40, 20]


def test_what_is_known_counts_once():
    again = events(("u1", "i2", 20), ("u1", "i3", 30), ("u1", "i9", 30), ("u2", "nothing", 50), ("u1", "i3", 31))
    updated, later = update(model(), again)
    # i9 is of the time of the last known event, and the user did not have it; i3 at 31 is bought again
    assert later == Later(added=2, known=2, unknown=1, users=1, new_users=0)
    assert list(updated.users["items"].iloc[0]) == [1, 2, 3, 9, 3]
    twice, nothing = update(updated, again)
    assert nothing == Later(added=0, known=4, unknown=1, users=0, new_users=0)
    assert counted(twice) == counted(updated)


def test_new_users_are_users_from_then_on(tmp_path):
    updated, later = update(model(), events(("new", "i7", 5), ("new", "i8", 2)))
    assert later.new_users == 1
    assert counted(updated) == {(8, 7): 1, (7, 8): 0.5}  # i8 came first
    assert updated.tensors["popularity"].nonzero().tolist() == [[7]]  # a first event is no target
    assert Recommender(updated).history_of("new") == [8, 7]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30))
def test_a_log_in_two_parts_is_the_log(seed, cut):
    rng = np.random.default_rng(seed)
    log = [(f"v{rng.integers(4)}", f"i{rng.integers(1, 41)}", time) for time in range(30)]
    updated = model()
    for part in (log[:cut], log[cut:]):
        if part:
            updated, _ = update(updated, events(*part))
    # the same by what the training makes of whole histories: every prefix and its target
    prefixes, targets = [], []
    for user in ("v0", "v1", "v2", "v3"):
        own = [int(item[1:]) for name, item, _ in log if name == user]
        prefixes += [own[:end] for end in range(1, len(own))]
        targets += own[1:]
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    padded = torch.tensor([prefix + [0] * (30 - len(prefix)) for prefix in prefixes])

    def all_of(window: int = 2, backward: float = 0.5) -> Transitions:
        return Transitions(padded, lengths, torch.tensor(targets), 41, window, 0.5, backward, 0.7)

    whole = all_of()
    rows, columns, counts = whole.pairs()
    one_way = Pairs.counted(whole, all_of).one_way
    assert torch.allclose(updated.tensors["transitions.one_way"], one_way)
    assert counted(updated) == pytest.approx(dict(zip(zip(rows.tolist(), columns.tolist()), counts.tolist())))
    assert updated.tensors["popularity"].tolist() == np.bincount(targets, minlength=41).tolist()


def test_a_model_without_look_ups_learns_histories_alone():
    parts = make_parts("TIGER")
    parts.users["last"] = [30.0, 20.0]
    updated, later = update(parts, events(("u2", "i1", 21)))
    assert later.added == 1
    assert updated.tensors.keys() == parts.tensors.keys()
    assert list(updated.users["items"].iloc[1]) == [4, 1]


def test_the_command(tmp_path, capsys):
    write_model(tmp_path / "model", model())
    events(("u1", "i5", 40), ("u1", "gone", 41)).to_parquet(tmp_path / "log.parquet")
    assert package.main(["update", str(tmp_path / "model"), str(tmp_path / "log.parquet")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 events of 1 users (0 of them new) were added; 0 were known, 1 are of items that")
    assert read_model(tmp_path / "model").users["last"].tolist() == [40, 20]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (events(("u1", "i5", "soon")), "has the time 'soon', which is neither a number nor a date"),
        (events(("u1", "i5", "")), "has the time ''"),
        (events(("", "i5", 3)), "Row 1 of the events has no user"),
        (events(("u1", "i5", 3))[["user_id", "item_id"]], "no column that is plainly the time"),
        (events(("u1", "i5", "2024-03-01")), "are seconds, and those of the model are no Unix times"),
        (events(("u1", "i5", 3))[:0], "has no rows"),
    ],
)
def test_bad_events_change_nothing(tmp_path, capsys, table, sentence):
    write_model(tmp_path / "model", model())
    table.to_parquet(tmp_path / "log.parquet")
    assert package.main(["update", str(tmp_path / "model"), str(tmp_path / "log.parquet"), "--output=out"]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
