"""The conversation record: one recording, or a part of one, with everything said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proassist_lit.types import StepState, Update


@dataclass(frozen=True, kw_only=True)
class SystemTurn:
    """Text from nobody: the prompt, task knowledge, a request for a summary."""

    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class UserTurn:
    """What the user said. ``time_s`` is informative; the place among the frames rules."""

    content: str
    time_s: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AssistantTurn:
    """What the assistant says.

    Attributes:
        content: the words.
        time_s: seconds from the start of the video; informative.
        labels: kind of utterance as the source names it (``initiative|instruction``).
        progress: summary of the task up to and including this turn.
        keywords: words that a right utterance must hold (right verb, right object).
        extra: other keys of the source, kept for the way back.
    """

    content: str
    time_s: float | None = None
    labels: str | None = None
    progress: str | None = None
    keywords: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FramesTurn:
    """Frames ``start`` .. ``end - 1`` of the video are watched; absolute indices.

    Attributes:
        start: first frame.
        end: one past the last.
        supervised: whether it is known what to do at them. If not, silence there is neither learnt
            nor scored; what is said or updated at them all the same is.
        extra: unknown keys.
    """

    start: int
    end: int
    supervised: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class DstTurn:
    """State updates at the frame before this turn."""

    updates: tuple[Update, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


Turn = SystemTurn | UserTurn | AssistantTurn | FramesTurn | DstTurn


@dataclass(frozen=True, kw_only=True)
class TaskStep:
    """A step of the task as the model is told it."""

    id: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One line of a prepared file, checked. Made by ``data.records``.

    Attributes:
        dataset: name of the data set; chooses the match window.
        video_uid: name of the recording.
        clip_idx: which part of the recording, from 0.
        frames_file: path of the frames or features, relative to the data root.
        fps: frames per second.
        num_tokens_per_img: K the source was prepared for; informative, the run's own rules.
        start_frame_idx: first frame watched; absolute in the video.
        end_frame_idx: one past the last frame watched.
        turns: the turns, in order; frames turns are contiguous.
        steps: steps of the task, ``S1`` .. ``Sn``; empty without state tracking.
        initial_state: state of every step at the beginning.
        metadata: anything else the source knows (``user_type``, ``knowledge``, ``rendered``).
        extra: other top-level keys of the source, kept for the way back.
        source: ``file:line`` it was read from, for error messages.
        names_dataset: whether its stream bears the name of the data set, too, since another one
            has a record of the same name. Decided by ``data.dataset`` for records of one split.
    """

    dataset: str
    video_uid: str
    clip_idx: int
    frames_file: str
    fps: float
    num_tokens_per_img: int
    start_frame_idx: int
    end_frame_idx: int
    turns: tuple[Turn, ...]
    steps: tuple[TaskStep, ...] = ()
    initial_state: Mapping[str, StepState] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    names_dataset: bool = field(default=False, repr=False)

    @property
    def id(self) -> str:
        """Name of the record within its data set: video, clip, user, and part of it if split."""
        user = self.metadata.get("user_id") or self.metadata.get("user_type") or "user"
        part = f"_part{self.metadata['part']}" if "part" in self.metadata else ""
        return f"{self.video_uid}_{self.clip_idx}_{user}{part}"

    @property
    def stream_id(self) -> str:
        """Unique name of its stream: ``id``, behind ``dataset/`` where two data sets have one."""
        return f"{self.dataset}/{self.id}" if self.names_dataset else self.id

    @property
    def num_frames(self) -> int:
        """How many frames are watched."""
        return self.end_frame_idx - self.start_frame_idx

    def without_updates(self) -> Conversation:
        """The same as a record without state tracking: frames that only updates parted adjoin."""
        turns: list[Turn] = []
        parted = False
        for turn in self.turns:
            if isinstance(turn, DstTurn):
                parted = True
                continue
            last = turns[-1] if turns else None
            if (
                parted
                and isinstance(last, FramesTurn)
                and isinstance(turn, FramesTurn)
                and last.supervised == turn.supervised
            ):
                turns[-1] = replace(last, end=turn.end)
            else:
                turns.append(turn)
            parted = False
        return replace(self, turns=tuple(turns), steps=(), initial_state={})
