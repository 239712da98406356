"""A backbone whose linear layers are kept in 4 bits, by bitsandbytes.

Source: QLoRA, arXiv:2305.14314.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from proassist_lit.errors import ConfigError


def quantization() -> Any:
    """How a backbone is kept in 4 bits, for ``from_pretrained``.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "model.train=qlora needs the package bitsandbytes: pip install -e '.[qlora]' in the "
            "folder of the repository; or set model.train=lora."
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def keep_packed(model: Any) -> None:
    """Let the weights stay as they were read.

    On some CPUs bitsandbytes packs them anew at the first forward pass of ``eval``, and only where
    a layer has a multiple of 32 rows; nothing but such a pass can read them then.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def forget_quantization(model: Any) -> None:
    """Leave 4 bits out of what is written of a model: additions, or whole weights with them in.

    Files that name them are read as weights packed into bytes.
    """
    model.hf_quantizer = None
    for config in (model.config, model.config.get_text_config()):
        if hasattr(config, "quantization_config"):
            del config.quantization_config


def is_packed(module: Any) -> bool:
    """Whether it is a linear layer in 4 bits."""
    return _packing(module) is not None


def unpacked(layer: Any) -> nn.Linear:
    """A linear layer in 4 bits as one of torch, with a weight of its own."""
    from bitsandbytes.functional import dequantize_4bit

    plain = nn.Linear(
        layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
    )
    plain.weight = nn.Parameter(dequantize_4bit(layer.weight.data, _packing(layer)))
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().clone())
    return plain


def num_weights(parameter: nn.Parameter) -> int:
    """How many weights a parameter is; bitsandbytes packs two of them in a byte."""
    return parameter.numel() * (2 if parameter.dtype is torch.uint8 else 1)


def _packing(module: Any) -> Any:
    """How the weight of a layer was packed; None if it was not.

    The weight knows, but for one that was put together from the parts of devices (FSDP2).
    """
    own = getattr(getattr(module, "weight", None), "quant_state", None)
    return getattr(module, "quant_state", None) if own is None else own
