"""What RecBole 1.2.1 does wrong when it reads a data set, and its mend."""

import functools

import numpy as np
import pandas as pd

from recbole_stream.atomic import read_header, read_table
from recbole_stream.errors import InputError
from recbole_stream.host.repairs.edit import edit

__all__ = [
    "drop_the_rows_without_names",
    "keep_the_latest_of_ready_histories",
    "read_cells_as_they_stand",
    "read_feature",
    "read_header",
    "refuse_rows_without_time",
]


def read_cells_as_they_stand() -> None:
    """Items named NA, null, None or nan are gone, and a title that begins with a quote stops the reading.

    dataset.py:480 reads through pandas, to which such names are missing values
    and a quote opens a cell. ``recbole_stream.atomic`` says how a file is read
    instead: the same way wherever this project reads one.
    """
    from recbole.data.dataset import Dataset

    edit(
        Dataset._load_feat,
        {
            "head = f.readline()[:-1]":
                "from recbole_stream.host.repairs.reading import read_feature, read_header; "
                "head = field_separator.join(read_header(filepath, field_separator, encoding or 'utf-8'))",
            "pd.read_csv(": "read_feature(",
        },
    )  # fmt: skip


def read_feature(
    filepath: str, delimiter: str, usecols: list[str], dtype: dict[str, type], encoding: str | None, engine: str
) -> pd.DataFrame:
    """What RecBole calls in place of ``pandas.read_csv``: the columns of ``dtype``, which are those of ``usecols``."""
    return read_table(filepath, dtype, delimiter, encoding or "utf-8")


def drop_the_rows_without_names() -> None:
    """Where a user is missing in one row and an item in another, the wrong rows are dropped, or reading stops.

    dataset.py:822 and 831 take labels of rows, which have gaps after the first
    rows have been dropped, for their places.
    """
    from recbole.data.dataset import Dataset

    edit(
        Dataset._filter_nan_user_or_item,
        {
            "feat.drop(feat.index[dropped_feat]": "feat.drop(dropped_feat",
            "self.inter_feat.index[dropped_inter], inplace": "dropped_inter, inplace",
        },
    )


def refuse_rows_without_time() -> None:
    """Events without a time get the mean of all times, so that histories and test items are wrong.

    dataset.py:650 fills every column of numbers so.
    """
    from recbole.data.dataset import Dataset

    stock = Dataset._fill_nan

    @functools.wraps(stock)
    def fill_nan(self: Dataset) -> None:
        if self.config["eval_args"]["order"] == "TO" and self.time_field in self.inter_feat:
            without = int(self.inter_feat[self.time_field].isna().sum())
            if without and self.benchmark_filename_list is None:
                raise InputError(
                    f"{without:,} events of {self.dataset_name} have no {self.time_field}: fill it in, or delete their "
                    "lines."
                )
        stock(self)

    Dataset._fill_nan = fill_nan


def keep_the_latest_of_ready_histories() -> None:
    """With ``benchmark_filename`` MAX_ITEM_LIST_LENGTH has no effect, and some models fail.

    sequential_dataset.py:154 takes histories as long as the files have them:
    longer ones reach models that have as many positions as the key says, and
    where none is so long models that count on that width (Caser) fail. Now
    they hold the latest items, on the right padded to the key's width, as
    those that RecBole makes itself.
    """
    from recbole.data.dataset import SequentialDataset

    stock = SequentialDataset._benchmark_presets

    @functools.wraps(stock)
    def benchmark_presets(self: SequentialDataset) -> None:
        width, suffix = self.max_item_list_len, self.config["LIST_SUFFIX"]
        lists = [
            field + suffix
            for field in self.inter_feat
            if field + suffix in self.inter_feat and field + suffix not in self.config["numerical_features"]
        ]
        for field in lists:
            self.inter_feat[field] = [values[-width:] for values in self.inter_feat[field]]
        stock(self)  # counts the items
        for field in lists:
            self.inter_feat[field] = [np.pad(values, (0, width - len(values))) for values in self.inter_feat[field]]
            self.field2seqlen[field] = width

    SequentialDataset._benchmark_presets = benchmark_presets
