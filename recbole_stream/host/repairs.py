"""What RecBole 1.2.1 does wrong on today's packages, and the smallest mend for each.

Line numbers are of the 1.2.1 wheel. Most faults are one expression inside a
long function. ``_edit`` exchanges just that expression and leaves the rest of
RecBole's function as it is, in place: whoever imported the function before us
has the mended one too. The other repairs wrap a method or set a name.

The repairs act on the running process only; RecBole's files stay untouched.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import logging
import os
import sys
import textwrap
import types
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_stream.errors import InputError
from recbole_stream.host.configuration import DATASET_KEYS

__all__ = ["apply"]


def apply() -> None:
    """Apply every repair, once per process and before RecBole is used."""
    for repair in (
        name_the_old_numpy_types,
        do_without_ray,
        leave_anomaly_mode_off,
        load_whole_checkpoints,
        count_elements_of_sequences,
        fill_missing_values,
        download_in_one_process,
        keep_rows_in_time_order,
        compare_our_dataset_keys,
        name_checkpoints_uniquely,
        train_on_several_cpus,
        average_over_users,
        tell_children_of_us,
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
    if "ray" in sys.modules or importlib.util.find_spec("ray") is not None:
        return
    stub = types.ModuleType("ray")
    stub.tune = _NoRay()
    sys.modules["ray"] = stub
    try:
        importlib.import_module("recbole.quick_start.quick_start")
    finally:
        del sys.modules["ray"]


class _NoRay:
    """``ray.tune`` where there is no Ray: the first use says how to get it."""

    def __getattr__(self, name: str) -> Any:
        raise InputError(
            f"ray.tune.{name} needs Ray, which is not installed: run `pip install 'ray[tune]'`."
        )


def leave_anomaly_mode_off() -> None:
    """Everything trains 1.4 times slower: autograd's anomaly mode is on for every model.

    sine.py:25 switches it on at import, and resolving any sequential model
    imports it. Whoever switched it on themselves keeps it.
    """
    sine = "recbole.model.sequential_recommender.sine"
    wanted = torch.is_anomaly_enabled() and sine not in sys.modules
    importlib.import_module(sine)
    torch.autograd.set_detect_anomaly(wanted)


# -- checkpoints -------------------------------------------------------------


def load_whole_checkpoints() -> None:
    """``Weights only load failed``: RecBole's checkpoints hold its ``Config``.

    Since torch 2.6 ``torch.load`` refuses that unless told otherwise. Told are
    RecBole's own calls only: trainer.py:323 and 583, quick_start.py:250, and
    the models that start from a pretrained file (s3rec.py:120, ract.py:75, ...).
    """
    from recbole.quick_start import load_data_and_model
    from recbole.trainer import Trainer

    readers = [Trainer.resume_checkpoint, Trainer.evaluate, load_data_and_model]
    for module, model, method in (
        ("sequential_recommender.s3rec", "S3Rec", "__init__"),
        ("general_recommender.convncf", "ConvNCF", "__init__"),
        ("general_recommender.nais", "NAIS", "_load_pretrain"),
        ("general_recommender.neumf", "NeuMF", "load_pretrain"),
        ("general_recommender.ract", "RaCT", "__init__"),
        ("context_aware_recommender.kd_dagfm", "KD_DAGFM", "__init__"),
    ):
        readers.append(
            getattr(getattr(importlib.import_module(f"recbole.model.{module}"), model), method)
        )
    for function in readers:
        _edit(function, {"torch.load(": "torch.load(weights_only=False, f="})


def name_checkpoints_uniquely() -> None:
    """Two runs that start within one second write the same checkpoint file.

    trainer.py:132 names it by ``get_local_time``, in whole seconds. With
    several processes only the first writes, so the others take its name: by
    their own clocks they would look for a file that does not exist.
    """
    trainer = importlib.import_module("recbole.trainer.trainer")
    stock = trainer.get_local_time

    @functools.wraps(stock)
    def get_local_time() -> str:
        name = [f"{stock()}_{uuid.uuid4().hex[:8]}"]
        if torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(name, src=0)
        return name[0]

    trainer.get_local_time = get_local_time


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
        _edit(function, {".agg(len)": ".map(len)"})


def fill_missing_values() -> None:
    """With pandas 3 missing values stay: the padding row becomes the smallest int64.

    A chained ``fillna(inplace=True)`` fills a copy there: dataset.py:501 (empty
    sequences), 648 (tokens) and 650 (numbers).
    """
    from recbole.data.dataset import Dataset

    _edit(
        Dataset._load_feat,
        {'df[field].fillna(value="", inplace=True)': 'df[field] = df[field].fillna(value="")'},
    )
    _edit(
        Dataset._fill_nan,
        {
            "feat[field].fillna(value=0, inplace=True)": "feat[field] = feat[field].fillna(value=0)",
            "feat[field].fillna(value=feat[field].mean(), inplace=True)":
                "feat[field] = feat[field].fillna(value=feat[field].mean())",
        },
    )  # fmt: skip


def download_in_one_process() -> None:
    """The first download ends in ``Default process group has not been initialized``.

    dataset.py:252 waits for the other processes even when there are none.
    """
    from recbole.data.dataset import Dataset

    barrier = "torch.distributed.barrier()"
    _edit(Dataset._download, {barrier: f"torch.distributed.is_initialized() and {barrier}"})


def keep_rows_in_time_order() -> None:
    """Interactions close in time swap, so that histories and test items are wrong.

    dataset.py:2207 turns timestamps into float32, whose step at today's Unix
    times is 128 seconds (64 for ml-100k's), before they are sorted
    (sequential_dataset.py:100, dataset.py:1829): 149 of ml-100k's 943 test
    items are not the user's last. Sorting by user, time and row of the file
    while the times are still float64 mends it, because what follows sorts
    stably. Where it did not it now does: dataset.py:853 (duplicates) and
    interaction.py:349 (descending, which crashed).

    Not touched are random order and files that the user split.
    """
    from recbole.data.dataset import Dataset
    from recbole.data.interaction import Interaction

    _edit(
        Dataset._remove_duplication,
        {"by=[self.time_field], ascending=True,": "by=[self.time_field], kind='stable',"},
    )
    _edit(
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


# -- several processes -------------------------------------------------------


def train_on_several_cpus() -> None:
    """Several processes need one GPU each: NCCL and CUDA are written into the code.

    configurator.py:497-511 and trainer.py:61-65. Without a GPU, or with
    ``gpu_id: ''``, the processes now talk through gloo. Batch normalisation
    then keeps its statistics per process: torch synchronises it on GPUs only.
    """
    from recbole.config import Config
    from recbole.trainer.trainer import AbstractTrainer

    stock_device, stock_init = Config._init_device, AbstractTrainer.__init__

    @functools.wraps(stock_device)
    def init_device(self: Config) -> None:
        final = self.final_config_dict
        gpus = final["gpu_id"]
        gpus = ",".join(map(str, gpus)) if isinstance(gpus, tuple) else str(gpus)
        # before torch is asked: it looks at this variable once
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
        if "local_rank" not in final or (gpus and torch.cuda.is_available()):
            stock_device(self)
            return
        torch.distributed.init_process_group(
            backend="gloo",
            rank=final["local_rank"] + final["offset"],
            world_size=final["world_size"],
            init_method=f"tcp://{final['ip']}:{final['port']}",
        )
        final.update(gpu_id=gpus, device=torch.device("cpu"), single_spec=False)
        if final["local_rank"] != 0:
            final.update(state="error", show_progress=False, verbose=False)

    @functools.wraps(stock_init)
    def init(self: AbstractTrainer, config: Config, model: torch.nn.Module) -> None:
        if config["single_spec"] or config["device"].type != "cpu":
            stock_init(self, config, model)
            return
        self.config = config
        self.model = model
        self.distributed_model = torch.nn.parallel.DistributedDataParallel(model)

    Config._init_device = init_device
    AbstractTrainer.__init__ = init


def average_over_users() -> None:
    """With several processes the averages of metrics weigh users unequally.

    trainer.py:612 counts ``len(batched_data)``, the 4 parts of a batch, as its
    users; and the sampler of abstract_dataloader.py:71 repeats rows until all
    processes have equally many. Now users are counted, and evaluation repeats
    none (nothing there needs equal shares; training does, and still pads). With
    that, averages over users are exact but for RecBole's rounding of each
    process's share to ``metric_decimal_place``. Metrics that are no averages
    over users (coverage, Gini, entropy, AUC) remain averages of shares.

    Before the best checkpoint is read, every process waits until the first has
    written it.
    """
    from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
    from recbole.trainer import Trainer

    # batched_data: interaction, history, user of each positive (None: none sampled), positives
    users = "len(batched_data[0] if batched_data[2] is None else batched_data[2].unique())"
    best = "checkpoint_file = model_file or self.saved_model_file"
    _edit(
        Trainer.evaluate,
        {
            "num_sample += len(batched_data)": f"num_sample += {users}",
            best: f"{best}; self.config['single_spec'] or torch.distributed.barrier()",
        },
    )
    for loader in (FullSortEvalDataLoader, NegSampleEvalDataLoader):
        loader.__init__ = _without_repeats(loader.__init__)


def _without_repeats(stock: Callable[..., None]) -> Callable[..., None]:
    """Wrap a data loader's ``__init__`` so that its distributed sampler repeats no row."""

    @functools.wraps(stock)
    def init(self: Any, config: Any, *arguments: Any, **named: Any) -> None:
        stock(self, config, *arguments, **named)
        if config["single_spec"] or self.sample_size < config["world_size"]:
            return  # a process without any row could compute no metric
        sampler = self.sampler
        sampler.total_size = self.sample_size
        sampler.num_samples = len(range(sampler.rank, self.sample_size, sampler.num_replicas))

    return init


def tell_children_of_us() -> None:
    """Processes that ``recbole.quick_start.run(nproc=2)`` starts do not know our models.

    A started process imports what it unpickles, and quick_start.py:63 sends
    ``run_recboles``. Sent as a part of our launcher, it brings the package.
    """
    launcher = importlib.import_module("recbole_stream.host.launcher")
    launcher.run_recboles.__module__ = launcher.__name__


# -- the tool ----------------------------------------------------------------


def _edit(function: Callable[..., Any], replacements: dict[str, str]) -> None:
    """Exchange expressions inside a function of RecBole, in place.

    The function is compiled anew from its source with the replacements made;
    defaults, decorators and the lines shown in tracebacks stay. A function
    that does not contain an expression (someone mended their copy of RecBole)
    is left alone and named in a warning. Edits add up, because each starts
    from what the earlier ones left.
    """
    function = inspect.unwrap(function)
    source = _edited_source.get(function) or textwrap.dedent(inspect.getsource(function))
    for old, new in replacements.items():
        if old not in source:
            logging.getLogger().warning(
                "%s.%s of this RecBole is not that of 1.2.1 and stays unrepaired: %r not found.",
                function.__module__, function.__qualname__, old,
            )  # fmt: skip
        source = source.replace(old, new)
    _edited_source[function] = source
    tree = ast.parse(source)
    if function.__code__.co_freevars:  # ("__class__",): a method that calls super()
        inside = ast.parse("class _: pass")
        inside.body[0].body = tree.body
        tree = inside
    tree = ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    module = compile(tree, function.__code__.co_filename, "exec")
    function.__code__ = _find_code(module, function.__name__)


_edited_source: dict[Callable[..., Any], str] = {}


def _find_code(outer: types.CodeType, name: str) -> types.CodeType:
    """Return the code of the function ``name`` at the top level or in the class there."""
    codes = [constant for constant in outer.co_consts if isinstance(constant, types.CodeType)]
    return codes[0] if codes[0].co_name == name else _find_code(codes[0], name)
