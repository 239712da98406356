"""How the layers of a backbone run in training: what they keep for the gradient, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from proassist_lit.errors import ConfigError


class GradientCheckpointing(StrEnum):
    """What a layer keeps for the gradient. What it does not keep is computed once more."""

    NONE = "none"
    """Everything: fastest, most memory."""

    SELECTIVE = "selective"
    """Matrix products and attention; what lies between them costs little to compute again."""

    FULL = "full"
    """Only what came in: least memory, a third more arithmetic."""


_KEPT = {
    "aten": (
        "mm", "addmm", "bmm", "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    ),
    "torch_attn": ("_varlen_attn",),
}  # fmt: skip
"""Operators whose results ``selective`` keeps, by their library."""


def prepare_layers(lm: Any, keeps: GradientCheckpointing, *, compiles: bool) -> None:
    """Let the decoder layers of ``lm`` run so while they are trained; otherwise they do not change.

    Args:
        lm: Hugging Face causal language model, or the text side of one.
        keeps: what a layer keeps for the gradient.
        compiles: whether a layer is compiled. The attention of packed rows is not.

    Raises:
        ConfigError: the layers of this backbone are not known, or the two exclude each other.
    """
    if keeps is GradientCheckpointing.NONE and not compiles:
        return
    if keeps is GradientCheckpointing.SELECTIVE and compiles:
        raise ConfigError(
            "trainer.gradient_checkpointing=selective does not see into what trainer.compile=true "
            "compiles, which chooses by itself what it keeps; set gradient_checkpointing to none "
            "or full, or trainer.compile=false."
        )
    decoder = lm.get_decoder()
    layers = [m for m in decoder.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            f"model.backbone is a {decoder.config.model_type}, whose layers are not marked as such "
            "by Hugging Face; set trainer.gradient_checkpointing=none and trainer.compile=false."
        )
    for layer in layers:
        run = type(layer).forward
        layer.forward = _TrainingForward(layer, keeps, _compiled(run) if compiles else run)


class _TrainingForward:
    """``forward`` of a layer: its own, and while it is trained the prepared one.

    It holds the layer and not its method, so that a copy of the layer runs itself.
    """

    def __init__(
        self, layer: nn.Module, keeps: GradientCheckpointing, run: Callable[..., Any]
    ) -> None:
        self._layer, self._keeps, self._run = layer, keeps, run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        layer = self._layer
        if not layer.training:
            return type(layer).forward(layer, *args, **kwargs)
        run = partial(self._run, layer, **kwargs)
        if self._keeps is GradientCheckpointing.NONE:
            return run(*args)
        options: dict[str, Any] = {}
        if self._keeps is GradientCheckpointing.SELECTIVE:
            options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
        return checkpoint(run, *args, use_reentrant=False, **options)


_COMPILED: dict[Callable[..., Any], Callable[..., Any]] = {}


def _compiled(run: Callable[..., Any]) -> Callable[..., Any]:
    """One compiled function for all layers of a kind: weights are among its arguments."""
    if run not in _COMPILED:
        _COMPILED[run] = torch.compile(run, dynamic=True)
    return _COMPILED[run]


def _policy(_: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    library, _, rest = (
        operator.name().partition("::") if hasattr(operator, "name") else ("", "", "")
    )
    is_kept = rest.partition(".")[0] in _KEPT.get(library, ())
    return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE
