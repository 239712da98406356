"""The configuration of a run. Each part is defined beside its owner; here they are joined."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from proassist_lit.data.config import DataConfig
from proassist_lit.errors import ConfigError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.model.config import Decision, ModelConfig
from proassist_lit.model.training_layers import GradientCheckpointing
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, Turns
from proassist_lit.sequence.rules import PROASSIST, SequenceRules, rules_for
from proassist_lit.sequence.splitting import SplitConfig, SplitMethod
from proassist_lit.streaming.compat import check_counterparts
from proassist_lit.streaming.config import StreamConfig


class Compat(StrEnum):
    """Whose rules apply where we differ from the reference on purpose."""

    NONE = "none"
    """Ours."""

    PROASSIST = "proassist"
    """ProAssist's released code, faults included, to compare with published numbers: its sequences
    and its way through a stream. With model.chat=dst_ext only the sequences, those of its DST
    extension; streams are then answered by our rules."""


class OptimizerKind(StrEnum):
    """How gradients move the weights."""

    ADAMW = "adamw"
    """AdamW."""

    MUON = "muon"
    """Muon for the matrices of the layers, AdamW for all else: a model from scratch learns in fewer
    steps, each of which takes longer."""


@dataclass(kw_only=True)
class OptimizerConfig:
    """The optimizer, with a linear warm-up and a cosine decay of its rate."""

    kind: OptimizerKind = OptimizerKind.ADAMW
    """adamw, or muon for the matrices of the layers: for models from scratch; not with fsdp2."""

    lr: float = 1e-3
    """Peak learning rate; > 0."""

    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; biases and norms have none."""

    beta2: float = 0.98
    """Second-moment decay of AdamW."""

    warmup_steps: int = 50
    """Steps over which the rate rises from 0."""

    final_ratio: float = 0.05
    """Share of the peak that is left at the last step."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"trainer.optimizer.lr must be > 0, got {self.lr}.")
        if self.warmup_steps < 0:
            raise ConfigError(
                f"trainer.optimizer.warmup_steps must be >= 0, got {self.warmup_steps}."
            )


class Parallel(StrEnum):
    """How several devices train one model."""

    AUTO = "auto"
    """ddp where there are several devices, else nothing."""

    DDP = "ddp"
    """Every device holds the model, and takes its share of each step's batches."""

    FSDP2 = "fsdp2"
    """Every device holds a shard of weights, gradients and optimizer state."""


class ProfilerKind(StrEnum):
    """What measures where the time of training goes."""

    NONE = "none"
    """Nothing."""

    SIMPLE = "simple"
    """The parts of the training loop."""

    TORCH = "torch"
    """The operators of a few steps, with a trace to look at."""


@dataclass(kw_only=True)
class TrainerConfig:
    """How long and on what the run trains."""

    max_steps: int = 600
    """Optimizer steps; -1 for no limit."""

    max_epochs: int = -1
    """Epochs; -1 for no limit. The limit that is reached first ends the run."""

    accelerator: str = "auto"
    """auto, cpu, gpu, ... (Lightning's names)."""

    devices: str = "1"
    """Number of devices of a machine, or auto."""

    num_nodes: int = 1
    """Number of machines, on each of which torchrun or Slurm starts the processes."""

    strategy: Parallel = Parallel.AUTO
    """auto, ddp or fsdp2: how several devices train one model."""

    precision: str = "32-true"
    """Numeric precision (Lightning's names): 32-true, bf16-mixed, ..."""

    val_every_steps: int = 200
    """Steps between validations; >= 1."""

    patience: int = 0
    """Validations without a lower loss on val after which training ends; 0 for no such end."""

    accumulate: int = 1
    """Batches that make one optimizer step, one after the other in the memory of one; >= 1. Losses
    are divided by what all of them count: the step is that of one large batch."""

    save_every_steps: int = 100
    """Steps between two saves of last.ckpt, which is also saved after each validation; 0 for none
    in between."""

    save_top_k: int = 1
    """Checkpoints of the lowest losses on val that are kept; with 1, it is best.ckpt."""

    log_every_steps: int = 10
    """Steps between logged training losses; >= 1."""

    micro_tokens: int | None = None
    """Most tokens that go forward and backward at a time, but for a longer conversation: a batch
    then takes the memory of its parts, and its gradient is the same. Null for whole batches."""

    gradient_checkpointing: GradientCheckpointing = GradientCheckpointing.NONE
    """none, selective or full: what layers do not keep for the gradient is computed once more.
    Full takes least memory and a third more arithmetic, selective costs little."""

    compile: bool = False
    """Whether the layers of the backbone are compiled for training (torch.compile). The first
    steps then take minutes."""

    fused: bool = True
    """Whether a Llama on a GPU uses Liger's kernels, if they are installed (extra ``fused``)."""

    peak_tflops: float | None = None
    """What the device can do at most, in 10^12 operations a second at ``precision``; null for what
    is known of its name. Without it ``train/mfu`` is left out."""

    gradient_clip: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""

    ema_decay: float = 0.0
    """Share of a moving average of the weights that an optimizer step leaves, say 0.999; the
    average is what is validated, kept and evaluated. 0 for none."""

    find_lr: bool = False
    """Whether a run that begins first looks for its learning rate: 100 steps with a rising one, of
    which that is taken at which the loss falls fastest (lr_search.png, learning_rate.json). On one
    device."""

    find_batch_size: int = 0
    """Most conversations of a batch that a run which begins looks for: it takes as many of the
    longest as go through on its GPU (batch_size.json) for data.batch_size. 0 looks for none."""

    profiler: ProfilerKind = ProfilerKind.NONE
    """none, simple (time by part of the training loop, in fit-profile.txt of the run directory)
    or torch (by operator, with a trace as JSON)."""

    spike_factor: float = 50.0
    """A loss above so many times the median of the last 100 batches stops the run, after the
    warm-up; 0 for never. A loss or gradient that is no number always does."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and learning-rate schedule."""

    def __post_init__(self) -> None:
        if self.max_steps < 0 and self.max_epochs < 0:
            raise ConfigError(
                "trainer.max_steps and trainer.max_epochs are both without limit; set one of them."
            )
        for name in (
            "val_every_steps", "log_every_steps", "accumulate", "save_top_k", "num_nodes"
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name} must be at least 1, got {getattr(self, name)}.")
        if self.save_every_steps < 0:
            raise ConfigError(
                f"trainer.save_every_steps must be >= 0, got {self.save_every_steps}; 0 for none."
            )
        if self.micro_tokens is not None and self.micro_tokens < 1:
            raise ConfigError(
                f"trainer.micro_tokens must be at least 1, got {self.micro_tokens}; null for whole "
                "batches."
            )
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise ConfigError(
                f"trainer.peak_tflops must be > 0, got {self.peak_tflops}; null if it is not known."
            )
        if self.patience < 0:
            raise ConfigError(
                f"trainer.patience must be >= 0, got {self.patience}; 0 for no early end."
            )
        if self.find_batch_size < 0:
            raise ConfigError(
                f"trainer.find_batch_size must be >= 0, got {self.find_batch_size}; 0 looks for "
                "none."
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(
                f"trainer.ema_decay must be in [0, 1), got {self.ema_decay}; 0 for no average."
            )
        if self.spike_factor != 0 and self.spike_factor <= 1:
            raise ConfigError(
                f"trainer.spike_factor must be above 1, or 0 for never, got {self.spike_factor}."
            )
        if self.gradient_clip < 0:
            raise ConfigError(
                f"trainer.gradient_clip must be >= 0, got {self.gradient_clip}; 0 for no limit."
            )


class WandbMode(StrEnum):
    """What W&B does."""

    OFFLINE = "offline"
    ONLINE = "online"
    DISABLED = "disabled"


@dataclass(kw_only=True)
class LoggerConfig:
    """Where numbers go. ``metrics.csv`` is always written."""

    wandb: WandbMode = WandbMode.OFFLINE
    """offline keeps the run in the run directory, online sends it, disabled does neither."""

    project: str = "proassist-lit"
    """W&B project."""

    tensorboard: bool = False
    """Write TensorBoard events as well, to tensorboard/ of the run directory; needs the package
    tensorboard."""


@dataclass(kw_only=True)
class RunConfig:
    """Everything that decides a run."""

    name: str = "run"
    """Name of the experiment; the first part of the run directory."""

    seed: int = 1
    """Seed of weights, order of training, and sub-sampling."""

    resume: str = "none"
    """none, auto (go on from the last checkpoint of the run directory, or begin), or a path."""

    compat: Compat = Compat.NONE
    """none, or proassist for the reference's own rules, which need a stream.strategy that it
    knows (drop_middle, say)."""

    data: DataConfig = field(default_factory=DataConfig)
    splitting: SplitConfig = field(default_factory=SplitConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ConfigError(
                f"name is {self.name!r}; give a word without '/', it names the run directory."
            )
        by_token = self.model.decision in (Decision.SILENT_TOKEN, Decision.OPENING_TOKEN)
        if by_token != (self.objective.kind is ObjectiveKind.TOKEN_PROB):
            remedy = (
                "set objective.kind=token_prob"
                if by_token
                else "set model.decision=silent_token or opening_token"
            )
            raise ConfigError(
                f"model.decision={self.model.decision.value} does not go with objective.kind="
                f"{self.objective.kind.value}; {remedy}."
            )
        if self.objective.smoothing_s and self.model.decision is Decision.SILENT_TOKEN:
            raise ConfigError(
                "objective.smoothing_s smooths a yes-or-no decision, but model.decision="
                "silent_token learns a token; set objective.smoothing_s=0 or another decision."
            )
        if self.data.max_tokens is not None and self.objective.turns is Turns.SINGLE:
            raise ConfigError(
                "data.max_tokens counts whole conversations, but objective.turns=single repeats "
                "their beginnings; leave data.max_tokens at null, or objective.turns at shared."
            )
        self._check_relevance()
        self._check_sweep()
        self._check_optimizer()
        if self.streams_as_reference:
            check_counterparts(self.stream)

    def _check_relevance(self) -> None:
        if self.model.decision is not Decision.INFORMATIVE_RELEVANCE:
            return
        if self.objective.kind is not ObjectiveKind.PER_TOKEN:
            raise ConfigError(
                "model.decision=informative_relevance rates every frame, which objective.kind="
                f"{self.objective.kind.value} does not learn; set objective.kind=per_token."
            )
        if self.splitting.method is SplitMethod.DROP_ALL:
            raise ConfigError(
                "model.decision=informative_relevance learns at which frames a step is under way, "
                "but parts of splitting.method=drop_all do not know what came before; choose "
                "another splitting.method."
            )

    def _check_optimizer(self) -> None:
        kind, strategy = self.trainer.optimizer.kind, self.trainer.strategy
        if kind is OptimizerKind.MUON and strategy is Parallel.FSDP2:
            raise ConfigError(
                "trainer.optimizer.kind=muon works on whole matrices, of which "
                "trainer.strategy=fsdp2 gives each device a part; set trainer.strategy=ddp, or "
                "trainer.optimizer.kind=adamw with a rate and a weight decay of its own (say, "
                "those of trainer=finetune)."
            )

    def _check_sweep(self) -> None:
        wrong = [theta for theta in self.evaluation.sweep_speak if not 0.0 <= theta <= 1.0]
        if wrong and not self.stream.rule.looks_back:
            raise ConfigError(
                f"evaluation.sweep_speak: thresholds must be in [0, 1], got {wrong}; others go "
                "with stream.rule=running_sum or z_score."
            )

    @property
    def rules(self) -> SequenceRules:
        """Whose rules make the sequences."""
        return rules_for(self.compat is Compat.PROASSIST, self.model.chat)

    @property
    def streams_as_reference(self) -> bool:
        """Whether streams are answered as ProAssist's released code does.

        The DST extension has a stepping of its own, which nothing here reproduces: it looks at the
        picture before the prompt, in another format than that of training.
        """
        return self.rules == PROASSIST
