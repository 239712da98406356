"""Low-rank additions to a backbone: trained beside weights that stay as they are."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from proassist_lit.errors import ConfigError
from proassist_lit.model.config import LoraConfig
from proassist_lit.model.four_bits import is_packed, unpacked
from proassist_lit.model.new_rows import EmbeddingRows, OutputRows, add_new_rows
from proassist_lit.model.weights_type import trained_type

ADAPTER = "default"
"""peft's name of the additions."""


def add_lora(lm: Any, config: LoraConfig, new_ids: Sequence[int] = ()) -> None:
    """Freeze a backbone and add what is trained instead.

    Args:
        lm: Hugging Face causal language model or ``TextSide``; changed in place.
        config: rank, scale, dropout and places of the additions.
        new_ids: tokens that the backbone was not trained with: their rows are trained whole.

    Raises:
        ConfigError: ``targets`` names no layer of the backbone, or the additions cannot be told
            from a matrix that is used twice.
    """
    head = lm.get_output_embeddings()
    tied = head.weight is lm.get_input_embeddings().weight
    targets = _targets(lm, config)
    if config.lm_head:
        if tied and new_ids:
            raise ConfigError(
                f"model.lora.lm_head=true adds to an output matrix that is also the embedding "
                f"matrix, of which the rows of {len(new_ids)} new tokens are trained; set "
                "model.lora.lm_head=false, or a chat format whose tokens the backbone knows."
            )
        targets.append(next(name for name, module in lm.named_modules() if module is head))
    lm.requires_grad_(False)
    inject(
        lm,
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        ),
    )
    if new_ids:
        add_new_rows(lm, new_ids, output=not config.lm_head)


def inject(lm: Any, settings: Any) -> None:
    """Add what peft's ``settings`` describe, in float32 or better, without its warnings.

    They are about GPT-2's layers, which peft then sets right, and about merging into a matrix that
    is used twice, which ``merged`` and ``fold_adapter`` see to.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.inject_adapter_in_model(settings, lm)
    for name, parameter in lm.named_parameters():
        if ".lora_" in name:  # peft gives them the type of the weights beside them
            parameter.data = parameter.data.to(trained_type(parameter))


def _targets(lm: Any, config: LoraConfig) -> list[str]:
    """Full names of the layers that are added to."""
    decoder = lm.get_decoder()
    prefix = next(name for name, module in lm.named_modules() if module is decoder)
    linear = {
        f"{prefix}.{name}".lstrip("."): name.rpartition(".")[2]
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    unknown = sorted(set(config.targets) - set(linear.values()))
    if unknown:
        raise ConfigError(
            f"model.lora.targets: the backbone has no linear layer {', '.join(unknown)}; it has "
            f"{', '.join(sorted(set(linear.values())))}."
        )
    wanted = set(config.targets) or set(linear.values())
    return [name for name, last in linear.items() if last in wanted]


def has_lora(lm: Any) -> bool:
    """Whether ``lm`` has low-rank additions."""
    return any(isinstance(module, LoraLayer) for module in lm.modules())


def cast_inputs(lm: Any, casts: bool) -> None:
    """Say whether additions bring what comes in to float32, their own type, as peft lets them.

    They must, to be added to weights of 16 bits. Under autocast, which brings it back to 16 bits
    at once, the copies there and back take time and change nothing, but for dropout: on a CPU it
    would scale by a number of 16 bits, 0.2 % too large, so there they stay; on a GPU, where it
    scales in float32, it may draw others.
    """
    for module in lm.modules():
        if isinstance(module, LoraLayer):
            drops = any(isinstance(part, nn.Dropout) for part in module.lora_dropout.values())
            on_cpu = module.get_base_layer().weight.device.type == "cpu"
            module.cast_input_dtype_enabled = casts or (drops and on_cpu)


Aside = list[tuple[nn.Module, str, nn.Module]]
"""Modules that others stand in for: holder, name in it, and the module."""


@contextmanager
def merged(lm: Any) -> Iterator[None]:
    """Plain weights for a while: additions and new rows are in the matrices, nothing is beside.

    The trained modules are set aside as they are and come back untouched, so that training goes
    on to the bit. Meanwhile the matrices that are added to are in memory twice, and those in 4 bits
    whole as well.

    Args:
        lm: a backbone, with additions or without.
    """
    aside = merge(lm)
    try:
        yield
    finally:
        put_back(aside)


def merge(lm: Any) -> Aside:
    """Put plain layers in the place of those with additions, of those in 4 bits and of new rows.

    Returns:
        What stood there, for ``put_back``.
    """
    aside: Aside = []
    rows: dict[int, nn.Parameter] = {}
    modules = dict(lm.named_modules())
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        holder = modules[parent]
        if isinstance(holder, LoraLayer | EmbeddingRows | OutputRows):  # is in its place by then
            continue
        plain = _plain(module)
        if plain is None:
            continue
        if isinstance(module, EmbeddingRows | OutputRows):  # tied ones stay tied
            plain.weight = rows.setdefault(id(module.rows), plain.weight)
        aside.append((holder, last, module))
        setattr(holder, last, plain.train(module.training).requires_grad_(False))
    return aside


def put_back(aside: Aside) -> None:
    """Undo ``merge``."""
    for holder, name, module in aside:
        setattr(holder, name, module)


@torch.no_grad()
def _plain(module: Any) -> Any:
    """A plain module that computes the same; None if ``module`` is one."""
    if isinstance(module, EmbeddingRows | OutputRows):
        return module.plain()
    if not isinstance(module, LoraLayer):
        return unpacked(module) if is_packed(module) else None
    layer: Any = module
    base = layer.get_base_layer()
    plain = unpacked(base) if is_packed(base) else copy.deepcopy(base)
    plain.weight += _delta(layer)
    return plain


def _delta(layer: Any) -> Tensor:
    """What the additions of ``layer`` add to its weight, in float32 or better.

    So the sum alone is rounded, once: as in ``fold_adapter``, where they come from a file and are
    in float32, whatever type they were trained in.
    """
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    product: Tensor = b.to(trained_type(b)) @ a.to(trained_type(a)) * layer.scaling[ADAPTER]
    return product.T if layer.fan_in_fan_out else product
