"""Settings of dialogues: how much users say, and what the assistant is told and tracks."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from proassist_lit.errors import ConfigError


class UserType(StrEnum):
    """How much the user says, besides the goal."""

    NO_TALK = "no_talk"
    TALK_SOME = "talk_some"
    TALK_MORE = "talk_more"


@dataclass(kw_only=True)
class DialogueConfig:
    """How conversations are written over timelines."""

    fps: float = 2.0
    """Frames per second; > 0."""

    user_types: list[UserType] = field(default_factory=lambda: list(UserType))
    """Training has one conversation per recording and user type, evaluation one per recording."""

    knowledge: bool = False
    """Put the steps into the system prompt as task knowledge, too."""

    steps: bool = True
    """Track the state of the steps (dst)."""

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise ConfigError(f"data.dialogue.fps must be > 0 frames per second, got {self.fps}.")
        if not self.user_types:
            raise ConfigError(
                "data.dialogue.user_types is empty; name at least one of "
                f"{', '.join(t.value for t in UserType)}."
            )
