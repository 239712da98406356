"""What one visitor may cost, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass

from proassist_lit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a server; whatever clients do, it stays within them.

    Raises:
        ConfigError: one of them leaves nothing to do.
    """

    max_sessions: int = 4
    """Sessions at once, those that wait for their client to come back among them."""

    max_minutes: float = 30.0
    """Length of a session, by the clock."""

    max_frame_kib: int = 512
    """Size of a frame as JPEG, KiB."""

    max_side: int = 1920
    """Height and width of a frame, pixels."""

    keep_s: float = 60.0
    """How long a session waits for its client after the connection was lost."""

    max_words: int = 400
    """Characters that a user may say at once."""

    max_waiting_words: int = 4
    """Sayings that may wait for the next frame."""

    hello_s: float = 10.0
    """How long a connection may take to say who it is."""

    max_message_chars: int = 4096
    """Length of any message but frames."""

    max_waiting_answers: int = 64
    """Answers that wait for a slow client; silent ones are forgotten first."""

    max_history: int = 400
    """Events of a session that are told to a client that comes back."""

    def __post_init__(self) -> None:
        options = {"max_sessions": 1, "max_minutes": 0.05, "max_frame_kib": 1}
        for name, least in options.items():
            if not getattr(self, name) >= least:
                raise ConfigError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}."
                )

    @property
    def max_frame_bytes(self) -> int:
        """Size of a frame as JPEG."""
        return self.max_frame_kib * 1024
