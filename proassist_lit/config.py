"""The configuration of a run. Each part is defined beside its owner; here they are joined."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from proassist_lit.data.config import DataConfig
from proassist_lit.errors import ConfigError
from proassist_lit.evaluation.config import EvaluationConfig, Matching
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.matching import MatchConfig
from proassist_lit.metrics.similarity import Similarity
from proassist_lit.model.config import Decision, HeadType, ModelConfig
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, Turns
from proassist_lit.sequence.rules import PROASSIST, SequenceRules, rules_for
from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
from proassist_lit.streaming.compat import check_counterparts
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.trainer_config import TrainerConfig


class Compat(StrEnum):
    """Whose rules apply where we differ from the reference on purpose."""

    NONE = "none"
    """Ours."""

    PROASSIST = "proassist"
    """ProAssist's released code, faults included, to compare with published numbers: its sequences,
    its way through a stream and its matching of utterances. With model.chat=dst_ext the sequences
    are those of its DST extension, and streams are answered by our rules."""


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
    """none (a run directory that holds a run is refused), auto (go on from the last checkpoint of
    the run directory, or begin), or the path of a checkpoint."""

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
        if self.name in ("", ".", "..", "latest") or "/" in self.name:
            raise ConfigError(
                f"name is {self.name!r}; give a word without '/', it names the run directory. Not "
                "'latest', which is the link to the newest run."
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
        self._check_weights()
        self._check_heads()
        self._check_relevance()
        self._check_sweep()
        if self.streams_as_reference:
            check_counterparts(self.stream)

    def _check_weights(self) -> None:
        silent, decision = "silent_logit_weight", "speaking_binary_weight"
        learns_token = self.model.decision is Decision.SILENT_TOKEN
        idle, instead = (decision, silent) if learns_token else (silent, decision)
        if getattr(self.objective, idle) != 1.0:
            raise ConfigError(
                f"objective.{idle} has no effect with model.decision={self.model.decision.value}, "
                f"whose silence is weighed by objective.{instead}; leave it at 1."
            )
        if learns_token and not self.model.dst and self.objective.pos_weight != 1.0:
            raise ConfigError(
                "objective.pos_weight weighs yes-or-no decisions, but model.decision=silent_token "
                "learns a token and model.dst=false leaves no other head; leave it at 1."
            )
        names = [f"objective.{name}" for name in ("dst_gen_weight", "dst_binary_weight")
                 if getattr(self.objective, name) != 1.0]  # fmt: skip
        if names and not self.model.dst:
            has, them = ("has", "it") if len(names) == 1 else ("have", "them")
            raise ConfigError(
                f"{', '.join(names)} {has} no effect with model.dst=false, which learns no "
                f"updates; leave {them} at 1."
            )

    def _check_heads(self) -> None:
        model = self.model
        if model.dst_output_head and not model.dst:
            raise ConfigError(
                "model.dst_output_head=true writes updates, but model.dst=false writes none; set "
                "it to false."
            )
        without = f"model.decision={model.decision.value}"
        if model.decision is Decision.SILENT_TOKEN and not model.dst:
            without += " with model.dst=false"
        elif model.decision is not Decision.OPENING_TOKEN:
            return
        if model.head is not HeadType.LINEAR:
            raise ConfigError(
                f"model.head={model.head.value} shapes decision heads, but {without} has none; "
                "leave it at linear."
            )

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
        return rules_for(self.compat is Compat.PROASSIST, self.model.chat, dst=self.model.dst)

    @property
    def reads_as_released(self) -> bool:
        """Whether records are read as a source's own code reads them: by rules of its own.

        Those leave turns without text unwritten, which ours would write.
        """
        return not self.rules.write_empty_utterances

    @property
    def matching(self) -> MatchConfig:
        """How generated utterances are matched to those of the reference."""
        chosen = self.evaluation.matching
        released = chosen is Matching.REFERENCE or (
            chosen is Matching.AUTO and self.compat is Compat.PROASSIST
        )
        return MatchConfig(compat_abs_cosine=released, compat_drop_zero_cost=released)

    def matcher(self, similarity: Similarity) -> Matcher:
        """What pairs utterances with references, for metrics, dashboard and report alike."""
        return Matcher(similarity, self.evaluation.match_windows(), self.matching)

    @property
    def streams_as_reference(self) -> bool:
        """Whether streams are answered as ProAssist's released code does.

        The DST extension has a stepping of its own, which nothing here reproduces: it looks at the
        picture before the prompt, in another format than that of training.
        """
        return self.rules == PROASSIST
