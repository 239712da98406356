"""What becomes of the context when it is nearly full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proassist_lit.errors import ConfigError
from proassist_lit.sequence.builder import prefix_ids, text_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import SUMMARY_QUERY, Script, Text
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.types import StepState

Range = tuple[int, int]
"""First token and one past the last."""


@dataclass(frozen=True)
class Cut:
    """How a context goes on.

    Attributes:
        keep: ranges of the cache that stay, in order; closed up afterwards.
        feed: token ids that are fed before anything else.
    """

    keep: tuple[Range, ...]
    feed: tuple[int, ...] = ()


def summary_query(chat: Chat) -> list[int]:
    """Token ids of the request for a summary and of the opening of its answer."""
    query = Text(role=Role.SYSTEM, content=SUMMARY_QUERY)
    return [*text_ids(chat, (query,)), *chat.opening_ids(Role.ASSISTANT)]


class ContextManager:
    """Carries out ``stream.strategy`` for one stream.

    Args:
        chat: the formatter.
        script: prompt, steps and first state.
        config: strategy and limits.
        name: name of the stream, for messages.

    Raises:
        ConfigError: what the strategy keeps does not leave room for a single frame.
    """

    def __init__(self, chat: Chat, script: Script, config: StreamConfig, *, name: str) -> None:
        self._chat, self._script, self._config = chat, script, config
        self.limit = config.max_context - config.reserve
        room = len(self.first_prefix())
        kept = f"the prompt takes {room} tokens"
        if config.strategy is Strategy.DROP_MIDDLE:
            room += config.window_tokens
            kept += f" and stream.window_tokens {config.window_tokens} more"
        elif config.strategy is Strategy.SUMMARIZE:
            room += config.max_summary_tokens
            kept += f" and a summary up to {config.max_summary_tokens} more"
        if room >= self.limit:
            raise ConfigError(
                f"stream {name!r}: {kept}, which leaves no room for frames in stream.max_context "
                f"{config.max_context} less stream.reserve {config.reserve}; raise "
                "stream.max_context, or keep less."
            )

    def first_prefix(self) -> list[int]:
        """Token ids that open the stream."""
        return prefix_ids(self._chat, self._script, self._script.initial_state)

    def is_full(self, length: int) -> bool:
        """Whether the strategy must run on a context of ``length`` tokens."""
        return self._config.strategy is not Strategy.NONE and length >= self.limit

    def cut(
        self,
        *,
        state: Mapping[str, StepState],
        knowledge: str,
        summary: str,
        starts: Sequence[int],
        length: int,
    ) -> Cut:
        """What stays of a full context, and what it begins with.

        Args:
            state: tracked state of the steps.
            knowledge: what was told of the task, for prefixes that are written anew.
            summary: the summary that was written, for ``summarize``.
            starts: where frames, spans and texts begin, rising; the first is the end of the
                prefix.
            length: tokens in the cache.
        """
        strategy = self._config.strategy
        if strategy is Strategy.DROP_MIDDLE:
            first = starts[0]
            least = length - self._config.window_tokens
            start = next((s for s in starts if s >= max(least, first)), length)
            return Cut(keep=((0, first), (start, length)))
        if strategy is Strategy.DST_REFRESH:
            told = knowledge
        elif strategy is Strategy.SUMMARIZE:
            told = " ".join(text for text in (self._fitted(summary), knowledge) if text)
        else:
            state, told = self._script.initial_state, knowledge
        return Cut(keep=(), feed=tuple(prefix_ids(self._chat, self._script, state, told)))

    def _fitted(self, summary: str) -> str:
        """As much of ``summary`` as takes no more tokens when it is read than it might be written.

        Text need not become the tokens again that it was written with: broken characters, which
        an untrained model writes, take several each.
        """
        most = self._config.max_summary_tokens
        while (needed := len(self._chat.encode(summary))) > most:
            summary = summary[: len(summary) * most // needed]
        return summary
