"""Whether a data set fits into the memory that is free: said before RecBole reads it, and before its texts are encoded.

The constants are bytes measured by ``python -m speed large`` (speed/README.md, "Growth with the data"), taken low, so
that nothing that fits is refused: what is refused would have been ended by the kernel.
"""

from __future__ import annotations

import numpy as np
from recbole.config import Config
from recbole.data.dataset import Dataset

from recbole_stream.host.checks import data_rows
from recbole_stream.host.keys import trained_stages
from recbole_stream.host.registration import our_model
from recbole_stream.memory import check_fits
from recbole_stream.text.encoder import text_dimension

__all__ = ["check_items_fit", "check_reading_fits", "check_rows_fit"]

_CELL = 20  # bytes of each cell that RecBole reads and filters; 30 to 50 were measured
_PAIR = 8  # of a pair of items that is kept
_COUNTED = 16  # of one while pairs are being counted
_DIFFERENT = 0.1  # of all pairs of a log so many are different at least: half of them in sparse logs, .2 in dense ones
_COLUMN = 6  # of a row's number or name in memory, which are 4 or 8
_NUMBER = 4  # of a number of a vector


def check_reading_fits(config: Config) -> None:
    """Check that RecBole can read and filter the file of events.

    Raises:
        InputError: it takes more memory than is free.
    """
    rows, columns = data_rows(config)
    ways_out = ["cut it to its latest events"]
    if columns > 3:
        ways_out.insert(0, "load fewer columns with load_col")
    name = f"Reading the {rows:,} events of {config['dataset']} with {columns} columns"
    check_fits(name, _CELL * rows * columns, ways_out)


def check_rows_fit(dataset: Dataset) -> None:
    """Check that RecBole's rows of histories fit, for a model that is not ours.

    Raises:
        InputError: they take more memory than is free.
    """
    config = dataset.config
    if config["benchmark_filename"] is not None or not hasattr(dataset, "max_item_list_len"):
        return
    lists, longest = len(dataset.inter_feat.columns) - 1, config["MAX_ITEM_LIST_LENGTH"]
    rows = len(dataset.inter_feat) - dataset.inter_feat[dataset.uid_field].nunique()
    # items are 8 bytes and times 4; those of the rows to train with, at least half, are copied
    least = 1.5 * rows * longest * (8 + 4 * (lists - 1))
    ways_out = ["set user_inter_num_interval and item_inter_num_interval higher", "MAX_ITEM_LIST_LENGTH lower"]
    if lists > 2:
        ways_out.append("load fewer columns with load_col")
    check_fits(f"A row of {longest} items for each of the {rows:,} events of {config['dataset']}", least, ways_out)


def check_items_fit(dataset: Dataset) -> None:
    """Check that what our models keep of events and items fits: columns, transitions, texts' vectors, the tower.

    Raises:
        InputError: it takes more memory than is free.
    """
    config = dataset.config
    events, items, columns = len(dataset.inter_feat), dataset.item_num - 1, len(dataset.inter_feat.columns)
    tower = our_model(config["model"]) == "STREAMRec" and "match" in trained_stages(config)
    on_cpu = str(config["device"]) == "cpu"
    # events, and two columns more of each that has a history; those to train with, at least half, are copied
    rows = _COLUMN * events * (columns + 1.5 * (columns + 2))
    size = 0 if config["semantic_ids_file"] else text_dimension(config["text_encoder"]) or 0
    texts = _NUMBER * items * size * (4 if tower and on_cpu else 2)
    # weights, gradients and the two averages of AdamW
    own = _NUMBER * items * config["hidden_size"] * 4 if tower and on_cpu else 0
    pairs = _DIFFERENT * _pairs(dataset) if tower else 0
    neighbours = min(config["lookup_neighbours"] or items, items) if tower else 0
    kept = min(pairs, items * neighbours)
    counting = min(pairs, items * items)
    least = rows + texts + max(own + _PAIR * kept, _COUNTED * counting)
    ways_out = ["set item_inter_num_interval higher, so that rare items are left out"]
    if _COUNTED * max(kept, counting) > least / 10:
        ways_out.append("lookup_neighbours to 100 and lookup_window lower")
    if columns > 3 and rows > least / 10:
        ways_out.append("load fewer columns with load_col")
    check_fits(f"What {config['model']} keeps of {events:,} events and {items:,} items", least, ways_out)


def _pairs(dataset: Dataset) -> int:
    """Pairs of items that are at most ``lookup_window`` apart within the users' sequences to train with, both directions."""
    window = dataset.config["lookup_window"]
    counts = np.bincount(dataset.inter_feat[dataset.uid_field]) - 2  # as leave-one-out leaves them
    counts = counts[counts > 0]
    short = np.minimum(counts, window)
    one_way = (short * (short - 1) // 2 + (counts - short) * window).sum()
    return int(one_way) * (2 if dataset.config["lookup_backward"] else 1)
