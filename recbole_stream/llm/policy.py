"""A causal language model in a folder: checked, loaded, and asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recbole_stream.errors import InputError

__all__ = ["as_input", "check_language_model", "complete", "load_policy"]


def check_language_model(path: str | None) -> None:
    """Check that there is a language model to train, and what trains it.

    Raises:
        InputError: no folder, one that holds no model of transformers, or TRL is not installed.
    """
    if path is None:
        raise InputError(
            "llm_path is not set: RecR1 trains a language model that you have, so name the folder of a causal model that "
            "transformers can load."
        )
    if not (Path(path) / "config.json").is_file():
        raise InputError(
            f"llm_path is {path}, which holds no config.json: name the folder of a causal model that transformers can load."
        )
    if importlib.util.find_spec("trl") is None:
        raise InputError('RecR1 needs TRL: run `pip install -c requirements.txt -e ".[llm]"`.')


def load_policy(path: str) -> tuple[nn.Module, Any]:
    """The model of a folder in float32, and its tokenizer, which pads on the left.

    Raises:
        InputError: transformers cannot load them.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, padding_side="left")
    except Exception as fault:  # the library raises whatever its file formats raise
        raise InputError(
            f"llm_path is {path}, which transformers cannot load ({type(fault).__name__}): name the folder of a causal "
            "model with its tokenizer."
        ) from fault
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def as_input(prompt: str, tokenizer: Any) -> str | list[dict[str, str]]:
    """A prompt as TRL and :func:`complete` take it: the message of a user where the tokenizer has a chat template."""
    return prompt if tokenizer.chat_template is None else [{"role": "user", "content": prompt}]


def tokenize(prompts: Sequence[str], tokenizer: Any) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` [B, T], padded on the left."""
    inputs = [as_input(prompt, tokenizer) for prompt in prompts]
    if tokenizer.chat_template is None:
        encoded = tokenizer(inputs, padding=True, return_tensors="pt")
    else:
        encoded = tokenizer.apply_chat_template(
            inputs, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def check_context(model: nn.Module, tokenizer: Any, longest: str, tokens: int) -> None:
    """Check that the model can read the longest prompt and write ``tokens`` after it.

    Raises:
        InputError: it has fewer positions.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    needed = tokenize([longest], tokenizer)["input_ids"].shape[1] + tokens
    if limit is not None and needed > limit:
        raise InputError(
            f"The language model reads {limit} tokens, but the longest prompt and llm_tokens make {needed}: lower "
            "MAX_ITEM_LIST_LENGTH, llm_title_words or llm_tokens."
        )


@torch.no_grad()
def complete(model: nn.Module, tokenizer: Any, prompts: Sequence[str], tokens: int) -> list[str]:
    """The likeliest completions, token by token (greedy): the same prompt has the same completion.

    Args:
        model, tokenizer: of :func:`load_policy`; the model in evaluation mode.
        prompts: [B].
        tokens: at most.
    """
    encoded = {name: value.to(model.device) for name, value in tokenize(prompts, tokenizer).items()}
    written = model.generate(
        **encoded,
        max_new_tokens=tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.batch_decode(written[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
