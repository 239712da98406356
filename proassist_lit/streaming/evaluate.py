"""Streams recorded conversations and sets them beside their references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from proassist_lit.data.conversation import Conversation
from proassist_lit.errors import ContextError, FeatureError, ProAssistError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.rules import PROASSIST
from proassist_lit.sequence.script import Script, Text, read_script
from proassist_lit.streaming.arrivals import Said, arriving, opening
from proassist_lit.streaming.compat import reference_config
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.decoder import Decoder, make_decoder
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.recording import Recording
from proassist_lit.streaming.reference import ReferenceSession
from proassist_lit.streaming.session import Session
from proassist_lit.types import FrameOutput, Transcript


def stream_conversation(
    model: AssistantModel,
    chat: Chat,
    conversation: Conversation,
    features: Tensor,
    config: StreamConfig,
    *,
    decoder: Decoder | None = None,
    on_frame: Callable[[FrameOutput], None] | None = None,
) -> Transcript:
    """Answer one recorded stream, frame by frame.

    Args:
        model: in evaluation mode.
        chat: the formatter.
        conversation: prompt, steps, and what the user says when.
        features: (F, K, E), one row per frame of the conversation.
        config: thresholds and limits.
        decoder: how tokens are fed; None for what ``stream.kernels`` says.
        on_frame: called after every frame, for progress.
    """
    conversation = followed(model, conversation)
    script = read_script(conversation)
    _check_features(model, conversation, script, features)
    session = Session(
        model,
        chat,
        script,
        config,
        fps=conversation.fps,
        num_tokens_per_img=features.shape[1],
        start_frame_idx=conversation.start_frame_idx,
        opening=opening(script, config.context),
        name=conversation.stream_id,
        decoder=decoder,
    )
    session.check_length(script)
    frames = _play(session, script, features, on_frame)
    return make_transcript(conversation, script, frames)


def stream_as_reference(
    model: AssistantModel,
    chat: Chat,
    conversation: Conversation,
    features: Tensor,
    config: StreamConfig,
    *,
    decoder: Decoder | None = None,
    on_frame: Callable[[FrameOutput], None] | None = None,
) -> Transcript:
    """Answer one recorded stream as ProAssist's released code does, faults included.

    It is set beside the same references as any other: what it loses of the dialogue is missing
    from its context, not from what it is measured by. But it tracks no state of a task.

    Args:
        model: in evaluation mode; its dst head, if any, is not asked.
        chat: the formatter.
        conversation: prompt, steps, and what the user says when.
        features: (F, K, E), one row per frame of the conversation.
        config: threshold and limits, which the reference must know.
        decoder: how tokens are fed; None for what ``stream.kernels`` says.
        on_frame: called after every frame, for progress.

    Raises:
        ConfigError: a setting has no counterpart in the reference.
    """
    conversation = conversation.without_updates()
    script = read_script(conversation, PROASSIST)
    _check_features(model, conversation, script, features)
    session = ReferenceSession(
        model,
        chat,
        script,
        reference_config(config),
        fps=conversation.fps,
        num_tokens_per_img=features.shape[1],
        start_frame_idx=conversation.start_frame_idx,
        name=conversation.stream_id,
        decoder=decoder or make_decoder(model, config.kernels),
    )
    frames = _play(session, script, features, on_frame)
    return make_transcript(conversation, read_script(conversation), frames)


class _Steps(Protocol):
    """Either session."""

    def step(
        self,
        frame: Any,
        user_text: str | Sequence[Text] | None = None,
        *,
        said: Said | None = None,
    ) -> FrameOutput:
        """Watch one frame and answer."""


def _check_features(
    model: AssistantModel, conversation: Conversation, script: Script, features: Tensor
) -> Tensor:
    """``features``, if they are of every frame that is watched, and of the model's width."""
    if len(features) < len(script.moments):
        raise FeatureError(
            f"{conversation.source}: the conversation watches {len(script.moments)} frames, but "
            f"there are features of {len(features)} only; encode the whole video."
        )
    model.check_width(features, where=conversation.source)
    return features


def _play(
    session: _Steps,
    script: Script,
    features: Tensor,
    on_frame: Callable[[FrameOutput], None] | None,
) -> list[FrameOutput]:
    """Answers at every frame of ``script``; a session looks at ``said`` if that is its context."""
    frames = []
    for index in range(len(script.moments)):
        texts, said = arriving(script, index)
        frames.append(session.step(features[index], texts, said=said))
        if on_frame is not None:
            on_frame(frames[-1])
    return frames


def followed(model: AssistantModel, conversation: Conversation) -> Conversation:
    """What ``model`` can follow of ``conversation``: no state, if it decides on no updates."""
    return conversation if model.dst_head is not None else conversation.without_updates()


def make_transcript(
    conversation: Conversation, script: Script, frames: list[FrameOutput]
) -> Transcript:
    """Set ``frames`` beside the references of ``script``."""
    return Transcript(
        stream_id=conversation.stream_id,
        dataset=conversation.dataset,
        fps=conversation.fps,
        steps=tuple((step.id, step.name) for step in conversation.steps),
        frames=tuple(frames),
        references=references(script),
    )


def stream_conversations(
    model: AssistantModel,
    chat: Chat,
    conversations: Sequence[Conversation],
    features: Callable[[int], Tensor],
    config: StreamConfig,
    *,
    num_tokens_per_img: int,
    thresholds: Sequence[Thresholds] | None = None,
    on_frames: Callable[[int], None] | None = None,
    on_full: Callable[[int, int, ContextError], None] | None = None,
    compat: bool = False,
) -> Iterator[tuple[int, int, Transcript]]:
    """Answer many recorded streams; each is yielded when it is finished.

    A backbone that an engine can run is run by one, many streams at a time and all thresholds in
    one pass; any other one stream after the other, once for each pair of thresholds. The
    transcripts are the same. With ``compat`` the reference answers in our place.

    Args:
        model: in evaluation mode.
        chat: the formatter.
        conversations: prompt, steps, and what the user says when.
        features: gives (F, K, E) features of the conversation of that number.
        config: thresholds and limits.
        num_tokens_per_img: K.
        thresholds: answer every stream with each of these; None for those of ``config``.
        on_frames: called with the number of frames that were answered, for progress.
        on_full: called with number, place and error of a stream that filled its context, which
            then is no failure; None to raise it as any other.
        compat: answer as ProAssist's released code does, see ``stream_as_reference``.

    Yields:
        Number of the conversation, place of the thresholds, and the transcript.

    Raises:
        ProAssistError: a stream failed; the others were finished and yielded before.
    """
    errors: list[ProAssistError] = []

    def fail(number: int, row: int, error: ProAssistError) -> None:
        if on_full is not None and isinstance(error, ContextError):
            on_full(number, row, error)
        else:
            errors.append(error)

    rows = list(thresholds or [Thresholds.of(config)])

    def checked(number: int) -> Tensor:
        script = recordings[number].script
        return _check_features(model, conversations[number], script, features(number))

    if in_one_pass(model, compat=compat):
        conversations = [followed(model, conversation) for conversation in conversations]
        recordings = [
            Recording(
                name=conversation.stream_id,
                script=read_script(conversation),
                features=partial(checked, number),
                fps=conversation.fps,
                start_frame_idx=conversation.start_frame_idx,
            )
            for number, conversation in enumerate(conversations)
        ]
        engine = Engine(model, chat, config, num_tokens_per_img=num_tokens_per_img, thresholds=rows)
        for answered in engine.run(recordings, on_frames=on_frames):
            number, frames = answered.index, list(answered.frames)
            if answered.error is not None:
                fail(number, answered.row, answered.error)
            else:
                script = recordings[number].script
                yield number, answered.row, make_transcript(conversations[number], script, frames)
    else:
        answer = stream_as_reference if compat else stream_conversation
        decoder = make_decoder(model, config.kernels)

        def on_frame(_: FrameOutput) -> None:
            if on_frames is not None:
                on_frames(1)

        for number, conversation in enumerate(conversations):
            for row, chosen in enumerate(rows):
                own = replace(
                    config, theta_speak=chosen.speak, theta_dst=chosen.dst, rise=chosen.rise
                )
                try:
                    transcript = answer(
                        model, chat, conversation, features(number), own,
                        decoder=decoder, on_frame=on_frame,
                    )  # fmt: skip
                except ProAssistError as error:
                    fail(number, row, error)
                else:
                    yield number, row, transcript
    if errors:
        raise errors[0]


def in_one_pass(model: AssistantModel, *, compat: bool) -> bool:
    """Whether many streams and thresholds are answered at once, by an engine."""
    return Engine.fits(model) and not compat
