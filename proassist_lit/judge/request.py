"""One request to a judge, and the name under which its answer is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from proassist_lit.errors import ConfigError
from proassist_lit.judge.prompt import Messages

_CHARACTERS_PER_TOKEN = 4
"""Of English text, by the usual rule of thumb."""


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How a judge is asked.

    Attributes:
        model: name of the model at the server.
        server: which one, as ``client.address`` tells servers apart: many take any name of a model.
        repeats: how often the same is asked; the answers are averaged. At least 1.
        temperature: of the sampling; at 0 repeats would hardly differ. At least 0.
        max_tokens: longest answer, tokens, the model's own thinking included. At least 1.
    """

    model: str
    server: str = ""
    repeats: int = 3
    temperature: float = 1.0
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ConfigError("judge: the model's name is empty; give it with --model.")
        for name, least in (("repeats", 1), ("temperature", 0), ("max_tokens", 1)):
            value = getattr(self, name)
            if not value >= least:  # neither is NaN
                raise ConfigError(f"judge: {name} must be at least {least}, got {value}.")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to a judge.

    Attributes:
        stream_id: the stream that it is about; for people, who look into the kept answers.
        messages: (role, content) of each.
        settings: how it is asked.
        repeat: number of the repetition, from 0.
    """

    stream_id: str
    messages: Messages
    settings: JudgeSettings
    repeat: int

    @cached_property
    def key(self) -> str:
        """A hash of all that the answer depends on."""
        s = self.settings
        parts = [s.server, s.model, self.messages, s.temperature, s.max_tokens, self.repeat]
        return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    @property
    def num_tokens(self) -> int:
        """Tokens of the messages, estimated from their characters."""
        characters = sum(len(content) for _, content in self.messages)
        return -(-characters // _CHARACTERS_PER_TOKEN)


def repeated(stream_id: str, messages: Messages, settings: JudgeSettings) -> tuple[Request, ...]:
    """The same question as often as it is to be asked."""
    return tuple(
        Request(stream_id=stream_id, messages=messages, settings=settings, repeat=repeat)
        for repeat in range(settings.repeats)
    )


def distinct(requests: Iterable[Request]) -> tuple[Request, ...]:
    """``requests`` without those that ask the same again; their answer counts for both."""
    return tuple({request.key: request for request in requests}.values())
