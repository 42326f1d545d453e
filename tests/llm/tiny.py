"""A random language model of some thousand parameters, whose words are those of a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

__all__ = ["save_language_model"]

CHAT = "{% for message in messages %}user: {{ message['content'] }}{% endfor %} answer:"


def save_language_model(folder: Path, texts: Sequence[str], chat: bool = False, positions: int = 256) -> str:
    """Write it with its tokenizer into a folder, and return that."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["<unk>", "<pad>", "<end>"]))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<end>", bos_token="<end>"
    )
    if chat:
        fast.chat_template = CHAT
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = GPT2Config(
        vocab_size=len(fast), n_positions=positions, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3,
        bos_token_id=2, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    GPT2LMHeadModel(sizes).save_pretrained(folder)
    return str(folder)
