"""Settings of streaming."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from proassist_lit.errors import ConfigError


class Strategy(StrEnum):
    """What happens when the context is nearly full."""

    NONE = "none"
    """Nothing; a stream that does not fit is refused before it starts."""

    DROP_ALL = "drop_all"
    """Everything but the prefix is dropped."""

    DROP_MIDDLE = "drop_middle"
    """The prefix and the last ``window_tokens`` stay, closed up."""

    SUMMARIZE = "summarize"
    """The model summarizes; everything is dropped; the prefix is written anew with the summary."""

    DST_REFRESH = "dst_refresh"
    """Everything is dropped; the prefix is written anew for the tracked state."""


class ContextSource(StrEnum):
    """Whose words make the context."""

    OWN = "own"
    """The assistant's: it runs freely."""

    REFERENCE = "reference"
    """The reference dialogue's: the assistant's own words are dropped again (ground truth)."""


class SpeakRule(StrEnum):
    """What is compared with ``theta_speak`` at a frame: a number made of P(speak).

    Source: MMDuet, arXiv:2411.17991, whose released code compares with ``>``, ours with ``>=``.
    """

    THRESHOLD = "threshold"
    """P(speak) itself."""

    RUNNING_SUM = "running_sum"
    """The sum of P(speak) over the frames since the last utterance, this one among them."""

    Z_SCORE = "z_score"
    """How far P(speak) is above its mean over the frames before, in their standard deviations."""

    @property
    def looks_back(self) -> bool:
        """Whether the number is made of earlier frames, too; it then has another range than P."""
        return self is not SpeakRule.THRESHOLD


class Kernels(StrEnum):
    """What computes the backbone of a stream on a CPU. The answers are the same."""

    AUTO = "auto"
    """Compiled kernels where a C compiler is found (and, on a GPU, Triton), torch elsewhere."""

    COMPILED = "compiled"
    """Compiled kernels; refused where they cannot be had."""

    TORCH = "torch"
    """torch."""


@dataclass(kw_only=True)
class StreamConfig:
    """How recorded and live streams are answered."""

    theta_speak: float | None = None
    """Speak iff P(speak) >= this, in [0, 1] (by another rule, iff its number is); null: chosen on
    val."""

    theta_dst: float | None = None
    """Update the state iff P(update) >= this, in [0, 1]; null: chosen on val."""

    rule: SpeakRule = SpeakRule.THRESHOLD
    """threshold, running_sum or z_score: what theta_speak is compared with."""

    rise: float | None = None
    """Speak iff P(speak) rose by more than this since the frame before, else iff it is >= 1/2
    (ProAssist's diffX); null: by theta_speak."""

    min_gap_frames: int = 0
    """Frames of silence after an utterance during which none is begun; >= 0."""

    stride: int = 1
    """Decide at every so many frames since the last span only; 1 for every frame."""

    context: ContextSource = ContextSource.OWN
    """own, or reference for the reference dialogue as context."""

    words: bool = True
    """Whether words are written; without them only decisions are read (context=reference)."""

    max_new_tokens: int = 64
    """Longest utterance, tokens; >= 1."""

    max_dst_tokens: int = 48
    """Longest dst span, tokens; >= 1."""

    strategy: Strategy = Strategy.DST_REFRESH
    """none, drop_all, drop_middle, summarize or dst_refresh."""

    window_tokens: int = 1024
    """drop_middle: most tokens that stay beside the prefix; cut at a whole frame or span."""

    max_summary_tokens: int = 256
    """summarize: longest summary, tokens."""

    max_context: int = 4608
    """Most tokens in the cache; by default the strategy runs at 4096, where training splits."""

    reserve: int = 512
    """The strategy runs when this many tokens or fewer are left."""

    kv_gib: float = 4.0
    """Most memory, GiB, for the contexts of streams that are answered at once; > 0."""

    reread_margin: float | None = None
    """Of recorded streams, decisions nearer to their threshold are read again, the stream alone;
    null: 0.03 where the model's numbers have 16 bits, else 0. By a rule that looks back, or by
    rise, every frame is then read alone."""

    kernels: Kernels = Kernels.AUTO
    """auto, compiled (in C on a CPU, in Triton on a GPU; several times as fast) or torch."""

    def __post_init__(self) -> None:
        if self.kv_gib <= 0:
            raise ConfigError(f"stream.kv_gib must be > 0, got {self.kv_gib}.")
        self._check_thresholds()
        if self.rise is not None and not 0.0 <= self.rise <= 1.0:
            raise ConfigError(f"stream.rise must be in [0, 1] or null, got {self.rise}.")
        if self.reread_margin is not None and not 0.0 <= self.reread_margin < 0.5:
            raise ConfigError(
                f"stream.reread_margin must be in [0, 0.5) or null, got {self.reread_margin}."
            )
        if not self.words and self.context is ContextSource.OWN:
            raise ConfigError(
                "stream.words=false needs stream.context=reference: without words of its own the "
                "assistant would have no context."
            )
        at_least = {
            "min_gap_frames": 0,
            "max_new_tokens": 1,
            "max_dst_tokens": 1,
            "stride": 1,
            "window_tokens": 1,
            "max_summary_tokens": 1,
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"stream.{name} must be at least {least}, got {getattr(self, name)}."
                )
        if not 0 < self.reserve < self.max_context:
            raise ConfigError(
                f"stream.reserve {self.reserve} must be between 1 and stream.max_context "
                f"{self.max_context}; it is the room for one frame and what is said after it."
            )

    @property
    def theta_speak_prob(self) -> float | None:
        """``theta_speak`` where P(speak) is compared with it, None where it is not."""
        return self.theta_speak if self.compares_probs else None

    @property
    def compares_probs(self) -> bool:
        """Whether P(speak) itself is compared with a threshold: no other rule, nor ``rise``."""
        return not self.rule.looks_back and self.rise is None

    def _check_thresholds(self) -> None:
        for name in ("theta_speak", "theta_dst"):
            value = getattr(self, name)
            looks_back = name == "theta_speak" and self.rule.looks_back
            if value is not None and not looks_back and not 0.0 <= value <= 1.0:
                raise ConfigError(f"stream.{name} must be in [0, 1] or null, got {value}.")
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"stream.{name} must be a finite number or null, got {value}.")
        if self.rise is not None and self.rule.looks_back:
            raise ConfigError(
                f"stream.rise={self.rise} and stream.rule={self.rule.value} are two ways to decide "
                "by earlier frames; set stream.rise=null, or stream.rule=threshold."
            )
