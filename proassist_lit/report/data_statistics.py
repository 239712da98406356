"""What a data set is made of, counted: how much, how often somebody speaks, how long it gets."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from proassist_lit.data.conversation import AssistantTurn, Conversation, DstTurn, UserTurn
from proassist_lit.errors import RecordError
from proassist_lit.sequence.builder import TokenSequence, build_sequence
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.script import read_script

_NUM_BINS = 10
"""About as many bars as a histogram has before its tail."""


@dataclass(frozen=True)
class Bin:
    """One bar of a histogram: how many values lie in ``[low, high)``; None is no upper end."""

    low: float
    high: float | None
    count: int


@dataclass(frozen=True)
class Distribution:
    """Values of one quantity over a data set.

    Attributes:
        values: ascending; integers, or floats of any unit.
    """

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution:
        """The distribution of ``values``, in any order."""
        return cls(tuple(sorted(values)))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def minimum(self) -> float:
        """Smallest value; NaN without values, as in the others."""
        return self.values[0] if self.values else math.nan

    @property
    def median(self) -> float:
        """The middle value, or the mean of the two in the middle."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def p95(self) -> float:
        """Nearest rank: the smallest value that at least 95 % of the values do not exceed."""
        if not self.values:
            return math.nan
        return self.values[-(-95 * len(self.values) // 100) - 1]

    @property
    def maximum(self) -> float:
        """Largest value."""
        return self.values[-1] if self.values else math.nan

    @property
    def is_whole(self) -> bool:
        """Whether all values are integers by type: they are counts."""
        return all(isinstance(value, int) for value in self.values)

    def histogram(self) -> tuple[Bin, ...]:
        """Bins of one round width (1, 2 or 5 times a power of ten) from the smallest value on.

        A long tail beyond the 95th percentile is one last bin without an end, so that a single
        odd value does not flatten all others. Every value is in exactly one bin.
        """
        if not self.values:
            return ()
        width = _round_up((self.p95 - self.minimum) / _NUM_BINS, whole=self.is_whole)
        start = _floor(self.minimum / width)
        bins = [_floor(value / width) - start for value in self.values]
        num_bins = _floor(self.p95 / width) - start + 1
        has_tail = bins[-1] >= num_bins + 2
        if not has_tail:
            num_bins = bins[-1] + 1
        counts = [0] * (num_bins + has_tail)
        for i in bins:
            counts[min(i, len(counts) - 1)] += 1
        # Rounded: 3 * 0.1 is not 0.3.
        edges = [round((start + i) * width, 12) for i in range(num_bins + 1)]
        whole = list(map(Bin, edges, edges[1:], counts))
        return tuple([*whole, Bin(edges[-1], None, counts[-1])] if has_tail else whole)


@dataclass(frozen=True)
class ClassBalance:
    """How many frames are of each kind for one of the two decisions."""

    pos: int
    neg: int
    neither: int

    @property
    def num_frames(self) -> int:
        """All frames."""
        return self.pos + self.neg + self.neither

    @property
    def rate(self) -> float:
        """Share of all frames that are pos; NaN without frames."""
        return self.pos / self.num_frames if self.num_frames else math.nan


@dataclass(frozen=True, kw_only=True)
class DataStatistics:
    """Numbers of a data set.

    Frames are counted as often as they are watched: users of one recording each have a record.

    Attributes:
        num_records: conversations.
        num_videos: different recordings.
        num_frames: frames watched.
        duration_s: seconds watched, frames / fps.
        num_utterances: assistant turns.
        num_user_turns: user turns.
        num_updates: state updates.
        tokens_per_image: every K that was used, ascending.
        speak: kinds of frames for the speak decision.
        dst: kinds of frames for the update decision; all neither in records without steps.
        sequence_tokens: tokens of every record, uncut.
        gap_s: seconds between a frame that is spoken at and the next one, within a record.
        utterance_words: words of every utterance.
    """

    num_records: int
    num_videos: int
    num_frames: int
    duration_s: float
    num_utterances: int
    num_user_turns: int
    num_updates: int
    tokens_per_image: tuple[int, ...]
    speak: ClassBalance
    dst: ClassBalance
    sequence_tokens: Distribution
    gap_s: Distribution
    utterance_words: Distribution

    @property
    def hours(self) -> float:
        """``duration_s`` in hours."""
        return self.duration_s / 3600


def gather_statistics(
    conversations: Iterable[Conversation], chat: Chat, *, num_tokens_per_img: int | None = None
) -> DataStatistics:
    """Count everything; one record at a time is held as tokens.

    Args:
        conversations: the records.
        chat: the formatter, whose tokens are counted.
        num_tokens_per_img: K; None for what each record says.

    Raises:
        RecordError: a record cannot be written as tokens, naming it.
    """
    records: list[Conversation] = []
    speak, dst = [0, 0, 0], [0, 0, 0]
    num_tokens: list[int] = []
    gap_s: list[float] = []
    num_frames, duration_s = 0, 0.0
    for conversation in conversations:
        records.append(conversation)
        sequence = _sequence(conversation, chat, num_tokens_per_img)
        num_frames += len(sequence.frame_indices)
        duration_s += len(sequence.frame_indices) / conversation.fps
        num_tokens.append(len(sequence.input_ids))
        _add_kinds(speak, sequence.speak_labels)
        _add_kinds(dst, sequence.dst_update_labels)
        spoken = sequence.frame_indices[sequence.speak_labels == 1].tolist()
        gap_s += [(after - before) / conversation.fps for before, after in pairwise(spoken)]
    turns = [turn for record in records for turn in record.turns]
    words = [len(turn.content.split()) for turn in turns if isinstance(turn, AssistantTurn)]
    return DataStatistics(
        num_records=len(records),
        num_videos=len({(record.dataset, record.video_uid) for record in records}),
        num_frames=num_frames,
        duration_s=duration_s,
        num_utterances=len(words),
        num_user_turns=sum(isinstance(turn, UserTurn) for turn in turns),
        num_updates=sum(len(turn.updates) for turn in turns if isinstance(turn, DstTurn)),
        tokens_per_image=tuple(
            sorted({num_tokens_per_img or record.num_tokens_per_img for record in records})
        ),
        speak=ClassBalance(*speak),
        dst=ClassBalance(*dst),
        sequence_tokens=Distribution.of(num_tokens),
        gap_s=Distribution.of(gap_s),
        utterance_words=Distribution.of(words),
    )


def _sequence(
    conversation: Conversation, chat: Chat, num_tokens_per_img: int | None
) -> TokenSequence:
    try:
        return build_sequence(
            read_script(conversation),
            chat,
            num_tokens_per_img=num_tokens_per_img or conversation.num_tokens_per_img,
            max_seq_len=sys.maxsize,  # nothing is cut: the lengths are what is asked for
        )
    except ValueError as error:
        raise RecordError(f"{conversation.source}: {error}") from error


def _add_kinds(kinds: list[int], labels: Tensor) -> None:
    for i, label in enumerate((1, 0, -1)):
        kinds[i] += int((labels == label).sum())


def _round_up(width: float, *, whole: bool) -> float:
    """The next of 1, 2, 5, 10, 20, .. (and of 0.1, 0.2, .. if not ``whole``)."""
    if width <= 1 and (whole or width <= 0):
        return 1
    power: float = 10.0 ** math.floor(math.log10(width))
    # Guard against 0.30000000000000004 / 0.1 > 3.
    factor = next(f for f in (1, 2, 5, 10) if width / power <= f + 1e-9)
    return factor * power


def _floor(quotient: float) -> int:
    return math.floor(quotient + 1e-9)  # 0.3 / 0.1 is 2.9999999999999996
