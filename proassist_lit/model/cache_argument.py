"""What Hugging Face calls the argument that takes a cache: its name changed within version 5."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import LlamaModel

NAMES = ("cache", "past_key_values")
"""The newer one first."""


def with_cache(module: Any, value: Any) -> dict[str, Any]:
    """``value`` under the name by which ``module.forward`` takes a cache; nothing for None.

    Args:
        module: a backbone, or a wrapper that hands its arguments on.
        value: a cache, or None.
    """
    return {} if value is None else {_name(type(module)): value}


def _name(kind: Any) -> str:
    for forward in (kind.forward, LlamaModel.forward):
        parameters = inspect.signature(forward).parameters
        for name in NAMES:
            if name in parameters:
                return name
    return NAMES[0]
