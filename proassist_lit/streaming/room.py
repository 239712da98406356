"""The room that a context must leave for what may be written at one frame."""

from __future__ import annotations

from proassist_lit.errors import ConfigError
from proassist_lit.sequence.chat import Chat, Role
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
