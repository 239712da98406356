"""One model that answers the streams of a split: its process's share, from where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from proassist_lit.data.conversation import Conversation
from proassist_lit.errors import ContextError, ProAssistError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.answers import AnswerStore
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.evaluate import (
    followed,
    in_one_pass,
    make_transcript,
    stream_conversations,
)
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.shards import bring_together, share_by_size
from proassist_lit.types import Reference, Transcript

OnStream = Callable[[int, Transcript], None]
"""Told the place of the thresholds and the transcript of every finished stream."""

Outcome = Transcript | ContextError
"""Of a stream: its transcript, or where it filled its context."""


def failures(outcomes: Iterable[Outcome]) -> list[ContextError]:
    """Why streams have no transcript."""
    return [outcome for outcome in outcomes if isinstance(outcome, ContextError)]


def complete(outcomes: Sequence[Outcome]) -> list[Transcript]:
    """The transcripts, where every stream has one.

    Raises:
        ContextError: that of the first stream that has none.
    """
    if failed := failures(outcomes):
        raise failed[0]
    return [outcome for outcome in outcomes if isinstance(outcome, Transcript)]


def own_streams(conversations: Sequence[Conversation]) -> list[int]:
    """Numbers of the streams that this process answers, of several."""
    return share_by_size([conversation.num_frames for conversation in conversations])


class Streamer:
    """One model that answers recorded streams.

    Args:
        model: in evaluation mode.
        chat: the formatter.
        config: limits; its thresholds are not looked at.
        num_tokens_per_img: K.
        compat: streams are answered as ProAssist's released code does.
        answers: folder in which finished streams are kept until ``clear``: after a stop, the same
            evaluation goes on with the others; None to keep none.
        on_frames: called with the number of frames that were answered, of all thresholds.
    """

    def __init__(
        self,
        model: AssistantModel,
        chat: Chat,
        config: StreamConfig,
        *,
        num_tokens_per_img: int,
        compat: bool = False,
        answers: Path | None = None,
        on_frames: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._model, self._chat, self._compat = model, chat, compat
        self._config = replace(config, theta_speak=None, theta_dst=None)
        self._num_tokens_per_img, self.on_frames = num_tokens_per_img, on_frames
        self._kept: set[str] = set()  # keys, of all processes
        self._store: AnswerStore | None = None
        if answers is not None:
            # Decisions read from tokens leave no trace in the weights.
            settings = (self._config, chat.format, num_tokens_per_img, compat, model.decision)
            self._store = AnswerStore(answers, model, *settings)

    @property
    def in_one_pass(self) -> bool:
        """Whether more thresholds cost little more than one pair of them."""
        return in_one_pass(self._model, compat=self._compat)

    def answer(
        self,
        conversations: Sequence[Conversation],
        features: Callable[[int], Tensor],
        thresholds: Sequence[Thresholds],
        *,
        on_stream: OnStream = lambda _row, _transcript: None,
    ) -> list[list[Outcome]]:
        """Answer ``conversations`` with each of ``thresholds``.

        Where a run has several processes, each answers its share and all get the whole. That a
        stream fills its context may be the fault of one row of thresholds alone, or of a model that
        is not trained yet: the caller judges.

        Args:
            conversations: the streams.
            features: gives (F, K, E) features of the conversation of that number.
            thresholds: rows.
            on_stream: called for every finished stream of this process.

        Returns:
            What became of the streams of each row, in the order of ``conversations``.

        Raises:
            ProAssistError: a stream failed in another way; the others were finished, and kept,
                before, but for features that cannot be read, which are met before the first.
        """
        done: dict[tuple[int, int], Outcome] = {}  # number, row
        keys: dict[tuple[int, int], str] = {}
        left: dict[tuple[int, ...], list[int]] = {}  # rows that are missing -> numbers
        told: dict[int, tuple[Reference, ...]] = {}  # of a number, the same with all thresholds

        def finish(number: int, row: int, transcript: Transcript) -> None:
            shared = told.setdefault(number, transcript.references)
            done[number, row] = transcript = replace(transcript, references=shared)
            on_stream(row, transcript)

        failed: ProAssistError | None = None  # raised when all are together: others wait for us
        for number in own_streams(conversations):
            try:
                found = self._find(conversations[number], number, features, thresholds, keys)
            except ProAssistError as error:  # of its features, which are hashed
                failed, left = error, {}
                break
            for row, transcript in found.items():
                self.on_frames(len(transcript.frames))
                finish(number, row, transcript)
            missing = tuple(row for row in range(len(thresholds)) if row not in found)
            if missing:
                left.setdefault(missing, []).append(number)

        def full(index: int, place: int, error: ContextError) -> None:
            done[numbers[index], rows[place]] = error

        for rows, numbers in left.items():
            try:
                for index, place, transcript in stream_conversations(
                    self._model,
                    self._chat,
                    [conversations[number] for number in numbers],
                    _chosen(features, numbers),
                    replace(
                        self._config, theta_speak=thresholds[0].speak, theta_dst=thresholds[0].dst
                    ),
                    num_tokens_per_img=self._num_tokens_per_img,
                    thresholds=[thresholds[row] for row in rows],
                    on_frames=self.on_frames,
                    on_full=full,
                    compat=self._compat,
                ):
                    number, row = numbers[index], rows[place]
                    if self._store is not None:
                        self._store.write(keys[number, row], list(transcript.frames))
                    finish(number, row, transcript)
            except ProAssistError as error:
                failed = failed or error
        everyones = bring_together(done, failed)
        self._kept |= set(bring_together(keys).values())
        every = range(len(conversations))
        return [[everyones[number, row] for number in every] for row in range(len(thresholds))]

    def clear(self) -> None:
        """Forget the kept answers, those of the other processes too: the evaluation is finished."""
        if self._store is not None:
            self._store.clear(self._kept)

    def _find(
        self,
        conversation: Conversation,
        number: int,
        features: Callable[[int], Tensor],
        thresholds: Sequence[Thresholds],
        keys: dict[tuple[int, int], str],
    ) -> dict[int, Transcript]:
        """Kept transcripts of a stream by row; notes under which keys they are kept."""
        found: dict[int, Transcript] = {}
        if self._store is None:
            return found
        if self._compat:  # what its fresh answers are set beside
            beside = conversation.without_updates()
        else:
            beside = followed(self._model, conversation)
        watched = features(number)
        for row, chosen in enumerate(thresholds):
            keys[number, row] = self._store.key(conversation, watched, chosen)
            frames = self._store.read(keys[number, row])
            if frames is not None:
                found[row] = make_transcript(beside, read_script(beside), frames)
        return found


def _chosen(features: Callable[[int], Tensor], numbers: Sequence[int]) -> Callable[[int], Tensor]:
    """Features of some of the conversations, counted from 0."""
    return lambda index: features(numbers[index])
