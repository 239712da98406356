"""What some models do to their logits after the output matrix."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def finish_logits(logits: Tensor, config: Any) -> Tensor:
    """Scale and cap logits as the backbone was trained with; most models do neither.

    Args:
        logits: (..., V) product of hidden states and the output matrix.
        config: Hugging Face configuration of the language model.

    Returns:
        (..., V). The largest stays the largest.

    Source: Granite (``logits_scaling``), Cohere (``logit_scale``); Gemma 2, arXiv:2408.00118
    (``final_logit_softcapping``).
    """
    divisor = getattr(config, "logits_scaling", None)
    if divisor is not None:
        logits = logits / divisor
    factor = getattr(config, "logit_scale", None)
    if factor is not None:
        logits = logits * factor
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        logits = (logits / cap).tanh() * cap
    return logits
