"""What the values of our configuration keys must be.

``RULES`` maps a key to a rule made with the builders of
``recbole_stream.host.configuration``; the configuration hook applies it to
TIGER and STREAMRec before any data is read. What each key means stands beside
it in properties/model/*.yaml. ``SHARED_RULES``, a part of it, holds for every
model of a table, RecBole's too; those keys stand in properties/run.yaml.
"""

from collections.abc import Mapping
from typing import Any

from recbole_stream.errors import InputError
from recbole_stream.host.configuration import (
    Rule,
    boolean,
    integer,
    list_of_strings,
    number,
    one_of,
    optional,
)
from recbole_stream.llm.policy import check_language_model
from recbole_stream.llm.prompt import ANSWERS
from recbole_stream.llm.retrieval import RETRIEVALS
from recbole_stream.model.deliberation import VIEWS
from recbole_stream.model.rivals.rearec import WAYS
from recbole_stream.tokenizer.semantic_ids import METHODS
from recbole_stream.training.reinforce import REWARDS

__all__ = ["RULES", "SHARED_RULES", "STAGES", "check_combinations", "trained_stages", "view_names"]

STAGES = ("pretrain", "finetune", "reinforce", "match")

# names of views before version 0.2, which views_off understands until 0.3
_OLD_VIEWS = {
    "generation": "likelihood",
    "state": "matching",
    "memory": "transitions",
    "content": "text",
    "seen": "repeats",
}

_positive, _count, _share = integer(minimum=1), integer(minimum=0), number(minimum=0, maximum=1)
_rate, _weight = number(above=0, maximum=1), number(minimum=0)


def _makes_sense(stages: Any) -> bool:
    """Whether each stage but the first finds what it starts from: fine-tuning a pretrained model, GRPO a fine-tuned one."""
    if not isinstance(stages, list) or not stages:
        return False
    writes = [stage for stage in stages if stage != "match"]
    first = STAGES.index(writes[0]) if writes and writes[0] in STAGES else 0
    return writes == list(STAGES[first : first + len(writes)]) and stages[len(writes) :] in ([], ["match"])


_text = Rule("a string", lambda value: isinstance(value, str) and value != "")

SHARED_RULES: dict[str, Rule] = {
    "epochs": _positive,
    "eval_step": _positive,  # RecBole's 0 validates nothing, and there would be no best epoch to rank by
    "leave_out_seen": optional(boolean()),
    "max_train_seconds": optional(_weight),
}

RULES: dict[str, Rule] = SHARED_RULES | {
    # text and tokenizer
    "text_fields": optional(list_of_strings()),
    "text_encoder": _text,
    "text_max_length": integer(minimum=8),
    "cache_dir": _text,
    "semantic_ids_file": optional(_text),
    "tokenizer": one_of(*METHODS),
    "codebook_levels": integer(minimum=2, maximum=64),
    "codebook_size": integer(minimum=2),
    "unique_ids": one_of("reassign", "counter", "sinkhorn"),
    "rq_vae_hidden_sizes": Rule(
        "a list of whole numbers of at least 1",
        lambda value: isinstance(value, list) and all(_positive.accepts(size) for size in value),
    ),
    "rq_vae_latent_size": _positive,
    "rq_vae_epochs": _positive,
    "rq_vae_learning_rate": _rate,
    "rq_vae_batch_size": _positive,
    "rq_vae_beta": _weight,
    "letter_collaborative_weight": _weight,
    "letter_diversity_weight": _weight,
    "letter_clusters": _positive,
    "collaborative_epochs": _positive,
    # backbone
    "hidden_size": _positive,
    "inner_size": _positive,
    "n_heads": _positive,
    "head_size": _positive,
    "encoder_layers": _positive,
    "decoder_layers": _positive,
    "dropout": number(minimum=0, maximum=0.9),
    "history_input": one_of("item", "tokens"),
    "temperature": number(above=0),
    # reasoning
    "reasoning_steps": _positive,
    "reasoning_mlp": one_of("residual", "plain"),
    "reasoning_scale": one_of("raw", "unit"),
    "similar_items": integer(minimum=2),
    # stages
    "stages": Rule(
        f"a list of some of {', '.join(STAGES)}, in this order and each once, where finetune needs pretrain and reinforce "
        "needs finetune",
        _makes_sense,
    ),
    "start_from": optional(_text),
    "learning_rate": _rate,
    "stopping_step": _count,
    "pretrain_similar": _count,
    "pretrain_epochs": _positive,
    "pretrain_learning_rate": _rate,
    "pretrain_patience": _count,
    "finetune_init": one_of("direct", "pretrained"),
    "finetune_epochs": _positive,
    "finetune_learning_rate": _rate,
    "finetune_patience": _count,
    "collect_epochs": _positive,
    "collect_rounds": _positive,
    "dpo_weight": _weight,
    "quant_weight": _weight,
    "state_weight": _weight,
    "dpo_beta": number(above=0),
    "quant_beta": _weight,
    "state_similarity": one_of("cosine", "dot"),
    "state_temperature": number(above=0),
    "straight_through": boolean(),
    "reinforce_epochs": _positive,
    "reinforce_learning_rate": _rate,
    "reinforce_patience": _count,
    "reinforce_batch_size": integer(minimum=2),
    "reinforce_samples": _count,
    "group_size": integer(minimum=2),
    "reinforce_updates": _positive,
    "reinforce_clip": number(above=0),
    "kl_weight": _weight,
    "importance_sampling": one_of("sequence", "token"),
    "reward_normalisation": one_of("sum", "each"),
    "reward_weights": Rule(
        f"a dict of numbers of at least 0, not all 0, for {', '.join(REWARDS)}",
        lambda value: (
            isinstance(value, dict)
            and set(value) == set(REWARDS)
            and all(_weight.accepts(weight) for weight in value.values())
            and any(value.values())
        ),
    ),
    "reinforce_positions": one_of("thinking", "all"),
    # deliberation
    "matching_epochs": _count,
    "matching_learning_rate": _rate,
    "matching_patience": _count,
    "matching_dropout": number(minimum=0, maximum=0.9),
    "lookup_window": _positive,
    "lookup_decay": number(above=0, maximum=1),
    "lookup_backward": _share,
    "lookup_recency": number(above=0, maximum=1),
    "lookup_neighbours": _count,
    "candidates": _positive,
    "weigh_users": _positive,
    "verifier_size": _count,
    "pointer_size": _count,
    "views_off": Rule(
        f"a list of some of {', '.join(VIEWS)}, but not all",
        lambda value: value is None or (isinstance(value, list) and set(view_names(value)) < set(VIEWS)),
    ),
    # models of other papers
    "transition_weight": _weight,
    "text_weight": _weight,
    "exclude_history": boolean(),
    "latte_starts": integer(minimum=1, maximum=64),
    "rearec": one_of(*WAYS),
    "rearec_steps": integer(minimum=0, maximum=4),
    "rearec_temperature": number(above=0),
    "rearec_kl_weight": _weight,
    "rearec_annealing": number(minimum=1),
    "rearec_noise": _weight,
    "etegrec_cycle": integer(minimum=2),
    "etegrec_turns": _count,
    "etegrec_rate": number(above=0),
    "etegrec_sequence_weight": _weight,
    "etegrec_preference_weight": _weight,
    "etegrec_temperature": number(above=0),
    "llm_path": optional(_text),
    "llm_answer": one_of(*ANSWERS),
    "llm_title_words": _positive,
    "llm_tokens": _positive,
    "llm_retrieval": one_of(*RETRIEVALS),
    "llm_reward_depth": _positive,
    "llm_format_weight": _weight,
    "llm_samples": _count,
    "llm_micro_batch": _positive,
    "llm_temperature": number(above=0),
    "llm_top_p": number(above=0, maximum=1),
    # training and ranking
    "train_batch_size": integer(minimum=2),
    "warmup_steps": _count,
    "weight_decay": _weight,
    "label_smoothing": _share,
    "max_grad_norm": number(above=0),
    "ema": number(minimum=0, maximum=0.99999),
    "precision": one_of("auto", "bfloat16", "float32"),
    "resume_dir": optional(_text),
    "save_seconds": _weight,
    "search": one_of("beam", "exact"),
    "beam_size": _positive,
    "eval_batch_size": _positive,
}


def view_names(views_off: list[str] | None) -> tuple[str, ...]:
    """The views that ``views_off`` names, old names replaced by today's."""
    return tuple(_OLD_VIEWS.get(view, view) for view in views_off or ())


def trained_stages(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The stages that STREAMRec trains; all where the configuration is older than the key ``stages``."""
    stages = config["stages"] or STAGES
    return tuple(stage for stage in stages if stage != "match" or config["matching_epochs"])


def check_combinations(config: Mapping[str, Any]) -> None:
    """Check what no single key shows.

    Raises:
        InputError: a search that keeps fewer items than are to be recommended; more similar items than are kept; the
            stage ``match`` without epochs, or alone without a view to rank by; a first stage without what it starts from,
            or ``start_from`` where nothing starts from it; LETTER with vectors or clusters of an
            impossible size; RecR1 without a language model or TRL, or with completions that do not divide into backward
            passes.
    """
    if config["llm_answer"]:  # which RecR1 alone has
        completions, part = config["train_batch_size"] * config["group_size"], config["llm_micro_batch"]
        if completions % part:
            raise InputError(
                f"llm_micro_batch is {part}, but must divide the {completions} completions of a step (train_batch_size * "
                "group_size)."
            )
        check_language_model(config["llm_path"])
    written, kept = config["pretrain_similar"], config["similar_items"]
    if written and written > kept:  # TIGER has neither
        raise InputError(
            f"pretrain_similar is {written}, but similar_items keeps only {kept}: set that to at least {written}."
        )
    stages, start = config["stages"], config["start_from"]
    if stages and not start and stages[0] in ("finetune", "reinforce"):
        before = STAGES[STAGES.index(stages[0]) - 1]
        raise InputError(
            f"stages is {stages!r}, but {stages[0]} needs {before}: add that, or name a run that has it as start_from."
        )
    if stages and start and stages[0] == "pretrain":
        raise InputError(
            f"start_from is {start!r}, but pretrain, the first of stages, starts from nothing: leave one of them out."
        )
    if stages and "match" in stages and tuple(stages) != STAGES and config["matching_epochs"] == 0:
        raise InputError(
            f"stages is {stages!r}, but matching_epochs is 0: set that to at least 1, or leave match out of stages."
        )
    if stages == ["match"] and not start and {*view_names(config["views_off"]), "likelihood"} == set(VIEWS):
        raise InputError(
            "stages is ['match'], which trains no likelihood, and views_off names all other views: leave one on."
        )
    if config["tokenizer"] == "letter":
        if config["rq_vae_latent_size"] % 4:
            raise InputError(
                f"rq_vae_latent_size is {config['rq_vae_latent_size']}, but tokenizer letter needs a multiple of 4, the "
                "heads of the encoder that makes its collaborative vectors."
            )
        if 2 * config["letter_clusters"] > config["codebook_size"]:
            raise InputError(
                f"letter_clusters is {config['letter_clusters']}, but codebook_size {config['codebook_size']} makes at "
                f"most {config['codebook_size'] // 2} clusters of two codewords: lower it."
            )
    if config["beam_size"] and config["beam_size"] < max(config["topk"]):  # others search nothing
        raise InputError(
            f"beam_size is {config['beam_size']}, but topk asks for {max(config['topk'])} items: "
            f"set beam_size to at least {max(config['topk'])}."
        )
