"""Splits conversations that are too long into parts that begin as a stream goes on.

When the context of a stream is full, it is begun anew with a prefix (``streaming.context``). The
parts of a long conversation begin with the same prefixes, so that a model has learnt to go on from
them.

Source: iterative progress summarization for training, ProAssist, arXiv:2506.05904. It knows no
updates of a state; here a part without an utterance is kept if it has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.data.seeding import stable_rng
from proassist_lit.errors import RecordError
from proassist_lit.sequence.builder import frame_lengths, prefix_ids, text_ids
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.rules import OURS, SequenceRules
from proassist_lit.sequence.script import KNOWLEDGE, Text, read_script
from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY, written_turns
from proassist_lit.types import StepState, apply_updates


def split_conversation(
    conversation: Conversation,
    chat: Chat,
    config: SplitConfig,
    *,
    num_tokens_per_img: int,
    max_seq_len: int,
    seed: int,
    rules: SequenceRules = OURS,
    every_frame: bool = False,
) -> list[Conversation]:
    """Split ``conversation`` into parts of at most ``max_seq_len`` tokens.

    A part ends after the last utterance that fits (after the last frame, if none is in reach).
    Most of the silence before the next turn is left out, and so are parts that teach no words:
    without an utterance and, where updates are written, without one of those.

    Args:
        conversation: the record.
        chat: the formatter.
        config: how to split.
        num_tokens_per_img: K.
        max_seq_len: tokens.
        seed: of the frames watched before a part's first turn.
        rules: where the sources' rules differ from ours.
        every_frame: nothing is left out; for evaluation.

    Returns:
        The parts in order, each with its number under ``metadata["part"]``; the conversation
        itself if it fits or is to be cut.

    Raises:
        RecordError: a single frame with its prefix and the words around it does not fit (of one
            that is to be cut, the first); names the record.
    """
    splitter = _Splitter(conversation, chat, config, num_tokens_per_img, max_seq_len, rules)
    if config.method is SplitMethod.CUT:
        splitter.check_beginning()
        return [conversation]
    if splitter.fits_whole():
        return [conversation]
    rng = stable_rng("split", seed, conversation.id)
    parts: list[Conversation] = []
    start, number, summary = 0, 0, ""
    while start < splitter.num_frames:
        end, progress = splitter.find_end(start, summary, number=number)
        part = splitter.part(start, end, summary, progress, number=number)
        if every_frame or splitter.teaches(part):
            parts.append(part)
        number, summary = number + 1, progress or summary
        if every_frame:
            start = end
            continue
        context_s = float(rng.uniform(config.min_context_s, config.max_context_s))
        start = splitter.next_start(end, round(context_s * conversation.fps))
    return parts


@dataclass(frozen=True)
class _Placed:
    """A turn of words among the frames.

    Attributes:
        turn: the turn.
        position: frames watched before it.
        opens: it is text before frame ``position``, not a span of the frame before it.
    """

    turn: Turn
    position: int
    opens: bool

    @property
    def frame(self) -> int:
        """The frame that it is said at."""
        return self.position if self.opens else self.position - 1

    def is_in(self, start: int, end: int) -> bool:
        """Whether it is said at one of the frames ``start`` .. ``end - 1``."""
        return start <= self.frame < end


def _place(turns: Sequence[Turn], rules: SequenceRules) -> Iterator[_Placed]:
    """The words of ``turns``, as ``read_script`` aligns them: a text between ends the spans."""
    position, opens = 0, True
    for turn in turns:
        if isinstance(turn, FramesTurn):
            position, opens = position + len(turn), False
        else:
            is_heard = isinstance(turn, UserTurn) and rules.feed_user_text
            opens = opens or is_heard or isinstance(turn, SystemTurn)
            yield _Placed(turn, position, opens)


class _Splitter:
    """One conversation, by frames; frame 0 is its first."""

    def __init__(
        self,
        conversation: Conversation,
        chat: Chat,
        config: SplitConfig,
        num_tokens_per_img: int,
        max_seq_len: int,
        rules: SequenceRules,
    ) -> None:
        self._conversation, self._chat, self._config = conversation, chat, config
        self._max_seq_len, self._feeds_updates = max_seq_len, rules.feed_updates
        self._script = read_script(conversation, rules)
        self._lengths = frame_lengths(self._script, chat, num_tokens_per_img)
        self._first_length = self._lengths[0]
        # What is said after the last frame goes with it: a part has both or neither.
        self._lengths[-1] += len(text_ids(chat, self._script.after))
        self._placed = list(_place(written_turns(conversation, rules), rules))
        self.num_frames = len(self._lengths)

    def fits_whole(self) -> bool:
        """Whether one sequence holds the conversation."""
        prefix = prefix_ids(self._chat, self._script, self._script.initial_state)
        return len(prefix) + sum(self._lengths) <= self._max_seq_len

    def check_beginning(self) -> None:
        """Refuse a conversation of which not even the first frame fits; its end may be cut off."""
        prefix = prefix_ids(self._chat, self._script, self._script.initial_state)
        if len(prefix) + self._first_length > self._max_seq_len:
            raise self._misfit(0)

    def find_end(self, start: int, summary: str, *, number: int) -> tuple[int, str]:
        """Where the part that begins at ``start`` ends, and the progress of its last utterance."""
        told = self._told(start, summary) if number else ""
        used = len(prefix_ids(self._chat, self._script, self._state_at(start), told))
        if used + sum(self._lengths[start:]) <= self._max_seq_len:
            return self.num_frames, ""
        last, end, progress = start, None, ""
        for frame in range(start, self.num_frames):
            used += self._lengths[frame]
            if used > self._max_seq_len:
                break
            last = frame + 1
            reached = self._progress_at(frame)
            if reached is not None and used + self._summary_tokens(reached) <= self._max_seq_len:
                end, progress = last, reached
        if last == start:
            raise self._misfit(start)
        return (last, "") if end is None else (end, progress)

    def _misfit(self, frame: int) -> RecordError:
        return RecordError(
            f"{self._conversation.source}: frame {self._script.moments[frame].frame_idx} with "
            "the prompt and what is said around it does not fit into max_seq_len = "
            f"{self._max_seq_len} tokens; raise data.max_seq_len or shorten the system prompt."
        )

    def part(
        self, start: int, end: int, summary: str, progress: str, *, number: int
    ) -> Conversation:
        """Frames ``start`` .. ``end - 1`` with what is said at them."""
        turns: list[Turn] = []
        first, watched = self._conversation.start_frame_idx, start
        is_last = end == self.num_frames
        for placed in self._placed:
            if not placed.is_in(start, end + is_last):  # the last part has what follows all frames
                continue
            if placed.position > watched:
                turns += self._frames(first + watched, first + placed.position)
                watched = placed.position
            turns.append(placed.turn)
        if watched < end:
            turns += self._frames(first + watched, first + end)
        if number:
            told = (self._script.prompt, self._told(start, summary))
            prompt = " ".join(text for text in told if text)
            # Without a prompt, an empty one keeps the first system turn from being taken for it.
            if prompt or isinstance(turns[0], SystemTurn):
                turns.insert(0, SystemTurn(content=prompt))
        if self._config.method is SplitMethod.SUMMARIZE and progress:
            turns += [SystemTurn(content=SUMMARY_QUERY), AssistantTurn(content=progress)]
        return replace(
            self._conversation,
            start_frame_idx=first + start,
            end_frame_idx=first + end,
            turns=tuple(turns),
            initial_state=self._state_at(start),
            metadata={**self._conversation.metadata, "part": number},
        )

    def teaches(self, part: Conversation) -> bool:
        """Whether words are learnt from ``part``: those of an utterance, or of an update."""
        kinds = (AssistantTurn, DstTurn) if self._feeds_updates else (AssistantTurn,)
        return any(isinstance(turn, kinds) for turn in part.turns)

    def next_start(self, end: int, num_context_frames: int) -> int:
        """First frame of the part after frame ``end - 1``: some frames before its first turn."""
        last = self.num_frames - 1
        frames = [
            min(placed.frame, last)
            for placed in self._placed
            if placed.frame >= end and (self._feeds_updates or not isinstance(placed.turn, DstTurn))
        ]
        if end > last or not frames:
            return self.num_frames
        return max(end, min(frames) - num_context_frames)

    def _frames(self, start: int, end: int) -> Iterator[FramesTurn]:
        """Frames ``start`` .. ``end - 1``, absolute, in the frames turns that they come in."""
        for turn in self._conversation.turns:
            if isinstance(turn, FramesTurn) and turn.start < end and turn.end > start:
                yield FramesTurn(
                    start=max(turn.start, start),
                    end=min(turn.end, end),
                    supervised=turn.supervised,
                )

    def _progress_at(self, frame: int) -> str | None:
        """Progress that the last utterance at ``frame`` tells; None where no part may end."""
        said = [
            placed.turn
            for placed in self._placed
            if isinstance(placed.turn, AssistantTurn) and not placed.opens and placed.frame == frame
        ]
        if not said:
            return None
        progress = (said[-1].progress or "").strip()
        if self._config.method is not SplitMethod.SUMMARIZE:
            return progress
        length = len(self._chat.encode(progress))
        return progress if 0 < length <= self._config.max_summary_tokens else None

    def _summary_tokens(self, progress: str) -> int:
        """Tokens of request and answer at the end of a part."""
        if self._config.method is not SplitMethod.SUMMARIZE:
            return 0
        query = Text(role=Role.SYSTEM, content=SUMMARY_QUERY)
        answer = Text(role=Role.ASSISTANT, content=progress, is_summary=True)
        return len(text_ids(self._chat, (query, answer)))

    def _told(self, start: int, summary: str) -> str:
        """What the prefix of a part from ``start`` tells beside the prompt."""
        knowledge = [
            placed.turn.content
            for placed in self._placed[bool(self._script.prompt) :]  # the prompt is told anyway
            if isinstance(placed.turn, SystemTurn)
            and placed.frame < start
            and placed.turn.content.strip().startswith(KNOWLEDGE)
        ]
        summary = summary if self._config.method is SplitMethod.SUMMARIZE else ""
        return " ".join(text.strip() for text in (summary, *knowledge[:1]) if text)

    def _state_at(self, start: int) -> dict[str, StepState]:
        """State of the steps where a part from ``start`` begins; its prefix may tell it."""
        state = dict(self._conversation.initial_state)
        if self._config.method is SplitMethod.DROP_ALL:
            return state
        for placed in self._placed:
            if isinstance(placed.turn, DstTurn) and placed.frame < start:
                state, _ = apply_updates(state, placed.turn.updates)
        return state
