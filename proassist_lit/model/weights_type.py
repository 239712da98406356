"""The type of weights: changed, and of what is trained beside them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Give the parameters of ``module`` the type ``dtype``; its buffers keep theirs.

    So do parameters of integers: weights in 4 bits are packed into bytes.

    ``module.to(dtype)`` would round the frequencies of rotary positions, too: in bfloat16 by up to
    0.4 %, which is radians at the end of a long context, and not what a backbone has learnt.
    """
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def trained_type(weight: Tensor) -> torch.dtype:
    """Type of what is trained beside ``weight``: float32 or better, whatever the weight has."""
    return torch.promote_types(weight.dtype, torch.float32)
