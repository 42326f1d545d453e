"""What RecBole 1.2.1 does wrong when several processes share a run, and its mend."""

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

import torch

from recbole_stream.errors import InputError
from recbole_stream.host.repairs.edit import edit
from recbole_stream.host.torchrun import PATIENCE, started_by_torchrun
from recbole_stream.training.processes import is_first

__all__ = [
    "AveragedGradients",
    "average_over_users",
    "let_one_process_log",
    "make_folders_together",
    "tell_children_of_us",
    "train_on_several_cpus",
]


def train_on_several_cpus() -> None:
    """Several processes need one GPU each: NCCL and CUDA are written into the code.

    configurator.py:497-511 and trainer.py:61-65. Without a GPU, or with
    ``gpu_id: ''``, the processes now talk through gloo. Batch normalisation
    then keeps its statistics per process: torch synchronises it on GPUs only.

    Processes that torchrun started are taken for what they are, and a second
    configuration does not form their group a second time. Each waits for the
    others as long as it takes.
    """
    from recbole.config import Config
    from recbole.trainer.trainer import AbstractTrainer

    stock_device, stock_init = Config._init_device, AbstractTrainer.__init__

    @functools.wraps(stock_device)
    def init_device(self: Config) -> None:
        final = self.final_config_dict
        if "local_rank" not in final:
            final.update(started_by_torchrun())
        gpus = final["gpu_id"]
        gpus = ",".join(map(str, gpus)) if isinstance(gpus, tuple) else str(gpus)
        # before torch is asked: it looks at this variable once
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
        if "local_rank" not in final or (gpus and torch.cuda.is_available()):
            if "local_rank" in final and len(gpus.split(",")) < final["nproc"]:
                raise InputError(
                    f"gpu_id is {gpus!r}, but {final['nproc']} processes need a GPU each: name as many, or set gpu_id to ''."
                )
            stock_device(self)
            return
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                backend="gloo",
                timeout=PATIENCE,
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
        self.distributed_model = AveragedGradients(model)

    form = "torch.distributed.init_process_group("
    patience = f"timeout=__import__('datetime').timedelta(days={PATIENCE.days}), "
    edit(stock_device, {form: f"torch.distributed.is_initialized() or {form}{patience}"})
    Config._init_device = init_device
    AbstractTrainer.__init__ = init


class AveragedGradients:
    """What torch's DistributedDataParallel does for RecBole's trainers, for processes on a CPU.

    Torch's never lets its process group go, so that gloo's threads still run while the interpreter is torn down: now and
    then such a process ends with SIGABRT, "terminate called without an active exception", after all is done.

    Args:
        model: it starts with the weights of the first process.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.hooked = model, False
        for tensor in (*model.parameters(), *model.buffers()):
            _take_from_first(tensor.detach())

    def __call__(self, _: torch.Tensor) -> None:
        """RecBole calls it once before each epoch (``set_reduce_hook``), and sees to it that each backward pass reaches
        every parameter in all processes. Our own trainers add up gradients themselves and never call it."""
        for buffer in self.model.buffers():
            _take_from_first(buffer)
        if not self.hooked:
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(_average_gradient)
            self.hooked = True


def _take_from_first(tensor: torch.Tensor) -> None:
    sent = tensor.contiguous()
    torch.distributed.broadcast(sent, src=0)
    tensor.copy_(sent)


def _average_gradient(parameter: torch.Tensor) -> None:
    torch.distributed.all_reduce(parameter.grad)
    parameter.grad /= torch.distributed.get_world_size()


def let_one_process_log() -> None:
    """Every process writes a log file and a TensorBoard folder of its own; now only the first does.

    utils/logger.py:111, utils/utils.py:231.
    """
    from recbole.utils import init_logger

    edit(
        init_logger,
        {
            "logging.FileHandler(logfilepath)":
                "logging.NullHandler() if config['local_rank'] else logging.FileHandler(logfilepath)"
        },
    )  # fmt: skip
    trainer: Any = importlib.import_module("recbole.trainer.trainer")
    stock = trainer.get_tensorboard

    @functools.wraps(stock)
    def get_tensorboard(logger: Any) -> Any:
        return stock(logger) if is_first() else _NoBoard()

    trainer.get_tensorboard = get_tensorboard


class _NoBoard:
    """A TensorBoard writer that writes nothing."""

    def add_scalar(self, *arguments: Any, **named: Any) -> None: ...

    def add_hparams(self, *arguments: Any, **named: Any) -> None: ...


def make_folders_together() -> None:
    """Processes that start together end in ``FileExistsError: './log'`` now and then.

    utils.py:52 makes a folder that another process made since line 51 looked.
    """
    from recbole.utils import ensure_dir

    edit(ensure_dir, {"os.makedirs(dir_path)": "os.makedirs(dir_path, exist_ok=True)"})


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
    launcher = importlib.import_module("recbole_stream.host.run.launcher")
    launcher.run_recboles.__module__ = launcher.__name__
