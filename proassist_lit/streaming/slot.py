"""One recorded stream under way in an engine: what it feeds next, what it makes of the outcome.

Rows of thresholds that have decided alike so far are one *branch*: they share everything. When
their decisions differ, the branch parts in two. A context of the assistant's own words then differs
too: the new branch moves to a slot of its own, with a copy of the cache. Where the reference makes
the context, branches stay together: they write one after another from the same frame, every
continuation is worked out once, and then the reference's words go on for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from proassist_lit.errors import FeatureError, StreamError
from proassist_lit.sequence.script import Text
from proassist_lit.streaming.arrivals import Said, arriving
from proassist_lit.streaming.branch import Branch
from proassist_lit.streaming.house import House
from proassist_lit.streaming.inputs import check_features
from proassist_lit.streaming.pace import Pace
from proassist_lit.streaming.policy import NEVER
from proassist_lit.streaming.recording import Recording
from proassist_lit.streaming.stream import Stream, num_common


@dataclass(frozen=True)
class Fed:
    """What a slot feeds in one step.

    Attributes:
        ids: token ids; 0 where an image token stands.
        images: places of the image tokens among them.
        features: (image tokens, E).
        ends: places at which a frame ends, where its decisions are read.
    """

    ids: list[int]
    images: list[int] = field(default_factory=list)
    features: Tensor | None = None
    ends: list[int] = field(default_factory=list)


class Slot:
    """A recorded stream under way, at a place of the cache.

    Args:
        house: what all slots share.
        place: which slot of the cache.
        index: place among the recordings.
        recording: what is watched.
        features: (F, K, E), at least one row per frame.
        branch: who watches.

    Raises:
        StreamError: there is nothing to watch.
        FeatureError: there are fewer features than frames.
    """

    def __init__(
        self,
        house: House,
        place: int,
        index: int,
        recording: Recording,
        features: Tensor,
        branch: Branch,
    ) -> None:
        self.house, self.place, self.index = house, place, index
        self.recording, self.features = recording, features
        self.branches = [branch]
        self.num_frames = len(recording.script.moments)
        self._check(features)
        self._frame = 0
        self._pace = Pace()
        self._mark = 0  # tokens in the cache when the decisions of the frame were made
        self._fed: list[int] = []  # ids in the cache behind the mark
        self._known: dict[tuple[int, ...], int] = {}  # ids behind the mark -> the token after them
        self._writer: Branch | None = None
        self._ahead: Fed | None = None
        # Whether the next frame is to be read apart from all else.
        self.is_alone = house.reads_alone
        self._opening: list[int] | None = None

    def _check(self, features: Tensor) -> None:
        name = self.recording.name
        if not self.num_frames:
            raise StreamError(f"stream {name!r}: has no frames; leave it out.")
        if len(features) < self.num_frames:
            raise FeatureError(
                f"stream {name!r}: watches {self.num_frames} frames, but there are features of "
                f"{len(features)} only; encode the whole video."
            )
        self._all_finite = bool(torch.isfinite(features[: self.num_frames]).all())

    @property
    def stream(self) -> Stream:
        """What the first branch remembers; of the context, all branches remember the same."""
        return self.branches[0].stream

    @property
    def is_writing(self) -> bool:
        """Whether the next thing to feed belongs to something that is written."""
        return self._writer is not None

    @property
    def is_new(self) -> bool:
        """Whether nothing was fed yet."""
        return not self._frame and not self.house.cache.lengths[self.place]

    @property
    def is_done(self) -> bool:
        """Whether every frame was answered."""
        return self._frame == self.num_frames

    @property
    def writes_dst(self) -> bool:
        """Whether the token that is asked for belongs to a dst span."""
        assert self._writer is not None
        return self._writer.stream.writes_dst

    def opening_ids(self) -> list[int]:
        """All that precedes the first image token.

        Raises:
            StreamError: it is too long.
        """
        if self._opening is None:
            probe = self.stream.copy()
            probe.begin(*self._texts(0))
            self._opening = probe.prefix
        return self._opening

    def plan(self, streams: int = 1) -> Fed:
        """The next tokens to feed: of what is written, or of a block of frames as it is in silence.

        Args:
            streams: that share the step.

        Raises:
            StreamError: the next frame cannot be watched.
        """
        if self._ahead is None:
            self._ahead = self._plan_block(streams)
        return self._ahead

    def _plan_block(self, streams: int) -> Fed:
        house, probe = self.house, self.stream.copy()
        cached = house.cache.lengths[self.place]
        ids: list[int] = []
        images: list[int] = []
        ends: list[int] = []
        last = min(self._frame + self._frames_ahead(streams), self.num_frames)
        for frame in range(self._frame, last):
            try:
                probe.check()
                if not self._all_finite or frame == 0:
                    where = f"stream {probe.name!r}, frame {probe.frame_idx}"
                    check_features(self.features[frame], house.num_tokens_per_img, where)
                before = probe.begin(*self._texts(frame))
            except StreamError:
                if frame == self._frame:
                    raise
                break  # its turn will come, once the frames before it are answered
            if frame > self._frame and probe.length > probe.config.max_context:
                break
            if frame == 0:
                before = before[cached:]  # taken over from another slot
            ids += before
            images += range(len(ids), len(ids) + house.num_tokens_per_img)
            ids += [0] * house.num_tokens_per_img
            ends.append(len(ids) - 1)
            probe.decide(NEVER, NEVER)
            if probe.cut is not None or probe.is_writing:
                break  # the context is full: the strategy comes first
            probe.end()
        features = self.features[self._frame : self._frame + len(ends)].flatten(0, 1)
        return Fed(ids, images, features, ends)

    def accept(
        self, probs: Sequence[tuple[float, float | None]], part: Callable[[Slot, Branch], None]
    ) -> None:
        """Go through a block up to the first frame at which something happens.

        Args:
            probs: P(speak) and P(update) of the frames that were fed.
            part: gives a branch a slot of its own, beside this one.
        """
        self._ahead = None
        read_again, self.is_alone = self.is_alone, self.house.reads_alone
        for speak_prob, dst_prob in probs:
            if not read_again and self._is_near(speak_prob, dst_prob):
                self.house.cache.crop(self.place, self.stream.length)
                self.is_alone = True
                break
            texts = self._texts(self._frame)
            for branch in self.branches:
                branch.stream.begin(*texts)
            self._mark = self.stream.length
            self._decide(speak_prob, dst_prob, part)
            if any(branch.stream.is_writing for branch in self.branches):
                self._fed, self._known = [], {}
                for branch in self.branches:
                    branch.tape = []
                self._advance()
                break
            happened = self.stream.cut is not None
            if happened:
                self.house.cache.crop(self.place, self._mark)
            self._end()
            if happened:
                break

    def _is_near(self, speak_prob: float, dst_prob: float | None) -> bool:
        """Whether rounding may have made a decision of any row."""
        margin = self.house.margin
        if not margin:
            return False

        def would(branch: Branch, row: int, by: float) -> tuple[bool, bool]:
            dst = None if dst_prob is None else dst_prob + by
            return branch.stream.would(speak_prob + by, dst, self.house.thresholds[row])

        return any(
            would(branch, row, -margin) != would(branch, row, margin)
            for branch in self.branches
            for row in branch.rows
        )

    def _decide(
        self,
        speak_prob: float,
        dst_prob: float | None,
        part: Callable[[Slot, Branch], None],
    ) -> None:
        """Let every row decide; rows that differ from the rest of their branch leave it."""
        parted: list[Branch] = []
        for branch in self.branches:
            ways: dict[tuple[bool, bool], list[int]] = {}
            for row in branch.rows:
                way = branch.stream.would(speak_prob, dst_prob, self.house.thresholds[row])
                ways.setdefault(way, []).append(row)
            # those who stay silent stay here: what was watched ahead is right for them
            parted += [branch.part(ways[way]) for way in sorted(ways)[1:]]
        if self.stream.uses_reference:
            self.branches += parted
            parted = []
        fired = [self._decide_alike(b, speak_prob, dst_prob) for b in self.branches]
        self._pace.note(any(fired))
        for branch in parted:
            self._decide_alike(branch, speak_prob, dst_prob)
            part(self, branch)

    def _decide_alike(self, branch: Branch, speak_prob: float, dst_prob: float | None) -> bool:
        """Let a branch decide as any of its rows does; return whether anything fired."""
        branch.stream.thresholds = self.house.thresholds[branch.rows[0]]
        return any(branch.stream.decide(speak_prob, dst_prob))

    def moved(self, branch: Branch, place: int) -> Slot:
        """A slot at ``place`` for a branch that leaves this one, its decisions made."""
        self.house.cache.copy(self.place, place, self._mark)
        other = copy(self)
        other.place, other.branches = place, [branch]
        other._pace = copy(self._pace)
        other._pace.note(True)
        other._fed, other._known = [], {}
        other._advance()
        return other

    def _frames_ahead(self, streams: int) -> int:
        house = self.house
        if self.is_alone:
            return 1
        if not self.stream.config.words:
            return house.max_block  # nothing that is decided changes what comes
        ahead = self._pace.frames_ahead(house.step_rows / streams, house.num_tokens_per_img)
        return max(1, min(house.max_block, round(ahead)))

    def take(self, token: int) -> None:
        """Go on with ``token``, the most probable one after what was fed."""
        assert self._writer is not None
        self._known[tuple(self._writer.tape)] = token
        self._give(self._writer, token)
        self._advance()

    def _give(self, branch: Branch, token: int) -> None:
        stream = branch.stream
        stream.take(token)
        if stream.cut is not None and stream.is_writing:  # its words are dropped, a summary follows
            stream.cut, branch.tape = None, []
        elif stream.is_writing:
            branch.tape += stream.feed() or []

    def _advance(self) -> None:
        """Go on with what is known; plan to feed what is not, or end the frame."""
        self._writer = self._ahead = None
        for branch in self.branches:
            while branch.stream.is_writing:
                if not branch.tape:
                    branch.tape += branch.stream.feed() or []
                token = self._known.get(tuple(branch.tape))
                if token is not None:
                    self._give(branch, token)
                    continue
                same = min(num_common(self._fed, branch.tape), len(branch.tape) - 1)
                self.house.cache.crop(self.place, self._mark + same)
                self._fed, self._writer = list(branch.tape), branch
                self._ahead = Fed(branch.tape[same:])
                return
        self._end()

    def _end(self) -> None:
        """Nobody writes any more: forget what is to be forgotten and emit the answers."""
        cut, cache = self.stream.cut, self.house.cache
        if self.stream.uses_reference and self._fed:
            cache.crop(self.place, self._mark)
        if cut is not None:
            cache.keep(self.place, cut.keep, self.house.rotation)
        self._fed = []
        for branch in self.branches:
            branch.stream.cut = None
            branch.frames.append(branch.stream.end())
            self.house.num_answered += len(branch.rows)
        self._frame += 1

    def _texts(self, frame: int) -> tuple[tuple[Text, ...], Said]:
        return arriving(self.recording.script, frame)
