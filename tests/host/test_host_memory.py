"""A data set that does not fit is refused before it is read or encoded; one that fits is not."""

import pytest
from recbole.config import Config
from recbole.data import create_dataset

from recbole_stream import memory
from recbole_stream.errors import InputError
from recbole_stream.host import memory as checks
from recbole_stream.host.dataset import ItemTextDataset
from recbole_stream.host.run.commands import main
from recbole_stream.host.run.job import configure
from tests.cases import EVENTS, write_case

USERS = 60
ROWS = len(EVENTS)


class WithoutText(ItemTextDataset):
    def _attach_items(self):
        """No text is read here."""


@pytest.fixture
def configured(tmp_path):
    data_path = write_case(tmp_path / "data", "toy")

    def configured(model, **options) -> Config:
        options = {"data_path": data_path, "text_fields": ["title"], "use_gpu": False, "show_progress": False} | options
        return configure(model, [model], "toy", options, tmp_path)

    return configured


def least(check, argument, monkeypatch) -> float:
    """Bytes that a check asks for; it passes with them and refuses with one less."""
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(checks, "check_fits", lambda what, count, ways_out: asked.append(count))
        check(argument)
    with monkeypatch.context() as patch:
        patch.setattr(memory, "free_memory", lambda: asked[0])
        check(argument)
        patch.setattr(memory, "free_memory", lambda: asked[0] - 1)
        with pytest.raises(InputError, match=r"takes at least .* or use a machine with 4 GB\.$"):
            check(argument)
    return asked[0]


def test_the_file_and_recboles_rows(configured, monkeypatch):
    config = configured("SASRec", MAX_ITEM_LIST_LENGTH=10)
    assert least(checks.check_reading_fits, config, monkeypatch) == 20 * ROWS * 3
    # a row for each event but a user's first: 10 items of 8 bytes, 10 times of 4, half of all twice
    dataset = create_dataset(config)
    assert least(checks.check_rows_fit, dataset, monkeypatch) == 1.5 * (ROWS - USERS) * (80 + 40)


def test_what_our_models_keep_of_events_and_items(configured, monkeypatch):
    rows = 6 * ROWS * (3 + 1.5 * 5)
    tiger = WithoutText(configured("TIGER"))
    assert least(checks.check_items_fit, tiger, monkeypatch) == rows + 4 * 30 * 384 * 2
    # all pairs of the items of users' sequences, but their last two, within the window of 10, in both directions
    counts = [sum(user == other for other, *_ in EVENTS) - 2 for user in {user for user, *_ in EVENTS}]
    pairs = sum(count * (count - 1) for count in counts)
    stream = WithoutText(configured("STREAMRec", hidden_size=16))
    whole = rows + 4 * 30 * 384 * 4 + max(4 * 30 * 16 * 4 + 8 * 0.1 * pairs, 16 * 0.1 * pairs)
    assert least(checks.check_items_fit, stream, monkeypatch) == pytest.approx(whole)
    short = WithoutText(configured("STREAMRec", hidden_size=16, lookup_neighbours=1))
    assert least(checks.check_items_fit, short, monkeypatch) <= whole
    ids = WithoutText(configured("TIGER", semantic_ids_file="ids.tsv"))
    assert least(checks.check_items_fit, ids, monkeypatch) == rows


@pytest.mark.parametrize(
    ("model", "free", "sentence"),
    [
        ("TIGER", 20 * ROWS * 3 - 1, f"Reading the {ROWS} events of toy with 3 columns takes at least"),
        ("SASRec", 20 * ROWS * 3 - 1, f"Reading the {ROWS} events of toy with 3 columns takes at least"),
        ("SASRec", 20 * ROWS * 3, f"A row of 50 items for each of the {ROWS - USERS} events of toy takes at least"),
        ("TIGER", 20 * ROWS * 3, f"What TIGER keeps of {ROWS} events and 30 items takes at least"),
    ],
)
def test_a_run_ends_with_one_sentence_before_it_begins(tmp_path, monkeypatch, capsys, model, free, sentence):
    data_path = write_case(tmp_path / "data", "toy")
    monkeypatch.setattr(memory, "free_memory", lambda: free)
    arguments = [f"--model={model}", "--dataset=toy", f"--data_path={data_path}", f"--output_dir={tmp_path}/out"]
    keys = ["--text_fields=[title]", "--use_gpu=False", "--MAX_ITEM_LIST_LENGTH=50"]
    assert main([*arguments, *keys]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and sentence in error
