"""Settings of training: how long, on what, and how its progress is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from proassist_lit.data.record_checks import nearest
from proassist_lit.errors import ConfigError
from proassist_lit.model.training_layers import GradientCheckpointing
from proassist_lit.optimizer_config import OptimizerConfig, OptimizerKind

PRECISIONS = (
    "32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true", "64-true",
    "32", "bf16", "16", "64",
)  # fmt: skip
"""Lightning's names of what is computed in which numbers, but for those of Transformer Engine."""


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
    """Steps between validations; a run of fewer steps is validated at its end. 0 for none."""

    patience: int = 0
    """Validations without a lower loss on val after which training ends; 0 for no such end."""

    accumulate: int = 1
    """Batches that make one optimizer step, one after the other in the memory of one (and of one
    more set of gradients); >= 1. Losses are divided by what all of them count: the step is that of
    one large batch."""

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
    Full takes least memory and a third more arithmetic; selective costs little on a CPU, but much
    of Python's time, for which a fast GPU waits."""

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
    """A loss above so many times the median of the last 100 batches, and above what training began
    with, stops the run, after the warm-up; 0 for never. A loss or gradient that is no number always
    does."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and learning-rate schedule."""

    @property
    def rounds_weights(self) -> bool:
        """Whether all weights are trained in 16 bits."""
        return self.precision in ("bf16-true", "16-true")

    def __post_init__(self) -> None:
        if self.max_steps < 0 and self.max_epochs < 0:
            raise ConfigError(
                "trainer.max_steps and trainer.max_epochs are both without limit; set one of them."
            )
        if self.devices != "auto" and not (self.devices.isdecimal() and int(self.devices) > 0):
            raise ConfigError(
                f"trainer.devices is {self.devices!r}; give a number of devices, at least 1, or "
                "auto."
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"trainer.precision={self.precision}: there is no such precision; the nearest is "
                f"{nearest(self.precision, PRECISIONS)!r} (there are {', '.join(PRECISIONS)})."
            )
        for name in ("log_every_steps", "accumulate", "save_top_k", "num_nodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("val_every_steps", "save_every_steps"):
            if (steps := getattr(self, name)) < 0:
                raise ConfigError(f"trainer.{name} must be >= 0, got {steps}; 0 for none.")
        if not self.val_every_steps and (self.patience or self.save_top_k > 1):
            raise ConfigError(
                "trainer.patience and trainer.save_top_k above 1 have no effect with "
                "trainer.val_every_steps=0, which validates never; set patience=0 and save_top_k=1."
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
        if self.optimizer.kind is OptimizerKind.MUON and self.strategy is Parallel.FSDP2:
            raise ConfigError(
                "trainer.optimizer.kind=muon works on whole matrices, of which "
                "trainer.strategy=fsdp2 gives each device a part; set trainer.strategy=ddp, or "
                "trainer.optimizer.kind=adamw with a rate and a weight decay of its own (say, "
                "those of trainer=finetune)."
            )
