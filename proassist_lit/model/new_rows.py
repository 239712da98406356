"""Trainable rows of new tokens over embedding and output matrices that stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proassist_lit.model.weights_type import trained_type


class _Rows(nn.Module):
    """A matrix of which some rows are trained apart; stands in its place.

    Args:
        base: the matrix, frozen.
        ids: rows that are trained.
        rows: (N, D) their weights, which two tied matrices share.
    """

    ids: Tensor

    def __init__(self, base: Any, ids: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__()
        self.base, self.rows = base, rows
        device = base.weight.device
        self.register_buffer("ids", torch.tensor(ids, device=device), persistent=False)

    @property
    def weight(self) -> Tensor:
        """(V, D) the whole matrix; computed, so better not read at every step."""
        weight: Tensor = self.base.weight
        return weight.index_copy(0, self.ids, self.rows.to(weight.dtype))

    @torch.no_grad()
    def plain(self) -> Any:
        """A copy of the matrix with the rows in it."""
        out = copy.deepcopy(self.base)
        out.weight[self.ids] = self.rows.to(out.weight.dtype)
        return out


class EmbeddingRows(_Rows):
    """Embeddings of which some are trained.

    Source: the same as ``trainable_token_indices`` of the library peft, which copies the whole
    matrix at every step.
    """

    slots: Tensor

    def __init__(self, base: Any, ids: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__(base, ids, rows)
        slots = torch.full((base.num_embeddings,), -1, device=base.weight.device)
        slots[self.ids] = torch.arange(len(ids), device=slots.device)
        self.register_buffer("slots", slots, persistent=False)
        self.num_embeddings, self.embedding_dim = base.num_embeddings, base.embedding_dim

    def forward(self, input_ids: Tensor) -> Tensor:
        """(...) int64 token ids to (..., D)."""
        out: Tensor = self.base(input_ids)
        slots = self.slots[input_ids]
        mine = F.embedding(slots.clamp(min=0), self.rows)
        scale = getattr(self.base, "embed_scale", None)  # Gemma 3 scales what it looks up
        if scale is not None:
            mine = mine * scale.to(mine.dtype)
        return torch.where((slots >= 0).unsqueeze(-1), mine.to(out.dtype), out)


class OutputRows(_Rows):
    """An output matrix of which some rows are trained."""

    def __init__(self, base: Any, ids: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__(base, ids, rows)
        self.in_features, self.out_features = base.in_features, base.out_features

    @property
    def bias(self) -> Tensor | None:
        """(V,) or None; not trained."""
        bias: Tensor | None = self.base.bias
        return bias

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) hidden states to (..., V) logits."""
        out: Tensor = self.base(hidden)
        bias = None if self.bias is None else self.bias[self.ids]
        mine = F.linear(hidden, self.rows.to(hidden.dtype), bias)
        return out.index_copy(-1, self.ids, mine.to(out.dtype))


def add_new_rows(lm: Any, ids: Sequence[int], *, output: bool) -> None:
    """Let rows of the embedding matrix be trained, and of the output matrix.

    Args:
        lm: Hugging Face causal language model; changed in place.
        ids: the rows.
        output: whether those of the output matrix are trained, too; tied ones always are.
    """
    table, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    index = torch.tensor(ids, device=table.weight.device)
    tied = head.weight is table.weight
    rows = _trained_rows(table, index)
    lm.set_input_embeddings(EmbeddingRows(table, ids, rows))
    if tied or output:
        if not tied:
            rows = _trained_rows(head, index)
        lm.set_output_embeddings(OutputRows(head, ids, rows))


def freeze(lm: Any) -> None:
    """Train nothing of ``lm`` but rows of new tokens, which nobody has trained before."""
    rows = {id(m.rows) for m in lm.modules() if isinstance(m, _Rows)}
    for parameter in lm.parameters():
        parameter.requires_grad_(id(parameter) in rows)


def _trained_rows(matrix: Any, index: Tensor) -> nn.Parameter:
    weight = matrix.weight.detach()
    return nn.Parameter(weight[index].to(trained_type(weight), copy=True))
