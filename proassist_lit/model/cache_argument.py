"""What Hugging Face calls the argument that takes a cache: its name changed within version 5."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import LlamaModel

NAMES = ("cache", "past_key_values")
"""Since 5.24, and before."""


def with_cache(module: Any, value: Any) -> dict[str, Any]:
    """``value`` under the name by which ``module.forward`` takes a cache.

    Args:
        module: a backbone, or a wrapper that hands its arguments on.
        value: a cache, or None.
    """
    return {_name(type(module)): value}


def _name(kind: Any) -> str:
    for forward in (kind.forward, LlamaModel.forward):
        parameters = inspect.signature(forward).parameters
        for name in NAMES:
            if name in parameters:
                return name
    return NAMES[0]
