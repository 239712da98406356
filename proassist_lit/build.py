"""Builds the core objects of a run from its configuration, in sight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from proassist_lit.config import RunConfig
from proassist_lit.data.collate import collate, pack
from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import ConversationSet, load_data, training_texts
from proassist_lit.data.feature_content import HowMade
from proassist_lit.errors import ConfigError, FeatureError, RecordError
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.evaluation.forced import TeacherForcing
from proassist_lit.metrics.match_windows import check_windows
from proassist_lit.metrics.similarity import build_similarity
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.assistant_folder import load_heads
from proassist_lit.model.backbone import build_backbone, build_tokenizer
from proassist_lit.model.config import Decision
from proassist_lit.objectives import Turns
from proassist_lit.sequence.chat import Chat, chat_format
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.sequence.rules import DST_EXTENSION
from proassist_lit.sequence.script import read_script
from proassist_lit.sequence.splitting import split_conversation
from proassist_lit.sequence.turns import single_turns
from proassist_lit.streaming.arrivals import opening
from proassist_lit.streaming.config import Strategy
from proassist_lit.streaming.recording import check_length
from proassist_lit.streaming.room import room_to_write
from proassist_lit.streaming.rotation import KeyRotation
from proassist_lit.streaming.stream import Stream
from proassist_lit.types import Batch, Example


@dataclass(frozen=True)
class Core:
    """The objects of a run that know neither Lightning nor Hydra.

    Attributes:
        data: conversations by split.
        chat: formatter, with the tokenizer.
        model: backbone, projector and heads.
        evaluator: streaming evaluation.
    """

    data: Mapping[str, ConversationSet]
    chat: Chat
    model: AssistantModel
    evaluator: Evaluator


def build_core(
    config: RunConfig,
    *,
    tokenizer_folder: Path | None = None,
    windows: Iterable[str] | None = None,
    trained_size: int | None = None,
) -> Core:
    """Load the data and build tokenizer, model and evaluator.

    Args:
        config: of the run.
        tokenizer_folder: a tokenizer that was saved; None to make the configuration's own.
        windows: data sets of ``evaluation.windows`` that must be there; None for all of them.
        trained_size: E that the model was trained with; None for one that is not trained yet.

    Raises:
        ProAssistError: something in the configuration, the records or the features is wrong.
    """
    similarity = build_similarity(config.evaluation.similarity)  # a wrong one is told of at once
    data = load_data(config.data, as_released=config.reads_as_released)
    names = config.evaluation.windows if windows is None else windows
    check_windows(names, {name for split in data.values() for name in split.datasets})
    vision_size = _vision_size(data, trained_size)
    streamed = data
    if not config.rules.feed_updates:  # examples still learn from them what is relevant
        streamed = {split: found.without_updates() for split, found in data.items()}
    if tokenizer_folder is not None:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    else:
        tokenizer = build_tokenizer(config.model, lambda: training_texts(streamed["train"]))
    model = build_model(config, tokenizer, vision_size)
    chat = model.chat
    assert chat is not None
    check_context(config, model)
    split_whole = _splitter(config, chat, every_frame=True)
    _check_streams(config, model, streamed, split_whole)
    evaluator = Evaluator(
        streamed,
        config.stream,
        TeacherForcing(
            chat,
            config.data.max_seq_len,
            split_whole,
            config.rules,
            config.stream.max_new_tokens if config.evaluation.forced_words else 0,
            config.stream,
        ),
        config.matcher(similarity),
        config.evaluation,
        num_tokens_per_img=config.data.num_tokens_per_img,
        compat=config.streams_as_reference,
    )
    return Core(data, chat, model, evaluator)


def _check_streams(
    config: RunConfig,
    model: AssistantModel,
    data: Mapping[str, ConversationSet],
    split_whole: Callable[[Conversation], list[Conversation]],
) -> None:
    """Refuse now, not after an hour of training, what evaluation would refuse."""
    chat = model.chat
    assert chat is not None
    streams = [conversation for split in data if split != "train" for conversation in data[split]]
    for conversation in streams:
        split_whole(conversation)
    if config.streams_as_reference:
        return
    if config.stream.strategy is Strategy.DROP_MIDDLE:
        KeyRotation(model)
    room_to_write(chat, config.stream, config.data.num_tokens_per_img)
    any_threshold = replace(config.stream, theta_speak=1.0, theta_dst=1.0)  # nothing is decided
    for conversation in streams:  # refuses prompts that leave no room, and streams that do not end
        script = read_script(conversation)
        stream = Stream(
            chat, script, any_threshold,
            fps=conversation.fps, num_tokens_per_img=config.data.num_tokens_per_img,
            has_dst=model.dst_head is not None, start_frame_idx=conversation.start_frame_idx,
            opening=opening(script, config.stream.context), name=conversation.stream_id,
        )  # fmt: skip
        check_length(stream, script)


def _vision_size(data: Mapping[str, ConversationSet], trained: int | None) -> int:
    """E, the same of all splits, and that of the model if it is ``trained``."""
    ways: dict[HowMade, Path] = {}
    widths = {split: found.check_features(ways) for split, found in data.items()}
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{width} in {split}" for split, width in widths.items())
        other = next(split for split, width in widths.items() if width != widths["train"])
        raise FeatureError(
            f"{data[other].conversations[0].source}: features are of different widths ({found}); "
            "encode all splits with one encoder."
        )
    if trained not in (None, widths["train"]):
        raise FeatureError(
            f"{data['train'].conversations[0].source}: features are {widths['train']} wide, but "
            f"the model was trained with {trained}; evaluate it on features of its own encoder "
            "(data.encoder)."
        )
    return widths["train"]


def build_model(config: RunConfig, tokenizer: Any, vision_size: int) -> AssistantModel:
    """Build the model, with the weights that training begins with.

    Args:
        config: of the run.
        tokenizer: with the tokens of its chat format.
        vision_size: E.

    Raises:
        ProAssistError: something in the configuration or in the files that it names is wrong.
    """
    table = chat_format(config.model.chat, config.model.separator)
    chat = Chat(config.rules.written_in(table), tokenizer)
    torch.manual_seed(config.seed)
    model = AssistantModel(
        build_backbone(config.model, tokenizer),
        vision_size=vision_size,
        config=config.model,
        chat=chat,
    )
    if config.model.init_from:
        load_heads(model, Path(config.model.init_from), config.model.init_new)
    return model


def check_context(config: RunConfig, model: AssistantModel) -> None:
    """Refuse now what ``AssistantModel.hidden_states`` would refuse in the middle of the run.

    Raises:
        ConfigError: a context or a sequence may become longer than the backbone's.
    """
    if model.context_limit is None:
        return
    most, reason = model.context_limit
    asked = {
        "stream.max_context": config.stream.max_context,
        "data.max_seq_len": config.data.max_seq_len,
    }
    too_long = {name: length for name, length in asked.items() if length > most}
    if too_long:
        raise ConfigError(
            f"model.backbone={config.model.backbone} has {reason} {most} tokens, but "
            f"{' and '.join(f'{name}={length}' for name, length in too_long.items())}; lower "
            f"{' and '.join(too_long)} to at most {most}, or choose a backbone with rotary "
            "positions."
        )


def build_examples(config: RunConfig, core: Core, split: str) -> ExampleSet:
    """Training examples of ``split``; outside train no decision is left out or smoothed.

    Raises:
        RecordError: a record does not fit into ``data.max_seq_len`` at all, naming it; or no record
            of train teaches a head that begins untrained.
    """
    train = split == "train"
    data = core.data[split]
    split_parts = _splitter(config, core.chat)
    examples = ExampleSet(
        [part for conversation in data for part in split_parts(conversation)],
        data.features,
        core.chat,
        num_tokens_per_img=config.data.num_tokens_per_img,
        max_seq_len=config.data.max_seq_len,
        rho=config.objective.rho if train else 1.0,
        turn_frames=config.objective.sampled_turn_frames,
        seed=config.seed,
        smoothing_s=config.objective.smoothing_s if train else 0.0,
        rules=config.rules,
        relevance=config.model.decision is Decision.INFORMATIVE_RELEVANCE,
    )
    begins_trained = config.model.init_from and "dst_head" not in config.model.init_new
    if train and config.model.dst and not begins_trained and not examples.decides_updates:
        if not config.rules.feed_updates:
            raise ConfigError(
                f"compat={config.compat.value} tracks no state of a task, so nothing teaches when "
                "to update it (model.dst=true); set model.dst=false."
            )
        raise RecordError(
            f"{data.conversations[0].source} and {len(data) - 1} others: no conversation lists the "
            "steps of its task, so nothing teaches when to update their state (model.dst=true); "
            "set model.dst=false, or take records with steps (data.dialogue.steps=true where they "
            "are made from annotations)."
        )
    return examples


def _splitter(
    config: RunConfig, chat: Chat, *, every_frame: bool = False
) -> Callable[[Conversation], list[Conversation]]:
    """What splits a conversation into parts that fit into ``data.max_seq_len``.

    Those for training leave out long silence, with ``every_frame`` nothing.
    """
    return partial(
        split_conversation,
        chat=chat,
        config=config.splitting,
        num_tokens_per_img=config.data.num_tokens_per_img,
        max_seq_len=config.data.max_seq_len,
        seed=config.data.seed,
        rules=config.rules,
        every_frame=every_frame,
    )


def build_collate(
    config: RunConfig, core: Core, split: str
) -> Callable[[Sequence[Example]], Batch]:
    """What makes a batch of the examples of ``split``: padded, or packed into one row.

    Only train splits single turns: a shared forward gives the same losses.
    """
    make = pack if packs(config, core) else partial(collate, hidden_id=_hidden_id(config, core))
    if config.objective.turns is Turns.SINGLE and split == "train":
        return partial(_of_single_turns, make=make)
    return make


def packs(config: RunConfig, core: Core) -> bool:
    """Whether batches are packed: if they are to be, and the backbone and the rules allow it."""
    hides_tokens = _hidden_id(config, core) is not None
    return config.data.packing and core.model.can_pack and not hides_tokens


def _hidden_id(config: RunConfig, core: Core) -> int | None:
    """The end of turn, where the DST extension's rules take it for padding."""
    end = core.chat.end_of_turn_id
    pads_with_end = core.chat.tokenizer.pad_token_id in (None, end)
    rules = replace(config.rules, feed_updates=True)
    return end if rules == DST_EXTENSION and pads_with_end else None


def _of_single_turns(
    examples: Sequence[Example], *, make: Callable[[Sequence[Example]], Batch]
) -> Batch:
    return make([row for example in examples for row in single_turns(example)])
