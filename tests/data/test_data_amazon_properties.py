"""The YAML files of the data sets: keys that RecBole knows, and what they load."""

import re
from pathlib import Path

import pytest
import yaml

import recbole_stream

FOLDER = Path(recbole_stream.__file__).parents[1] / "properties" / "dataset"
FILES = sorted(FOLDER.glob("*.yaml"))
NAMES = {
    "ml-100k", "amazon-beauty-2014", "amazon-scientific-2018", "amazon-instruments-2023", "amazon-converted",
    "amazon-musical-instruments", "amazon-musical-instruments-18", "amazon-musical-instruments-23",
    "amazon-industrial-scientific-18", "amazon-industrial-scientific-23",
}  # fmt: skip


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_every_set_has_its_file():
    assert {path.stem for path in FILES} == NAMES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_keys_are_known_and_commented(path):
    import recbole
    from recbole.utils.argument_list import dataset_arguments, evaluation_arguments

    sample = read(Path(recbole.__file__).parent / "properties" / "dataset" / "sample.yaml")
    known = {*sample, *dataset_arguments, *evaluation_arguments, "text_fields", "semantic_ids_file", "recipe"}
    assert set(read(path)) <= known
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r"\w+:", line):
            assert re.search(r"# \((str|int|bool|list|dict)\) \w", line), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_set_is_loaded_as_the_paper_does(path):
    values = read(path)
    assert values["load_col"] == {"inter": ["user_id", "item_id", "timestamp"]}
    assert values["MAX_ITEM_LIST_LENGTH"] == 20
    assert values["eval_args"] == {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
    # Keys that were tuned on one Amazon set serve all of them, and no other data.
    assert values.get("recipe", path.stem) == ("ml-100k" if path.stem == "ml-100k" else "amazon-scientific-2018")
    # Item content comes from text or from ready-made IDs, never from both.
    assert ("text_fields" in values) != ("semantic_ids_file" in values)


def test_downloaded_sets_have_names_that_recbole_knows():
    import recbole

    urls = read(Path(recbole.__file__).parent / "properties" / "dataset" / "url.yaml")
    downloaded = {path.stem for path in FILES if re.fullmatch(r"amazon-(musical|industrial).*", path.stem)}
    assert len(downloaded) == 5 and downloaded <= set(urls)


def test_ml_100k_keeps_all_users_and_films():
    from recbole.config import Config
    from recbole.data import create_dataset

    config = Config(model="SASRec", dataset="ml-100k", config_file_list=[str(FOLDER / "ml-100k.yaml")],
                    config_dict={"train_neg_sample_args": None})  # fmt: skip
    dataset = create_dataset(config)
    # One of each number is RecBole's padding.
    assert (dataset.user_num, dataset.item_num) == (943 + 1, 1682 + 1)
    header = (Path(config["data_path"]) / "ml-100k.item").open(encoding="utf-8").readline()
    assert set(config["text_fields"]) <= {column.split(":")[0] for column in header.split("\t")}
