"""A small data set with gaps, and RecBole's configurations of it."""

import functools

import pytest
from recbole.config import Config

# users, items, values and years with gaps; the rows of one user out of time order
TOY_INTER = """user_id:token\titem_id:token\ttimestamp:float
a\tx\t1600000001
b\ty\t1600000000
a\ty\t1600000000
b\tz\t1600000001
a\tz\t1600000002
b\tx\t1600000002
"""
TOY_ITEM = """item_id:token\tyear:token\tprice:float\ttags:token_seq\tsizes:float_seq
x\t1990\t1\tred blue\t1 2 3
y\t\t\t\t
z\t2000\t5\tblue\t5
"""


@pytest.fixture
def toy(tmp_path):
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    (folder / "toy.inter").write_text(TOY_INTER)
    (folder / "toy.item").write_text(TOY_ITEM)
    return functools.partial(
        config,
        data_path=str(folder.parent),
        dataset="toy",
        load_col={
            "inter": ["user_id", "item_id", "timestamp"],
            "item": ["item_id", "year", "price", "tags", "sizes"],
        },
    )


def config(dataset="tiny", model="SASRec", **keys):
    keys = {"train_neg_sample_args": None, "show_progress": False, "state": "error"} | keys
    return Config(model=model, dataset=dataset, config_dict=keys)


@pytest.fixture(name="config")
def _config():
    """:func:`config`, for tests."""
    return config
