"""A byte-pair tokenizer trained on the run's own texts, for backbones from scratch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from proassist_lit.sequence.chat import ChatFormat

# Step ids (S1, S12) are words of their own, so that naming a step is one token.
_WORDS = r" ?S\p{N}+|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def train_tokenizer(texts: Iterable[str], chat_format: ChatFormat, vocab_size: int) -> Any:
    """Train a byte-level BPE tokenizer; any text can be written with it.

    Args:
        texts: what to train on; their order does not matter.
        chat_format: its special tokens become single tokens.
        vocab_size: most tokens; the 256 bytes and the special tokens are always among them.

    Returns:
        A Hugging Face ``PreTrainedTokenizerFast``.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    end_of_turn = chat_format.end_of_turn or "<|end|>"
    special = list(dict.fromkeys([*chat_format.special_tokens, end_of_turn, chat_format.image]))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end_of_turn,
        additional_special_tokens=special,
        clean_up_tokenization_spaces=False,
    )
