"""One stream without a model: what is fed next, what an answer means.

This is the definition of streaming. For every frame: the text that arrived and the frame's image
tokens are fed; both decisions are made from the heads at the last image token; then the dst span,
then the utterance are written; then, if the context is nearly full, the context strategy runs.
``session`` runs one stream frame by frame, ``engine`` runs many at once; both obey this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

from proassist_lit.errors import ConfigError, ContextError
from proassist_lit.sequence.builder import text_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import Script, Text
from proassist_lit.streaming.arrivals import Said, user_words
from proassist_lit.streaming.config import ContextSource, Strategy, StreamConfig
from proassist_lit.streaming.context import ContextManager, Cut, summary_query
from proassist_lit.streaming.policy import DecisionPolicy, Thresholds
from proassist_lit.streaming.room import Room
from proassist_lit.streaming.writer import Span, Writer
from proassist_lit.types import (
    DialogueState,
    FrameOutput,
    Update,
    apply_updates,
    parse_updates,
)


class Stream:
    """Everything that one stream remembers but the cache itself.

    The runner feeds what it is told and calls, for every frame: ``begin``, ``decide``, then
    ``feed`` and ``take`` until ``feed`` gives None, then ``end``. Before each of them it carries
    out ``cut``, if there is one.

    Args:
        chat: the formatter that the model was trained with.
        script: prompt, steps and initial state; its moments are not looked at.
        config: thresholds and limits; both thresholds must be set.
        fps: frames per second.
        num_tokens_per_img: K.
        has_dst: whether the model decides on updates; if not, the steps are not told.
        start_frame_idx: index of the first frame in the video.
        opening: what is said before the first frame, as far as it is known: it may have to stay.
        name: name of the stream, for messages.

    Attributes:
        thresholds: those of ``config``; may be changed between frames.
        state: tracked state of every step.
        length: tokens in the cache.
        prefix: ids of the tokens before the first image token, as far as they are in the cache.
        pending: ids of tokens that are fed before anything else.
        cut: what the cache must forget before anything else is fed, None for nothing.

    Raises:
        ConfigError: a threshold is missing, or the limits leave no room.
    """

    def __init__(
        self,
        chat: Chat,
        script: Script,
        config: StreamConfig,
        *,
        fps: float,
        num_tokens_per_img: int,
        has_dst: bool,
        start_frame_idx: int = 0,
        opening: Sequence[Text] = (),
        name: str = "stream",
    ) -> None:
        if config.theta_speak is None or config.theta_dst is None:
            raise ConfigError(
                "stream.theta_speak and stream.theta_dst are not set; set both, or let the "
                "evaluation choose them on val."
            )
        self._room = Room(chat, config, num_tokens_per_img, name=name)
        self.name, self.config, self.chat = name, config, chat
        self._fps, self._num_tokens_per_img = fps, num_tokens_per_img
        self.has_dst = has_dst and bool(script.steps)
        # Who decides on no updates has learnt from sequences without steps.
        told = script if has_dst else replace(script, steps=())
        self._context = ContextManager(
            chat, told, config, num_tokens_per_img=num_tokens_per_img, opening=opening, name=name
        )
        self.thresholds = Thresholds.of(config)
        self._speaking = DecisionPolicy.to_speak(config)
        self._updating = DecisionPolicy.to_update(config)
        self.frame_idx = start_frame_idx
        self.length = 0
        self.prefix: list[int] = []
        self.pending = self._context.first_prefix()
        self.cut: Cut | None = None
        self.state: DialogueState = dict(script.initial_state)
        self._reference_state: DialogueState = dict(script.initial_state)
        self._starts: list[int] = []  # of frames, spans and texts in the context
        self._after_silence = False
        self._knowledge = ""
        # of the frame under way
        self._texts: tuple[Text, ...] = ()
        self._said = Said()
        self._probs: tuple[float, float | None] = (0.0, None)
        self._decisions = (False, False)
        self._writer = Writer(chat.end_of_turn_id)
        self._mark = 0
        self._answers: dict[Role, str] = {}
        self._updates: tuple[Update, ...] = ()
        self._dst_invalid, self._event, self._context_len = 0, "", 0

    @property
    def context_len(self) -> int:
        """Tokens of the context, those that wait to be fed included."""
        return self.length + len(self.pending)

    @property
    def uses_reference(self) -> bool:
        """Whether the reference dialogue makes the context."""
        return self.config.context is ContextSource.REFERENCE

    def copy(self) -> Stream:
        """A stream that goes on from here by itself; what lists hold is never changed."""
        other = copy(self)
        other._speaking, other._updating = copy(self._speaking), copy(self._updating)
        other._starts, other.pending = list(self._starts), list(self.pending)
        other._writer, other._answers = self._writer.copy(), dict(self._answers)
        return other

    def check(self) -> None:
        """Raise if no other frame can be watched.

        Raises:
            ContextError: the context is full and the strategy is ``none``.
        """
        limit = self._context.limit
        if self.config.strategy is Strategy.NONE and self.context_len >= limit:
            raise ContextError(
                f"stream {self.name!r}, frame {self.frame_idx}: the context is full "
                f"({self.context_len} of {self.config.max_context} tokens, {self.config.reserve} "
                "kept in reserve); raise stream.max_context or choose a stream.strategy."
            )

    def begin(self, texts: Sequence[Text] = (), said: Said | None = None) -> list[int]:
        """Watch the next frame; return the token ids that precede its image tokens.

        Args:
            texts: what arrived since the frame before.
            said: what the reference says at this frame, where it makes the context.

        Raises:
            ContextError: the text, or what the reference says at the frame, is longer than the
                context has room for. Nothing has changed.
        """
        said = said or Said()
        before = said.before if self.uses_reference else tuple(texts)
        turns = [text_ids(self.chat, (text,)) for text in before]
        self._check_room(sum(map(len, turns)), said)
        self._texts, self._said = tuple(texts), said
        ids, self.pending = self.pending, []
        opens = not self._starts
        for turn in turns:
            if not opens:
                self._starts.append(self.length + len(ids))
            ids += turn
        if opens:  # the prefix is all that precedes the first image token
            self.prefix = self.prefix + ids
        elif self._after_silence and not turns:
            ids += self.chat.separator_ids
        self._starts.append(self.length + len(ids))
        self.length += len(ids) + self._num_tokens_per_img
        for text in before:
            self._reference_state, _ = apply_updates(self._reference_state, text.updates)
            if text.is_knowledge:
                self._knowledge = self._knowledge or text.content
        return ids

    def would(
        self, speak_prob: float, dst_prob: float | None, thresholds: Thresholds
    ) -> tuple[bool, bool]:
        """Whether to speak, and whether to update the state, by ``thresholds``."""
        speak = self._speaking.says(speak_prob, thresholds.speak, thresholds.rise)
        if dst_prob is None or not self.has_dst:
            return speak, False
        return speak, self._updating.says(dst_prob, thresholds.dst)

    def decide(self, speak_prob: float, dst_prob: float | None) -> tuple[bool, bool]:
        """Decide at the frame; return whether to speak, and whether to update the state."""
        dst_prob = dst_prob if self.has_dst else None
        self._probs = (speak_prob, dst_prob)
        speak, dst = self.would(speak_prob, dst_prob, self.thresholds)
        self._speaking.note(speak_prob, speak)
        if dst_prob is not None:
            self._updating.note(dst_prob, dst)
        self._decisions = (speak, dst)
        self._answers, self._updates, self._dst_invalid, self._event = {}, (), 0, ""
        if self.config.words:
            config = self.config
            if dst:
                self._enqueue(Role.DST, config.max_dst_tokens)
            if speak:
                self._enqueue(Role.ASSISTANT, config.max_new_tokens)
        self._after_silence = not (speak or dst)
        self._mark = self.length
        if not self._writer:
            self._finish_words()
        return speak, dst

    def feed(self) -> list[int] | None:
        """Token ids to feed next while something is written; None when all is."""
        if not self._writer:
            return None
        if (last := self._writer.last) is not None:
            ids = [last]
        else:
            span = self._writer.span
            ids = [*self.pending, *span.opening]
            if not span.is_summary:
                self._starts.append(self.length + len(self.pending))
            self.pending = []
        self.length += len(ids)
        return ids

    @property
    def is_writing(self) -> bool:
        """Whether something is being written at this frame."""
        return bool(self._writer)

    @property
    def writes_dst(self) -> bool:
        """Whether the token that is asked for belongs to a dst span."""
        return self._writer.span.role is Role.DST

    def take(self, token: int) -> None:
        """Go on with ``token``, the most probable one after what was fed last."""
        span = self._writer.span
        written = self._writer.take(token)
        if written is None:
            return
        # The closing waits for the next thing that is fed: the same tokens in the same order.
        self.pending = [self.chat.end_of_turn_id, *self.chat.after_turn_ids]
        text = self.chat.decode(written)
        if span.is_summary:
            self._forget(text)
            return
        self._answers[span.role] = text
        if span.role is Role.DST:
            self._updates, num_unreadable = parse_updates(text)
            self.state, num_refused = apply_updates(self.state, self._updates)
            self._dst_invalid = num_unreadable + num_refused
        if not self._writer:
            self._finish_words()

    def end(self) -> FrameOutput:
        """The answer at this frame."""
        output = FrameOutput(
            frame_idx=self.frame_idx,
            time_s=self.frame_idx / self._fps,
            speak_prob=self._probs[0],
            dst_prob=self._probs[1],
            speak=self._decisions[0],
            dst=self._decisions[1],
            text=self._answers.get(Role.ASSISTANT, ""),
            updates=self._updates,
            dst_invalid=self._dst_invalid,
            state=self.state,  # never changed in place
            user_text=user_words(self._texts),
            context_len=self._context_len,
            event=self._event or None,
        )
        self.frame_idx += 1
        return output

    def _check_room(self, num_tokens: int, said: Said) -> None:
        room, frame_idx, used = self._room, self.frame_idx, self.context_len
        if not self.uses_reference:
            room.check_texts(frame_idx, num_tokens, used)
            return
        said_before = len(self.pending) if self._said.spans else 0
        room.check_texts(frame_idx, num_tokens, used, said_before=said_before)
        room.check_said(frame_idx, said.spans, used + num_tokens)

    def _enqueue(self, role: Role, max_tokens: int) -> None:
        self._writer.add(Span(role, tuple(self.chat.opening_ids(role)), max_tokens))

    def _finish_words(self) -> None:
        """Everything at this frame is said: make the context, and see whether it is full."""
        if self.uses_reference:
            self._take_reference()
            spans = self._said.spans
            if any(span.role is Role.ASSISTANT and not span.is_summary for span in spans):
                self._speaking.note_reply()
        if any(self._decisions) or (self.uses_reference and self._said.spans):
            self._speaking.note_span()
            self._updating.note_span()
        self._context_len = self.context_len
        if not self._context.is_full(self.context_len):
            return
        self._event = self.config.strategy.value
        if self.config.strategy is Strategy.SUMMARIZE:
            query, most = tuple(summary_query(self.chat)), self.config.max_summary_tokens
            self._writer.add(Span(Role.ASSISTANT, query, most, is_summary=True))
            return
        self._forget("")

    def _take_reference(self) -> None:
        """Drop what was written at this frame and take what the reference says instead."""
        if self.length > self._mark:
            self.cut = Cut(keep=((0, self._mark),))
            self.length = self._mark
            self._starts = [start for start in self._starts if start < self._mark]
        self.pending = []
        for span in self._said.spans:
            self._starts.append(self.context_len)
            self.pending += text_ids(self.chat, (span,))
            self._reference_state, _ = apply_updates(self._reference_state, span.updates)
        self._after_silence = not self._said.spans

    def _forget(self, summary: str) -> None:
        """Cut the context as the strategy says."""
        cut = self._context.cut(
            state=self._reference_state if self.uses_reference else self.state,
            knowledge=self._knowledge,
            summary=summary,
            starts=self._starts,
            length=self.length,
        )
        if cut.keep:
            first, (start, _) = cut.keep[0][1], cut.keep[-1]
            self._starts = [first, *(s - start + first for s in self._starts if s > start)]
            if start == self.length and not (self.uses_reference and self._said.spans):
                # Nothing stays behind the prefix: there is nothing to end, nor to go on from.
                self.pending, self._after_silence = [], False
        else:  # a new prefix, of which the cache may hold the beginning
            same = num_common(self.prefix, cut.feed)
            cut = Cut(keep=((0, same),), feed=cut.feed[same:])
            self.prefix, self.pending = self.prefix[:same], list(cut.feed)
            self._starts, self._after_silence = [], False
        self.cut = cut  # in place of a crop at this frame: it keeps nothing behind the crop
        self.length = sum(end - start for start, end in cut.keep)


def num_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of ids that both begin with."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
