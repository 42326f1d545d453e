"""RecR1 as a RecBole model: a language model that asks a retrieval, trained by TRL's GRPO on the retrieval's NDCG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from recbole.config import Config
from recbole.data.dataloader import AbstractDataLoader
from torch import Tensor

from recbole_stream.data.histories import right_padded
from recbole_stream.data.samples import Samples
from recbole_stream.errors import InputError
from recbole_stream.host.dataset import ItemTextDataset
from recbole_stream.host.items import ItemTable
from recbole_stream.host.rivals.catalogue import CatalogueRecommender
from recbole_stream.host.stages import Plan
from recbole_stream.host.trainer import GenerativeTrainer
from recbole_stream.llm.policy import as_input, load_policy
from recbole_stream.llm.recr1 import RecR1Model, RecR1Options
from recbole_stream.llm.retrieval import BM25, Cosine
from recbole_stream.llm.reward import reward_function
from recbole_stream.text.encoder import TextEncoder
from recbole_stream.training.loop import autocast
from recbole_stream.training.processes import processes

__all__ = ["RecR1", "RecR1Dataset", "RecR1Trainer"]


class RecR1(CatalogueRecommender):
    """A language model, asked once for each history; see :class:`RecR1Model`."""

    def __init__(self, config: Config, dataset: RecR1Dataset) -> None:
        super().__init__(config, dataset)
        if config["llm_retrieval"] == "cosine":
            encode = TextEncoder(config["text_encoder"], config["text_max_length"], str(config["device"]))
            retrieval: Cosine | BM25 = Cosine(dataset.text[1:].numpy(), encode)
        else:
            retrieval = BM25(dataset.texts)
        options = RecR1Options(
            config["llm_answer"], config["llm_title_words"], config["llm_tokens"], self.max_seq_length
        )
        self.network = RecR1Model(*load_policy(config["llm_path"]), dataset.texts, retrieval, options)
        self.precision = "float32"  # the trainer's, once there is one

    def score(self, histories: Tensor) -> Tensor:
        with autocast(histories.device, self.precision):
            return self.network(histories)


class RecR1Dataset(ItemTextDataset):
    """Keeps the items' texts, which prompts are made of; their vectors only where the retrieval compares them.

    Attributes:
        texts: [item_num - 1], of the items from 1.
    """

    def _attach_items(self) -> None:
        super()._attach_items()
        self.texts = self._texts(self.items.tokens)

    def _make_items(self, tokens: list[str]) -> ItemTable:
        if self.config["llm_retrieval"] == "cosine":
            return super()._make_items(tokens)
        return ItemTable(tokens, None, None, {"encoder": None})


class RecR1Trainer(GenerativeTrainer):
    """One stage, which TRL trains; no objective of ours does."""

    def __init__(self, config: Config, model: RecR1) -> None:
        super().__init__(config, model)
        if processes() > 1:
            raise InputError("RecR1 trains in one process: leave nproc out.")
        model.precision = self.precision

    def plan(self, samples: Samples) -> list[Plan]:
        schedule = self.schedule(
            "epochs", "learning_rate", "stopping_step", samples_per_epoch=self.config["llm_samples"], ema=0.0
        )
        return [Plan(0, self.model.first_objective, schedule, evaluate_first=True)]

    def _stage(
        self,
        plan: Plan,
        samples: Samples,
        valid_data: AbstractDataLoader,
        show_progress: bool,
        callback_fn: Callable[[int, float], None] | None,
    ) -> None:
        from recbole_stream.llm.grpo import GRPOOptions, train_policy  # imports TRL

        config, network = self.config, self.model.network

        def prompts(rows: Sequence[int]) -> list:
            histories = right_padded(samples.histories[list(rows)], self.model.max_seq_length)
            return [as_input(prompt, network.tokenizer) for prompt in network.prompts(histories)]

        context = self._context("GRPO", plan, valid_data, show_progress, callback_fn)
        options = GRPOOptions(
            group=config["group_size"],
            micro_batch=config["llm_micro_batch"],
            tokens=config["llm_tokens"],
            temperature=config["llm_temperature"],
            top_p=config["llm_top_p"],
            kl_weight=config["kl_weight"],
        )
        reward = reward_function(network.places, config["llm_reward_depth"], config["llm_format_weight"])
        folder = Path(config["resume_dir"]) / f"seed{config['seed']}-trl" if config["resume_dir"] else None
        targets = (samples.targets - 1).tolist()
        result = train_policy(
            network.policy, network.tokenizer, prompts, targets, reward, options, plan.schedule, context, folder
        )
        self._end(result)
