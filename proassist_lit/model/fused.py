"""Liger's fused kernels for norms and feed-forward blocks, where they are installed."""

from __future__ import annotations

import importlib
import sys
from typing import Any

LLAMAS = ("llama", "mistral", "qwen2", "qwen3")
"""Model types that are a Llama and that Liger knows."""


def fuse(lm: Any) -> bool:
    """Let ``lm`` use Liger's kernels if it is a Llama on a GPU and Liger is installed.

    Rotation and loss are not replaced: the former would be for every model of the process, the
    latter is made of labelled positions already.

    Args:
        lm: Hugging Face causal language model on the device on which it is trained.

    Returns:
        Whether it does.

    Source: Liger Kernel, arXiv:2410.10989.
    """
    kind = lm.config.model_type
    if kind not in LLAMAS or next(lm.parameters()).device.type != "cuda":
        return False
    try:
        liger = importlib.import_module("liger_kernel.transformers")
    except ImportError:
        return False
    classes = vars(sys.modules[type(lm.get_decoder()).__module__])
    before = dict(classes)
    getattr(liger, f"apply_liger_kernel_to_{kind}")(
        rope=False, cross_entropy=False, fused_linear_cross_entropy=False,
        rms_norm=True, swiglu=True, model=lm,
    )  # fmt: skip
    classes.update(before)  # it also replaces the classes of which later models will be made
    return True
