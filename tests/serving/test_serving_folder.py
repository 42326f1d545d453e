"""The folder of a model: whole or not there, and refused where anything in it was changed."""

import json

import pandas as pd
import pytest
import torch
from parts import make_parts

from recbole_stream.errors import InputError
from recbole_stream.serving.folder import read_model, write_model


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "MODEL", make_parts("states"))


def test_what_is_written_is_read(folder):
    parts, read = make_parts("states"), read_model(folder)
    assert read.tensors.keys() == parts.tensors.keys()
    assert all(torch.equal(read.tensors[name], value) for name, value in parts.tensors.items())
    assert parts.config.items() <= read.config.items()
    pd.testing.assert_frame_equal(read.items, parts.items, check_dtype=False)
    assert [list(items) for items in read.users["items"]] == [[1, 2, 3], [4]]
    assert read.card == parts.card


def test_it_holds_no_pickle_and_nothing_else(folder):
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "config.json", "items.parquet", "model.safetensors", "users.parquet",
    ]  # fmt: skip
    assert not list(folder.parent.glob(".*"))


@pytest.mark.parametrize("name", ["model.safetensors", "items.parquet", "users.parquet"])
def test_a_torn_or_missing_file_is_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{name} is torn"):
        read_model(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_model(folder)


def test_a_changed_configuration_is_refused(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"beams": 8', '"beams": 9'))
    with pytest.raises(InputError, match="was changed after the export"):
        read_model(folder)
    path.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        read_model(folder)
    path.write_text("[]")
    with pytest.raises(InputError, match="is damaged"):
        read_model(folder)


def test_another_version_and_another_format_are_named(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"format_version": 99}))
    with pytest.raises(InputError, match="has format 99, and this version of recbole-stream reads 1"):
        read_model(folder)
    path.write_text(json.dumps({"architectures": ["BertModel"]}))
    with pytest.raises(InputError, match="another kind"):
        read_model(folder)


def test_nothing_that_is_there_is_overwritten(folder, tmp_path):
    with pytest.raises(InputError, match="is there already"):
        write_model(folder, make_parts("TIGER"))
    assert read_model(folder).config["model"] == "STREAMRec"
    write_model(folder, make_parts("TIGER"), replace=True)
    assert read_model(folder).config["model"] == "TIGER"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(InputError, match="is there already"):
        write_model(tmp_path / "other", make_parts("TIGER"), replace=True)
    assert not list(tmp_path.glob(".*"))


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "MODEL").mkdir()
    assert read_model(write_model(tmp_path / "MODEL", make_parts("TIGER"))).config["model"] == "TIGER"
