"""What becomes of the context when it is nearly full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from proassist_lit.errors import ConfigError
from proassist_lit.sequence.builder import prefix_ids, text_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import Script, Text
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
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
        script: prompt, steps, first state and, of a recorded stream, what is told when.
        config: strategy and limits.
        num_tokens_per_img: K.
        opening: what is said before the first frame, as far as it is known.
        name: name of the stream, for messages.

    Raises:
        ConfigError: what the strategy keeps does not leave room for a single frame, so that it
            would run at every one.
    """

    def __init__(
        self,
        chat: Chat,
        script: Script,
        config: StreamConfig,
        *,
        num_tokens_per_img: int,
        opening: Sequence[Text] = (),
        name: str,
    ) -> None:
        self._chat, self._script, self._config = chat, script, config
        self.limit = config.max_context - config.reserve
        room = self._most_begun(opening)
        kept = f"the prompt and what is told with it take {room} tokens"
        if config.strategy is Strategy.DROP_MIDDLE:
            # The end of the last turn, or a separator, comes before the next frame.
            between = max(1 + len(chat.after_turn_ids), len(chat.separator_ids))
            room += config.window_tokens + between
            kept += f" and stream.window_tokens {config.window_tokens} more"
        elif config.strategy is Strategy.SUMMARIZE:
            room += config.max_summary_tokens
            kept += f" and a summary up to {config.max_summary_tokens} more"
        if config.strategy is not Strategy.NONE:  # which never runs: the stream ends
            room += num_tokens_per_img
        if room >= self.limit:
            raise ConfigError(
                f"stream {name!r}: {kept}, which leaves no room for frames of "
                f"{num_tokens_per_img} in stream.max_context {config.max_context} less "
                f"stream.reserve {config.reserve}; raise stream.max_context, or keep less."
            )

    def _most_begun(self, opening: Sequence[Text]) -> int:
        """Most tokens that a context which was cut begins with, without window and summary."""
        chat, script = self._chat, self._script
        match self._config.strategy:
            case Strategy.NONE:
                return len(self.first_prefix())
            case Strategy.DROP_MIDDLE:  # all that precedes the first image token
                return len(self.first_prefix()) + len(text_ids(chat, tuple(opening)))
            case Strategy.DROP_ALL:
                states = [script.initial_state]
            case _:  # the prefix tells how far the steps are, in words that differ in length
                ids = [step.id for step in script.steps]
                states = [dict.fromkeys(ids, state) for state in StepState]
        # Of a recorded stream, also what is told later: from then on it is told at every beginning.
        recorded = (text for moment in script.moments for text in moment.before)
        texts = chain(opening, recorded)
        knowledge = next((text.content for text in texts if text.is_knowledge), "")
        return max(len(prefix_ids(chat, script, state, knowledge)) for state in states)

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
