"""The hidden state that a decision per turn is read from."""

from __future__ import annotations

import torch
from torch import Tensor


def extract_frame_embeddings(last_hidden_state: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Hidden state of the last valid token of each row, which has seen all the others.

    Args:
        last_hidden_state: (B, T, D) float, after the final norm.
        padding_mask: (B, T) bool or number, 1 real and 0 padding, which may stand on the right, on
            the left or in between; None if every token is real.

    Returns:
        (B, 1, D) float.

    Raises:
        ValueError: the mask has another shape than (B, T), or a row without any valid token.

    Source: ProAssist, arXiv:2506.05904, reads the last position while it streams. Counting the
    valid tokens of a row finds that position with right padding only; the place itself is taken.
    """
    batch, length = last_hidden_state.shape[:2]
    if padding_mask is None:
        if length == 0:
            raise ValueError(_empty(0, length))
        return last_hidden_state[:, -1:]  # (B, 1, D)
    if padding_mask.shape != (batch, length):
        raise ValueError(
            f"extract_frame_embeddings: padding_mask is {tuple(padding_mask.shape)}, expected "
            f"(B, T) of last_hidden_state, {(batch, length)}."
        )
    valid = padding_mask.to(last_hidden_state.device) != 0
    for row in (~valid.any(dim=1)).nonzero().flatten().tolist():
        raise ValueError(_empty(row, length))
    places = torch.arange(length, device=valid.device).expand(batch, length)
    last = places.masked_fill(~valid, -1).amax(dim=1)  # (B,)
    return last_hidden_state[torch.arange(batch, device=valid.device), last].unsqueeze(1)


def _empty(row: int, length: int) -> str:
    return (
        f"extract_frame_embeddings: row {row} has no valid token among {length}; every turn ends "
        "at a frame, so drop rows that are padding only."
    )
