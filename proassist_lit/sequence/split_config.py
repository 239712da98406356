"""Settings of how conversations that are too long are split."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proassist_lit.errors import ConfigError


class SplitMethod(StrEnum):
    """What becomes of a conversation that does not fit."""

    CUT = "cut"
    """Its end is left out."""

    DROP_ALL = "drop_all"
    """Parts begin with the first prefix again."""

    DST_REFRESH = "dst_refresh"
    """Parts begin with the prefix for the state that was reached."""

    SUMMARIZE = "summarize"
    """Parts end with a request for a summary and its answer, and begin with that summary."""


@dataclass(kw_only=True)
class SplitConfig:
    """How long conversations are split for training; as ``stream.strategy`` is best."""

    method: SplitMethod = SplitMethod.DST_REFRESH
    """cut, drop_all, dst_refresh or summarize."""

    min_context_s: float = 5.0
    """Least seconds that a part after the first watches before anything is said."""

    max_context_s: float = 20.0
    """Most seconds of it; each part draws between the two."""

    max_summary_tokens: int = 256
    """Longest summary that is taught, tokens; a longer one is passed over. As
    stream.max_summary_tokens is best."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_context_s <= self.max_context_s:
            raise ConfigError(
                f"splitting.min_context_s {self.min_context_s} and splitting.max_context_s "
                f"{self.max_context_s} must rise from 0 or more; correct one of them."
            )
        if self.max_summary_tokens < 1:
            raise ConfigError(
                f"splitting.max_summary_tokens must be at least 1, got {self.max_summary_tokens}."
            )
