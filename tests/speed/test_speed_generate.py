"""The synthetic data sets: their promises, and that they depend on the seed alone."""

import numpy as np
import pytest

from recbole_stream.errors import InputError
from speed import generate
from speed.__main__ import main
from speed.generate import Log, events, texts, write


def test_files_have_the_rows_and_columns_they_promise(tmp_path, capsys):
    main(["generate", "--events", "3000", "--items", "200", "--data_path", str(tmp_path), "--dataset", "made"])
    folder = tmp_path / "made"
    assert capsys.readouterr().out.strip() == str(folder)
    header, *rows = (folder / "made.inter").read_text().splitlines()
    assert header == "user_id:token\titem_id:token\ttimestamp:float"
    users, items, times = zip(*(row.split("\t") for row in rows))
    names, counts = np.unique(users, return_counts=True)
    assert 3000 <= len(rows) < 3000 + counts.max() and counts.min() >= 5
    # a user's events follow each other in time
    pairs = [(int(user[1:]), int(time)) for user, time in zip(users, times)]
    assert pairs == sorted(pairs)
    header, *described = (folder / "made.item").read_text().splitlines()
    assert header == "item_id:token\ttitle:token_seq\tcategories:token_seq\tbrand:token_seq"
    assert [row.split("\t")[0] for row in described] == [f"i{number}" for number in range(1, 201)]
    assert set(items) <= {row.split("\t")[0] for row in described}
    assert len({row.split("\t")[1] for row in described}) == 200


def test_a_log_follows_from_its_seed_and_a_smaller_one_is_its_beginning(tmp_path):
    whole, again, other = (next(events(Log(5000, 300, seed))) for seed in (1, 1, 2))
    part = next(events(Log(1000, 300, 1)))
    for column in range(3):
        assert np.array_equal(whole[column], again[column])
        assert np.array_equal(whole[column][: len(part[column])], part[column])
    assert not np.array_equal(whole[1][:1000], other[1][:1000])


def test_popular_items_have_most_events_and_topics_keep_together():
    log = Log(200_000, 2000, 0)
    _, items, _ = next(events(log))
    counts = np.sort(np.bincount(items, minlength=2001)[1:])[::-1]
    assert counts[:200].sum() > 0.25 * len(items)  # a tenth of the items, far more than a tenth of the events
    topics = (items - 1) % log.groups
    assert np.mean(topics[1:] == topics[:-1]) > 0.5
    # where the next item is the successor it is `groups` further
    assert np.mean(items[1:] - items[:-1] == log.groups) > 0.25


def test_users_of_a_later_part_are_others(monkeypatch):
    monkeypatch.setattr(generate, "_USERS", 20)
    parts = list(events(Log(1000, 100)))
    users = np.concatenate([part[0] for part in parts])
    assert len(parts) > 2 and np.all(np.diff(users) >= 0) and len(np.unique(users)) == users.max()
    assert len(users) >= 1000


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="at least"):
        Log(100, 5)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(log):
        yield from list(texts(log))[:10]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generate, "texts", full)
    with pytest.raises(InputError, match="no space left"):
        write(Log(500, 40), tmp_path, "made")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["made.inter"]
