"""What a judge's server answered to one request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, as it was paid for.

    Attributes:
        text: what the model wrote; empty if it refused.
        finish_reason: why it ended: ``stop``, ``length``, ...; empty if the server does not say.
        model: name of the model as the server says it.
        prompt_tokens: tokens of the request; None if the server does not say.
        completion_tokens: tokens of the answer; None if the server does not say.
    """

    text: str
    finish_reason: str = ""
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def read_body(body: str) -> Answer | None:
    """The answer in the body of a chat completion; None if the body is none, or not whole."""
    try:
        data = json.loads(body)
    except ValueError:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("choices"), list):
        return None
    first = _dict(data["choices"][0]) if data["choices"] else {}
    usage = _dict(data.get("usage"))
    content = _dict(first.get("message")).get("content")
    return Answer(
        text=content if isinstance(content, str) else "",
        finish_reason=str(first.get("finish_reason") or ""),
        model=str(data.get("model") or ""),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
