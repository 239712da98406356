"""Makes tokenizer and embeddings know the special tokens of a chat format."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch

from proassist_lit.sequence.chat import ChatFormat


def add_special_tokens(tokenizer: Any, table: ChatFormat) -> None:
    """Add the format's special tokens that the tokenizer lacks, the image token last.

    Tokens that exist keep their ids; an ordinary one becomes special. The image token stands last,
    because it needs no row of the embedding matrix: its embedding is always replaced by projected
    features, and it is never generated.

    Args:
        tokenizer: Hugging Face tokenizer; changed in place.
        table: the chat format.
    """
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    wanted = dict.fromkeys([*table.special_tokens, table.image])
    missing = [token for token in wanted if token not in special]
    if missing:
        tokenizer.add_special_tokens(
            {"extra_special_tokens": missing}, replace_extra_special_tokens=False
        )


@torch.no_grad()
def fit_embeddings(lm: Any, tokenizer: Any, table: ChatFormat, known: Container[str]) -> list[int]:
    """Give the format's special tokens rows of the embedding and output matrices.

    The matrices grow only if they have too few rows. A new token begins as the mean of the pieces
    that its text was before: near the others, and yet not equal to another new token, which a
    frozen backbone could never tell apart. Tied matrices stay tied.

    Args:
        lm: Hugging Face causal language model or ``TextSide``; changed in place.
        tokenizer: tokenizer with the special tokens.
        table: the chat format.
        known: tokens that ``lm`` was trained with.

    Returns:
        Ids of the rows that ``lm`` was not trained with, ascending.
    """
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in table.special_tokens}
    num_rows = int(lm.get_input_embeddings().num_embeddings)
    needed = max(ids.values(), default=-1) + 1
    if needed > num_rows:
        lm.resize_token_embeddings(needed, mean_resizing=False)
    new = {index for token, index in ids.items() if token not in known}
    new |= set(range(num_rows, needed))
    output = lm.get_output_embeddings()
    matrices = [lm.get_input_embeddings().weight, output.weight, getattr(output, "bias", None)]
    distinct = {id(matrix): matrix for matrix in matrices if matrix is not None}
    for index in sorted(new):
        text = tokenizer.convert_ids_to_tokens(index) or ""
        pieces = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        rows = [piece for piece in pieces if piece < num_rows and piece not in new]
        for matrix in distinct.values():
            matrix[index] = matrix[rows or slice(0, num_rows)].mean(0)
    return sorted(new)
