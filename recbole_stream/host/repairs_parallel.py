"""What RecBole 1.2.1 does wrong when several processes share a run, and its mend."""

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

import torch

from recbole_stream.host.edit import edit

__all__ = [
    "average_over_users",
    "load_what_several_processes_trained",
    "make_folders_together",
    "tell_children_of_us",
    "train_on_several_cpus",
]


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


def make_folders_together() -> None:
    """Processes that start together end in ``FileExistsError: './log'`` now and then.

    utils.py:52 makes a folder that another process made since line 51 looked.
    """
    from recbole.utils import ensure_dir

    edit(ensure_dir, {"os.makedirs(dir_path)": "os.makedirs(dir_path, exist_ok=True)"})


def load_what_several_processes_trained() -> None:
    """``load_data_and_model`` of such a checkpoint: ``Default process group ...``.

    The configuration in it still says that there are several
    (quick_start.py:251), so that the data loaders ask which one they are.
    """
    from recbole.quick_start import load_data_and_model

    config = 'config = checkpoint["config"]'
    alone = "config.final_config_dict.update(single_spec=True)"
    edit(load_data_and_model, {config: f"{config}; torch.distributed.is_initialized() or {alone}"})


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
    edit(
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
