"""What RecBole 1.2.1 does wrong on today's packages, and the smallest mend for each.

Line numbers are of the 1.2.1 wheel. Most faults are one expression inside a
long function. ``edit`` exchanges just that expression and leaves the rest of
RecBole's function as it is, in place: whoever imported the function before us
has the mended one too. The other repairs wrap a method or set a name.

The repairs act on the running process only; RecBole's files stay untouched.
"""

import functools
import importlib
import importlib.util
import sys
import types
import uuid
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_stream.cluster import ray_is_installed
from recbole_stream.errors import InputError
from recbole_stream.host.configuration import DATASET_KEYS
from recbole_stream.host.repairs import checkpoints, cost, parallel, reading
from recbole_stream.host.repairs.edit import edit

__all__ = ["apply"]


def apply() -> None:
    """Apply every repair, once per process and before RecBole is used."""
    for repair in (
        name_the_old_numpy_types,
        do_without_ray,
        leave_anomaly_mode_off,
        accept_counts_as_evaluation_data,
        scale_gradients_by_the_present_name,
        checkpoints.load_anywhere,
        load_whole_checkpoints,
        count_elements_of_sequences,
        reading.read_cells_as_they_stand,
        fill_missing_values,
        reading.drop_the_rows_without_names,
        reading.refuse_rows_without_time,
        reading.keep_the_latest_of_ready_histories,
        copy_columns_into_tensors,
        download_in_one_process,
        keep_rows_in_time_order,
        compare_our_dataset_keys,
        name_checkpoints_uniquely,
        checkpoints.keep_names,
        write_checkpoints_whole,
        draw_bars_on_terminals_only,
        checkpoints.leave_out_seen,
        cost.leave_padding_out,
        cost.score_masked_items_alone,
        cost.convolve_over_channels,
        parallel.train_on_several_cpus,
        parallel.let_one_process_log,
        parallel.make_folders_together,
        parallel.average_over_users,
        parallel.tell_children_of_us,
    ):
        repair()


# -- packages ----------------------------------------------------------------


def name_the_old_numpy_types() -> None:
    """``np.float_ was removed`` on every ``Config()``, and ``np.float`` unknown without one.

    configurator.py:625-635 sets the names that the rest of RecBole uses
    (interaction.py:31, metrics.py:90, ...) from names that NumPy 2 dropped; and
    it runs only in ``Config.__init__``, which an unpickled configuration never
    sees.
    """
    for name, kind in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        if name not in vars(np):
            setattr(np, name, kind)
    from recbole.config import Config

    Config.compatibility_settings(None)


def do_without_ray() -> None:
    """Importing ``recbole.quick_start`` needs Ray (quick_start.py:20), running a model does not.

    The stand-in lies in ``sys.modules`` only while quick_start is imported:
    afterwards ``import ray`` means what it meant before, and packages that ask
    whether Ray is there get a true answer.
    """
    if "ray" in sys.modules or ray_is_installed():
        return
    stub: Any = types.ModuleType("ray")
    stub.tune = _NoRay()
    sys.modules["ray"] = stub
    try:
        importlib.import_module("recbole.quick_start.quick_start")
    finally:
        del sys.modules["ray"]


class _NoRay:
    """``ray.tune`` where there is no Ray: the first use says how to get it."""

    def __getattr__(self, name: str) -> Any:
        raise InputError(f"ray.tune.{name} needs Ray, which is not installed: run `pip install 'ray[tune]'`.")


def scale_gradients_by_the_present_name() -> None:
    """``GradScaler is deprecated`` in every epoch: trainer.py:235 uses its old name."""
    from recbole.trainer import Trainer

    edit(Trainer._train_epoch, {"amp.GradScaler(": 'torch.amp.GradScaler("cuda", '})


def leave_anomaly_mode_off() -> None:
    """Everything trains 1.4 times slower: autograd's anomaly mode is on for every model.

    sine.py:25 switches it on at import, and resolving any sequential model
    imports it. Whoever switched it on themselves keeps it.
    """
    sine = "recbole.model.sequential_recommender.sine"
    wanted = torch.is_anomaly_enabled() and sine not in sys.modules
    importlib.import_module(sine)
    torch.autograd.set_detect_anomaly(wanted)


def accept_counts_as_evaluation_data() -> None:
    """Metrics that count items end in ``'int' object has no attribute 'cpu'``.

    collector.py:227 moves all that ItemCoverage, GiniIndex, AveragePopularity
    and TailPercentage need to the CPU, of which only some are tensors.
    """
    from recbole.evaluator import Collector

    move = "self.data_struct._data_dict[key] = self.data_struct._data_dict[key].cpu()"
    tensor = "isinstance(self.data_struct._data_dict[key], torch.Tensor)"
    edit(Collector.get_data_struct, {move: f"if {tensor}: {move}"})


# -- checkpoints -------------------------------------------------------------


def load_whole_checkpoints() -> None:
    """``Weights only load failed``: RecBole's checkpoints hold its ``Config``.

    Since torch 2.6 ``torch.load`` refuses that unless told otherwise. Told are
    RecBole's own calls only: trainer.py:323 and 583, and the models that start
    from a pretrained file (s3rec.py:120, ract.py:75, ...).
    """
    from recbole.trainer import Trainer

    readers = [Trainer.resume_checkpoint, Trainer.evaluate]
    for module, model, method in (
        ("sequential_recommender.s3rec", "S3Rec", "__init__"),
        ("general_recommender.convncf", "ConvNCF", "__init__"),
        ("general_recommender.nais", "NAIS", "_load_pretrain"),
        ("general_recommender.neumf", "NeuMF", "load_pretrain"),
        ("general_recommender.ract", "RaCT", "__init__"),
        ("context_aware_recommender.kd_dagfm", "KD_DAGFM", "__init__"),
    ):
        readers.append(getattr(getattr(importlib.import_module(f"recbole.model.{module}"), model), method))
    for function in readers:
        edit(function, {"torch.load(": "torch.load(weights_only=False, f="})


def name_checkpoints_uniquely() -> None:
    """Two runs that start within one second write the same checkpoint file.

    trainer.py:132 names it by ``get_local_time``, in whole seconds. With
    several processes only the first writes, so the others take its name: by
    their own clocks they would look for a file that does not exist.
    """
    trainer: Any = importlib.import_module("recbole.trainer.trainer")
    stock = trainer.get_local_time

    @functools.wraps(stock)
    def get_local_time() -> str:
        name = [f"{stock()}_{uuid.uuid4().hex[:8]}"]
        if torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(name, src=0)
        return name[0]

    trainer.get_local_time = get_local_time


def write_checkpoints_whole() -> None:
    """A run killed while it writes its best checkpoint leaves half of one (trainer.py:308)."""
    from recbole.trainer import Trainer

    ours = "from recbole_stream.training.checkpoint import save_checkpoint; save_checkpoint(state, saved_model_file)"
    edit(Trainer._save_checkpoint, {"torch.save(state, saved_model_file, pickle_protocol=4)": ours})


# -- data --------------------------------------------------------------------


def count_elements_of_sequences() -> None:
    """Any ``token_seq`` column, and ``benchmark_filename``, crash with pandas 3.

    There ``Series.agg(len)`` is the length of the series, no longer those of
    its elements: dataset.py:712, 792, 809 and 1217, kg_dataset.py:316,
    sequential_dataset.py:163-165.
    """
    from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset

    for function in (
        Dataset._normalize,
        Dataset._discretization,
        Dataset._remap,
        KnowledgeBasedDataset._reset_ent_remapID,
        SequentialDataset._benchmark_presets,
    ):
        edit(function, {".agg(len)": ".map(len)"})


def fill_missing_values() -> None:
    """With pandas 3 missing values stay: the padding row becomes the smallest int64.

    A chained ``fillna(inplace=True)`` fills a copy there: dataset.py:501 (empty
    sequences), 648 (tokens) and 650 (numbers).
    """
    from recbole.data.dataset import Dataset

    edit(
        Dataset._load_feat,
        {'df[field].fillna(value="", inplace=True)': 'df[field] = df[field].fillna(value="")'},
    )
    edit(
        Dataset._fill_nan,
        {
            "feat[field].fillna(value=0, inplace=True)": "feat[field] = feat[field].fillna(value=0)",
            "feat[field].fillna(value=feat[field].mean(), inplace=True)":
                "feat[field] = feat[field].fillna(value=feat[field].mean())",
        },
    )  # fmt: skip


def copy_columns_into_tensors() -> None:
    """With pandas 3 tensors share memory that pandas holds read-only; torch warns each run.

    dataset.py:2199 hands the column's own array to torch.
    """
    from recbole.data.dataset import Dataset

    edit(
        Dataset._dataframe_to_interaction,
        {"value = data[k].values": "value = data[k].to_numpy(copy=True)"},
    )


def download_in_one_process() -> None:
    """The first download ends in ``Default process group has not been initialized``.

    dataset.py:252 waits for the other processes even when there are none.
    """
    from recbole.data.dataset import Dataset

    barrier = "torch.distributed.barrier()"
    edit(Dataset._download, {barrier: f"torch.distributed.is_initialized() and {barrier}"})


def keep_rows_in_time_order() -> None:
    """Interactions close in time swap, so that histories and test items are wrong.

    dataset.py:2207 turns timestamps into float32, whose step at today's Unix
    times is 128 seconds (64 for ml-100k's), before they are sorted
    (sequential_dataset.py:100, dataset.py:1829): 149 of ml-100k's 943 test
    items are not the user's last (4 with RecBole's ``normalize_all``). Sorting
    by user, time and row of the file while the times are still float64 mends
    it, because what follows sorts stably. Where it did not it now does:
    dataset.py:853 (duplicates), interaction.py:349 (descending, which crashed).

    Not touched are random order and files that the user split.
    """
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    edit(
        Dataset._remove_duplication,
        {"by=[self.time_field], ascending=True,": "by=[self.time_field], kind='stable',"},
    )
    edit(
        Interaction.sort,
        {
            "index = torch.tensor(np.array(index)[::-1])":
                "index = torch.sort(key, stable=True, descending=True).indices"
        },
    )  # fmt: skip
    stock = Dataset._change_feat_format

    @functools.wraps(stock)
    def change_feat_format(self: Dataset) -> None:
        if (
            self.config["eval_args"]["order"] == "TO"
            and self.benchmark_filename_list is None
            and self.time_field in self.inter_feat
        ):
            order = _time_order(self.inter_feat[self.uid_field], self.inter_feat[self.time_field])
            self.inter_feat = self.inter_feat.iloc[order].reset_index(drop=True)
        stock(self)

    Dataset._change_feat_format = change_feat_format


def _time_order(users: pd.Series, times: pd.Series) -> np.ndarray:
    """Return the order of rows by user, time and present position, [n_rows].

    ``times`` holds numbers, or pairs of them where the configuration lists the
    time among ``numerical_features``.
    """
    moments = np.array(times.tolist(), dtype=np.float64).reshape(len(times), -1)  # [n_rows, 1 or 2]
    return np.lexsort((*moments.T[::-1], users.to_numpy()))


def compare_our_dataset_keys() -> None:
    """A saved dataset is used again although keys that shape it have changed.

    data/utils.py:55-70 and 125-132 compare the keys of this one list, which
    RecBole also prints as the "Dataset Hyper Parameters".
    """
    from recbole.utils.argument_list import dataset_arguments

    dataset_arguments.extend(key for key in DATASET_KEYS if key not in dataset_arguments)


# -- output ------------------------------------------------------------------


def draw_bars_on_terminals_only() -> None:
    """A log file fills with thousands of carriage returns: ``show_progress`` is True by default (overall.yaml).

    Whether there is a terminal decides now, for RecBole's bars and ours; the log
    has a line for each epoch all the same. Whoever sets the key keeps it. The
    download (url.py:74) has no key.
    """
    from recbole.config import Config
    from recbole.utils import url

    stock = Config._load_internal_config_dict

    @functools.wraps(stock)
    def load_internal_config_dict(self: Config, model: str, model_class: type, dataset: str) -> None:
        stock(self, model, model_class, dataset)
        self.internal_config_dict["show_progress"] = sys.stderr.isatty()

    Config._load_internal_config_dict = load_internal_config_dict
    edit(url.download_url, {"tqdm(range(num_iter))": "tqdm(range(num_iter), disable=None)"})
