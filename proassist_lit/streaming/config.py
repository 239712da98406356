"""Settings of streaming."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proassist_lit.errors import ConfigError


class Strategy(StrEnum):
    """What happens when the context is nearly full."""

    NONE = "none"
    """Nothing; a stream that does not fit is refused before it starts."""

    DROP_ALL = "drop_all"
    """Everything but the prefix is dropped."""

    DST_REFRESH = "dst_refresh"
    """Everything is dropped; the prefix is written anew for the tracked state."""


@dataclass(kw_only=True)
class StreamConfig:
    """How recorded and live streams are answered."""

    theta_speak: float | None = None
    """Speak iff P(speak) >= this, in [0, 1]; None: chosen on val."""

    theta_dst: float | None = None
    """Update the state iff P(update) >= this, in [0, 1]; None: chosen on val."""

    min_gap_frames: int = 0
    """Frames of silence after an utterance during which none is begun; >= 0."""

    max_new_tokens: int = 64
    """Longest utterance, tokens; >= 1."""

    max_dst_tokens: int = 48
    """Longest dst span, tokens; >= 1."""

    strategy: Strategy = Strategy.DST_REFRESH
    """none, drop_all or dst_refresh."""

    max_context: int = 8192
    """Most tokens in the cache."""

    reserve: int = 256
    """The strategy runs when fewer than this many tokens are left."""

    def __post_init__(self) -> None:
        for name in ("theta_speak", "theta_dst"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ConfigError(f"stream.{name} must be in [0, 1] or null, got {value}.")
        for name, least in (("min_gap_frames", 0), ("max_new_tokens", 1), ("max_dst_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"stream.{name} must be at least {least}, got {getattr(self, name)}."
                )
        if not 0 < self.reserve < self.max_context:
            raise ConfigError(
                f"stream.reserve {self.reserve} must be between 1 and stream.max_context "
                f"{self.max_context}; it is the room for one frame and what is said after it."
            )
