"""The room that a context must leave for what may be written at one frame."""

from __future__ import annotations

from proassist_lit.errors import ConfigError, ContextError
from proassist_lit.sequence.builder import text_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import Text
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.context import summary_query


def room_to_write(chat: Chat, config: StreamConfig, num_tokens_per_img: int) -> int:
    """Most tokens of a frame and what may be written after it.

    Raises:
        ConfigError: the reserve does not have them.
    """
    openings = len(chat.opening_ids(Role.DST)) + len(chat.opening_ids(Role.ASSISTANT))
    closings = 2 * (1 + len(chat.after_turn_ids))
    needed = (
        num_tokens_per_img + len(chat.separator_ids) + openings + closings
        + config.max_dst_tokens + config.max_new_tokens
    )  # fmt: skip
    if config.strategy is Strategy.SUMMARIZE:
        needed += len(summary_query(chat)) + config.max_summary_tokens
    if config.reserve < needed:
        raise ConfigError(
            f"stream.reserve is {config.reserve}, but one frame and what may be said after it "
            f"takes {needed} tokens; raise stream.reserve, or lower stream.max_new_tokens, "
            "stream.max_dst_tokens or stream.max_summary_tokens."
        )
    return needed


class Room:
    """Sees that what others say at a frame finds room in the context of a stream.

    Args:
        chat: the formatter.
        config: limits.
        num_tokens_per_img: K.
        name: name of the stream, for messages.

    Raises:
        ConfigError: the reserve does not have the tokens of one frame.
    """

    def __init__(
        self, chat: Chat, config: StreamConfig, num_tokens_per_img: int, *, name: str
    ) -> None:
        self._chat, self._config, self._name = chat, config, name
        self._num_tokens_per_img = num_tokens_per_img
        self._to_write = room_to_write(chat, config, num_tokens_per_img)

    def check_texts(
        self, frame_idx: int, num_tokens: int, used: int, *, said_before: int = 0
    ) -> None:
        """Refuse texts before a frame that are too long.

        Args:
            frame_idx: of the frame, for the message.
            num_tokens: of the texts.
            used: tokens of the context, those that wait to be fed included.
            said_before: of these, what the reference said at the frame before.

        Raises:
            ContextError: they are too long.
        """
        what = "the text that arrives takes"
        if said_before:
            what = "what the reference said and the text that arrives take"
        room = self._config.max_context - self._to_write - used
        self._require(frame_idx, what, num_tokens + said_before, room + said_before)

    def check_said(self, frame_idx: int, spans: tuple[Text, ...], used: int) -> None:
        """Refuse what the reference says at a frame if no summary of it could be written.

        Args:
            frame_idx: of the frame, for the message.
            spans: what it says.
            used: tokens of the context before the frame.

        Raises:
            ContextError: it is too long.
        """
        config = self._config
        if not spans or config.strategy is not Strategy.SUMMARIZE:
            return
        used += len(self._chat.separator_ids) + self._num_tokens_per_img
        used += len(summary_query(self._chat)) + config.max_summary_tokens
        num_tokens = len(text_ids(self._chat, spans))
        left = config.max_context - used
        self._require(frame_idx, "what the reference says takes", num_tokens, left)

    def _require(self, frame_idx: int, what: str, num_tokens: int, left: int) -> None:
        if num_tokens > left:
            raise ContextError(
                f"stream {self._name!r}, frame {frame_idx}: {what} {num_tokens} tokens, but only "
                f"{max(left, 0)} are left in stream.max_context {self._config.max_context}; raise "
                "it, or raise stream.reserve so that the context is cut sooner."
            )
