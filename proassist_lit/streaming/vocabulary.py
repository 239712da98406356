"""The most probable next token, for the rows that write."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.logits import finish_logits
from proassist_lit.streaming.config import Kernels
from proassist_lit.streaming.native import NativeVocabulary, native_or_none
from proassist_lit.streaming.products import MergedLinear, pad_rows


class Vocabulary:
    """The output matrices of a model.

    Args:
        model: in evaluation mode.
        kernels: compiled or torch.
    """

    def __init__(self, model: AssistantModel, kernels: Kernels = Kernels.AUTO) -> None:
        self._model = model
        size = int(model.lm.get_decoder().layers[0].self_attn.head_dim)
        heads = {False: model.lm.get_output_embeddings()}
        if model.dst_output_head is not None:
            heads[True] = model.dst_output_head
        self._apart = len(heads) > 1
        if model.device.type != "cpu":
            kernels = Kernels.TORCH  # its products are the best there
        self._native = {
            dst: native_or_none(partial(NativeVocabulary, head, size), kernels, head.weight.dtype)
            for dst, head in heads.items()
        }
        self._merged = {
            dst: MergedLinear(head)
            for dst, head in heads.items()
            if self._native[dst] is None and MergedLinear.fits(head)
        }

    def best(self, hidden: Tensor, rows: Sequence[int], is_dst: Sequence[bool]) -> list[int]:
        """Most probable next token at ``rows`` of (N, D).

        Args:
            hidden: last hidden states.
            rows: where a token is asked for.
            is_dst: for each, whether it belongs to a dst span, which may have its own matrix.
        """
        tokens = [0] * len(rows)
        for dst in (False, True) if self._apart else (False,):
            mine = [i for i in range(len(rows)) if not self._apart or is_dst[i] == dst]
            if mine:
                chosen = hidden[torch.tensor([rows[i] for i in mine], device=hidden.device)]
                native = self._native[dst]
                if native is not None:
                    best = native.best(chosen)  # what finishes logits keeps their order
                else:
                    best = self._logits(chosen, dst).argmax(-1).tolist()
                for i, token in zip(mine, best, strict=True):
                    tokens[i] = token
        return tokens

    def _logits(self, hidden: Tensor, dst: bool) -> Tensor:
        merged = self._merged.get(dst)
        if merged is None:
            return self._model.lm_logits(hidden, dst=dst)
        logits = merged(pad_rows(hidden)).t()[: len(hidden)]
        return finish_logits(logits, self._model.lm.config)
