"""Settings that do not fit together, the data or the backbone: told of, or refused."""

from __future__ import annotations

import warnings

from proassist_lit.build import Core
from proassist_lit.config import RunConfig
from proassist_lit.data.conversation import AssistantTurn
from proassist_lit.errors import ConfigError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.objectives import ObjectiveKind
from proassist_lit.optimizer_config import OptimizerKind
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.sequence.split_config import SplitMethod
from proassist_lit.streaming.config import Strategy


def check_batches(config: RunConfig, num_batches: int, num_ranks: int) -> None:
    """Refuse data that does not suffice for a single step.

    Args:
        config: of the run.
        num_batches: of an epoch, of each process.
        num_ranks: processes.

    Raises:
        ConfigError: there is no batch.
    """
    if num_batches:
        return
    size = (
        f"data.batch_size={config.data.batch_size}"
        if config.data.max_tokens is None
        else f"data.max_tokens={config.data.max_tokens}"
    )
    raise ConfigError(
        f"train has too few conversations for one step of {num_ranks} processes with {size} each; "
        "lower it, or trainer.devices, or take more conversations."
    )


def check_stream_length(config: RunConfig) -> None:
    """Warn of streams that go on where training has split its conversations."""
    stream, longest = config.stream, config.data.max_seq_len
    if stream.max_context - stream.reserve > longest:
        warnings.warn(
            f"stream.max_context={stream.max_context}: streams grow to "
            f"{stream.max_context - stream.reserve} tokens, but conversations of train are split "
            f"at data.max_seq_len={longest}, so that nothing behind it is ever learnt. Set "
            f"stream.max_context={longest + stream.reserve}, or raise data.max_seq_len.",
            stacklevel=2,
        )


def check_summaries(config: RunConfig) -> None:
    """Warn of summaries that are taught, but cut off in streams."""
    both = config.splitting.method.value, config.stream.strategy.value
    taught, written = config.splitting.max_summary_tokens, config.stream.max_summary_tokens
    if both == ("summarize", "summarize") and taught > written:
        warnings.warn(
            f"splitting.max_summary_tokens={taught}: summaries of up to {taught} tokens are "
            f"learnt, but streams cut them off at {written} (stream.max_summary_tokens). Set both "
            "to one number, and leave room for it in stream.reserve.",
            stacklevel=2,
        )


def check_taught_summaries(config: RunConfig, core: Core, examples: ExampleSet) -> None:
    """Warn of streams that write summaries, which nothing in train teaches.

    Args:
        config: of the run.
        core: with the conversations of train, before they were split.
        examples: of train.
    """
    begins_trained = bool(config.model.init_from)  # elsewhere, maybe to summarize as well
    if config.stream.strategy is not Strategy.SUMMARIZE or begins_trained:
        return
    if examples.teaches_summaries:
        return
    whole, longest = core.data["train"], config.data.max_seq_len
    said = [turn for c in whole for turn in c.turns if isinstance(turn, AssistantTurn)]
    if config.splitting.method is not SplitMethod.SUMMARIZE:
        why = "Set splitting.method=summarize, with which parts of long conversations end with one"
    elif len(examples) == len(whole):
        why = (
            f"All of train fits into data.max_seq_len={longest}, and only parts of what does not "
            "end with one: lower it"
        )
    else:
        why = (
            f"Of its {len(said)} utterances {sum(bool(turn.progress) for turn in said)} have a "
            "progress, which parts end with where it takes no more than "
            f"splitting.max_summary_tokens={config.splitting.max_summary_tokens}: give them one"
        )
    warnings.warn(
        "stream.strategy=summarize: train has no summary to learn, so streams go on from what the "
        f"model makes up. {why}, or choose another stream.strategy.",
        stacklevel=2,
    )


def check_cut(config: RunConfig, examples: ExampleSet) -> None:
    """Warn of conversations of train whose end nobody learns."""
    lost = [frames for frames in examples.frames_cut if frames]
    if lost:
        warnings.warn(
            f"splitting.method={config.splitting.method.value}: {len(lost)} of {len(examples)} "
            f"conversations of train are longer than data.max_seq_len={config.data.max_seq_len} "
            f"and lose their end, up to {max(lost)} frames and what is said there. Choose another "
            "splitting.method, or raise data.max_seq_len.",
            stacklevel=2,
        )


def check_turns(config: RunConfig) -> None:
    """Warn of streams that decide where silence was never learnt, and of turns that are not."""
    frames, stride = config.objective.turn_frames, config.stream.stride
    if config.objective.sampled_turn_frames is None and frames > 1:  # once a default: not refused
        warnings.warn(
            f"objective.turn_frames={frames} has no effect with "
            f"objective.kind={config.objective.kind.value}, which has no turns; leave it at 1. For "
            "fewer silent frames lower objective.rho.",
            stacklevel=2,
        )
    if config.objective.kind is ObjectiveKind.PER_TURN and frames > 1 and stride != frames:
        warnings.warn(
            f"objective.turn_frames={frames}: silence is learnt at every {frames} frames of a "
            f"pause, but streams decide at every {stride} (stream.stride), and between they will "
            f"speak at random. Set stream.stride={frames}, or objective.turn_frames=1 with a lower "
            "objective.rho for fewer silent frames.",
            stacklevel=2,
        )


def check_positions(config: RunConfig, model: AssistantModel) -> None:
    """Warn of contexts longer than what a backbone was pretrained on, which it can be fed.

    ``build.check_context`` has refused those that it cannot.
    """
    most = getattr(model.lm.config, "max_position_embeddings", None)
    if most is None or config.model.is_from_scratch:
        return
    asked = {
        "data.max_seq_len": config.data.max_seq_len,
        "stream.max_context": config.stream.max_context,
    }
    too_long = {name: length for name, length in asked.items() if length > most}
    if too_long:
        key = "model.init_from" if config.model.init_from else "model.backbone"
        warnings.warn(
            f"{key}={config.model.source} was pretrained on {most} positions, but "
            f"{' and '.join(f'{name}={length}' for name, length in too_long.items())}: what lies "
            "beyond is foreign to its weights until they have learnt it. Lower "
            f"{' and '.join(too_long)} to at most {most}, choose a backbone for longer texts, or "
            "train all of it (model.train=full) on sequences as long.",
            stacklevel=2,
        )


def check_optimizer(config: RunConfig, model: AssistantModel) -> None:
    """Warn of an optimizer that does not suit what is trained."""
    if config.trainer.optimizer.kind is not OptimizerKind.MUON:
        return
    begins = config.model.init_from or config.model.backbone
    if not any(p.requires_grad for p in model.lm.parameters()):
        warnings.warn(
            f"trainer.optimizer.kind=muon moves the matrices of layers, but model.train="
            f"{config.model.train.value} trains none; trainer=finetune has what suits the rest.",
            stacklevel=2,
        )
    elif not config.model.is_from_scratch:
        warnings.warn(
            f"trainer.optimizer.kind=muon is for models from scratch, but this one begins with "
            f"the weights of {begins}; trainer=finetune has what suits them.",
            stacklevel=2,
        )
